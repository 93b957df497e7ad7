"""Two questions asked of a backdoor: does it work, and which filters find it?"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from robustlab.backdoors.job import BackdoorJob, model_name
from robustlab.backdoors.poisoning import Poisoned
from robustlab.backdoors.setting import FilterPlan
from robustlab.base.errors import UserError
from robustlab.base.files import slug
from robustlab.base.pictures import png, sheet
from robustlab.defenses.filters.base import Scores
from robustlab.defenses.filters.measure import measure_filter, mid_ranks
from robustlab.evaluation.running import rows_of, table
from robustlab.evaluation.studies.base import Study
from robustlab.oracle import ask, undisturbed

Json = dict[str, Any]
SHARES = [
    ("clean", "Clean accuracy", ""),
    ("asr", "Attack success", ""),
    ("right", "Right under the trigger", ""),
]
_TOP = 16  # images on a sheet
SECONDS = 40.0  # of a training, for a first guess


class Models(Study[BackdoorJob]):
    """A model for each seed, trained on poisoned images as if nobody had looked."""

    name = "models"

    def parts(self) -> Sequence[str]:
        return [str(seed) for seed in self.job.seeds]

    def seconds(self, part: str) -> float:
        return SECONDS

    def work(self, part: str) -> Json:
        job, seed = self.job, int(part)
        data, losses = job.poisoned(seed), list[Tensor]()
        watched = any("losses" in plan.needs for plan in job.filters)
        rate = data.rates["target"]
        job.listener.say(
            f"Seed {seed}: training on {len(data)} images, {int(data.changed.sum())} of them poisons"
            + (f" ({100 * rate:.1f} % of the target class)." if rate else ".")
        )
        found = job.trained(
            data, seed, model_name(seed), lambda model: losses.append(_losses(model, data)) if watched else None
        )
        if losses:
            job.run.write_state(f"losses {seed}", save({"losses": torch.stack(losses)}))
        row = {"seed": seed, "n": len(data), "poisons": int(data.changed.sum()), "covers": int(data.covers.sum())}
        shown = {key: found[key] for key in ("clean", "asr", "right", "epoch")}
        return {"rows": [row | {"share": rate} | shown | {"seconds": found["train_seconds"]}]}

    @property
    def _tested(self) -> str:
        setting = self.job.setting
        if setting.relation == "one-to-one":
            return f"test images of {setting.source} alone."
        if setting.relation == "all-to-all":
            return "all test images."
        return "test images of all classes but the target."

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("seed", "Seed", ""),
            ("n", "Training images", ""),
            ("poisons", "Poisons", ""),
            ("covers", "Covers", ""),
            ("share", "Poisons' share of the target class", ""),
            *SHARES,
            ("epoch", "Epoch that was kept", ""),
            ("seconds", "Seconds", ""),
        ]
        note = (
            f"Trained on the poisoned images, undefended. The epoch was chosen by the accuracy on {len(self.job.val)}"
            " clean validation images. The trigger is put on " + self._tested
        )
        return table(columns, rows_of(done), n=len(self.job.test), note=note)


class Filters(Study[BackdoorJob]):
    """What each filter removes."""

    name = "filters"

    def parts(self) -> Sequence[str]:
        return [f"{seed} {plan.name}" for seed in self.job.seeds for plan in self.job.filters]

    def work(self, part: str) -> Json:
        job = self.job
        seed, plan = split(part, job.filters)
        data = job.poisoned(seed)
        try:
            judge, seen = job.filter(seed, plan), job.seen(seed, plan)
            clock = time.perf_counter()
            found = judge(seen)
        except UserError as error:  # the other filters go on
            job.listener.warn(f"{plan.name}, seed {seed}: {error}")
            return {"error": str(error)}
        seconds = time.perf_counter() - clock
        job.keep(seed, plan, found)
        job.run.write_file(f"scores/{seed}-{slug(plan.name)}.csv", _csv(data, found))
        if seed == job.seeds[0]:
            job.run.write_image(f"top-{slug(plan.name)}.png", png(_top_scored(data, found)))
        return {
            "rows": [
                {"seed": seed, "filter": plan.name, "knew": _knew(plan, found), **row_of(data, found)}
                | {
                    "threshold": _finite(found.thresholds.get(data.target if data.target is not None else -1)),
                    "seconds": seconds,
                }
            ]
        }

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("seed", "Seed", ""),
            ("filter", "Filter", ""),
            ("knew", "What the defender knew", ""),
            ("auroc", "AUROC in the target class", ""),
            ("tpr", "Poisons removed", ""),
            ("fpr", "Clean images removed", ""),
            ("removed", "Removed", ""),
            ("left", "Poisons left", ""),
            ("clean_removed", "Clean removed", ""),
            ("threshold", "Threshold in the target class", ""),
            ("seconds", "Seconds", ""),
        ]
        own = [f"{plan.name}: {plan.layer}" for plan in self.job.filters if plan.layer is not None]
        others = f" ({', '.join(own)})" if own else ""
        note = (
            f"Filters that look at representations saw the layer {self.job.layers[0]}{others}. Every score and every"
            " removed id is in scores/. Pictures: the images of the target class with the highest scores (first seed);"
            " a red bar is a poison, a grey one a clean image. Covers, which have the trigger and their true label,"
            " count as clean."
        )
        images = [
            f"images/top-{slug(plan.name)}.png"
            for plan in self.job.filters
            if f"{self.job.seeds[0]} {plan.name}" in done
        ]
        return table(columns, rows_of(done), note=note, images=images)


def split(part: str, plans: Sequence[FilterPlan]) -> tuple[int, FilterPlan]:
    """The seed and the filter of a part's name."""
    seed, _, name = part.partition(" ")
    return int(seed), next(plan for plan in plans if plan.name == name)


def row_of(data: Poisoned, found: Scores) -> Json:
    """What a filter found, in numbers: AUROC inside the target class (without one: by ranks inside each)."""
    poisons = data.changed
    counted = measure_filter(found.scores, found.removed, poisons)
    inside = comparable(data, found.scores)
    own = slice(None) if data.target is None else data.labels == data.target
    area = measure_filter(inside[own], found.removed[own], poisons[own])["auroc"]["value"]
    return {
        "auroc": area,
        "tpr": counted["tpr"],
        "fpr": counted["fpr"],
        "removed": int(found.removed.sum()),
        "left": counted["poisons_left"],
        "clean_removed": counted["clean_removed"],
    }


def comparable(data: Poisoned, scores: Tensor) -> Tensor:
    """The scores; without a target class their ranks inside each class, in (0, 1]."""
    if data.target is not None:
        return scores
    ranks = torch.full((len(scores),), torch.nan, dtype=torch.float64)
    for label in data.labels.unique().tolist():
        where = ((data.labels == label) & ~scores.isnan()).nonzero()[:, 0]
        ranks[where] = mid_ranks(scores[where]) / len(where)
    return ranks


def _knew(plan: FilterPlan, found: Scores) -> str:
    what = "the true share of poisons" if plan.told else "an upper bound on the share of poisons"
    return found.knows.replace("eps", what)


def _losses(model: nn.Module, data: Poisoned) -> Tensor:
    """(n,) the loss of each training image."""
    device = next(model.parameters()).device
    with torch.no_grad(), undisturbed(model):
        parts = [
            F.cross_entropy(ask(model, x.to(device)).float(), y.to(device), reduction="none").cpu()
            for x, y in zip(data.images.split(512), data.labels.split(512), strict=True)
        ]
    return torch.cat(parts)


def _csv(data: Poisoned, found: Scores) -> bytes:
    text = io.StringIO(newline="")
    written = csv.writer(text)
    written.writerow(["id", "label", "true_label", "poison", "cover", "score", "removed"])
    columns = (data.ids, data.labels, data.true_labels, data.changed.int(), data.covers.int())
    lists = [column.tolist() for column in columns]
    written.writerows(
        (*row, f"{score:.7g}", removed)
        for *row, score, removed in zip(*lists, found.scores.tolist(), found.removed.int().tolist(), strict=True)
    )
    return text.getvalue().encode()


def _top_scored(data: Poisoned, found: Scores) -> Tensor:
    """The images of the target class with the highest scores; below each a bar, red for a poison."""
    inside = comparable(data, found.scores).nan_to_num(-torch.inf)
    if data.target is not None:
        inside = inside.masked_fill(data.labels != data.target, -torch.inf)
    best = inside.argsort(descending=True, stable=True)[: min(_TOP, int(inside.isfinite().sum()))]
    images = data.images[best].expand(-1, 3, -1, -1)
    bars = torch.full((len(best), 3, max(2, images.shape[-1] // 12), images.shape[-1]), 0.75)
    bars[data.changed[best]] = torch.tensor([0.85, 0.1, 0.1])[:, None, None]
    shown = torch.cat([images, bars], 2)
    white = shown.new_ones(-len(shown) % (_TOP // 2), *shown.shape[1:])
    return sheet(list(torch.cat([shown, white]).split(_TOP // 2)))


def _finite(value: float | None) -> float | None:
    return value if value is not None and value < float("inf") else None
