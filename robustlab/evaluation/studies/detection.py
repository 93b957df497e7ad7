"""Detectors of adversarial images, before an attacker who does not know them and one who does.

The attacker who does not know comes in two forms. One stops at the first wrong answer, as the suite does: such images
lie at the boundary, where the classifier is unsure, and are easy to notice. The other takes every step. The attacker
who knows goes on from the better of the two and lowers the detector's score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from robustlab.attacks.suite import Member
from robustlab.base.draws import keys, uniform
from robustlab.base.intervals import share
from robustlab.defenses.detectors import Detector, Evasion, make_detector
from robustlab.defenses.detectors.base import scores_of
from robustlab.defenses.detectors.measure import auroc, threshold
from robustlab.evaluation.cascade import Task
from robustlab.evaluation.detecting import noise, unaware
from robustlab.evaluation.judging import logits_of
from robustlab.evaluation.studies.base import Job, Study
from robustlab.runs.aggregates import CLEAN
from robustlab.runs.detections import ATTACKERS, DETECTION, RANDOM, RATE
from robustlab.threat.geometry import column, distance
from robustlab.threat.model import allowed

Json = dict[str, Any]
STEPS = 50  # of the attack that knows the detector
MOST = 1e300  # the score of an image for which the detector has no number: as suspicious as can be


class Detection(Study[Job]):
    """Only where detectors are asked for. A part is a chunk of one model, with all detectors."""

    name = DETECTION

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.detectors: dict[str, Detector] = {text: make_detector(text) for text in job.plan.options.detector or ()}
        chunks = {f"{task.name} {n}": (task, n, where) for task in job.tasks for n, where in task.chunks()}
        self._parts: dict[str, tuple[Task, int, Tensor]] = chunks if self.detectors else {}

    @cached_property
    def member(self) -> Member:
        """The attack that does not know the detectors."""
        return unaware(self.job.plan.suite)

    def parts(self) -> Sequence[str]:
        return list(self._parts)

    def seconds(self, part: str) -> float:
        task, _, where = self._parts[part]
        views = sum(len(each.views(task.data.images[:1])) for each in self.detectors.values())
        return self.job.timings[task.name].step * len(where) * (2 * self.member.attack.looks + STEPS * views)

    def work(self, part: str) -> Json:
        task, number, where = self._parts[part]
        chunk = task.data.take(where).loaded()
        lines = {line.id: line for line in task.run.unit_lines(task.name, CLEAN, 0.0, number)}
        ids = chunk.ids.tolist()
        clean, y = (torch.tensor([getattr(lines[id], key) for id in ids]) for key in ("clean", "label"))
        x, labels, keyed, right = (each.to(task.device) for each in (chunk.images, y, chunk.ids, clean == y))
        found = task.batches.fit(lambda size: self._found(task, x, labels, keyed, right, size))
        return {"ids": ids, "right": right.tolist(), **found}

    def _found(self, task: Task, x: Tensor, y: Tensor, ids: Tensor, right: Tensor, size: int) -> Json:
        """`wrong`: which images each attacker makes wrong. `scores`: of each detector for the images of each."""
        threat, seed, model = task.suite.threat, task.options.seed, task.model

        def wrong(images: Tensor) -> Tensor:
            z = logits_of(model, images, size)
            inside = distance(images - x, threat.norm) <= allowed(threat.eps)
            return (z.argmax(1) != y) & torch.isfinite(z).all(1) & inside

        def crafted(**how: Any) -> Tensor:
            images, attack = x.clone(), self.member.attack
            outcome = attack.run(model, x[right], y[right], ids=ids[right], seed=seed, batch_size=size, **how)
            images[right] = outcome.images
            return images

        shown = {
            "clean": x,
            "first": crafted(search=task.search),
            "every": crafted(surrogate=task.search or model),  # takes every step, and is judged when it is finished
            "noise": noise(x, threat.norm, threat.eps, seed, ids),
        }
        fooled = {name: wrong(images) for name, images in shown.items()}
        start = torch.where(column(fooled["every"] | ~fooled["first"], x), shown["every"], shown["first"])
        found: Json = {"wrong": {name: each.tolist() for name, each in fooled.items()}, "scores": {}, "aware": {}}
        for text, detector in self.detectors.items():
            attack = Evasion(detector, norm=threat.norm, eps=threat.eps, steps=STEPS)
            aware = attack.run(model, x, y, start=start, ids=ids, seed=seed, batch_size=size).images
            scores = {
                name: scores_of(detector, model, images, size).nan_to_num(MOST, MOST, -MOST).tolist()
                for name, images in {**shown, "aware": aware}.items()
            }
            found["scores"][text], found["aware"][text] = scores, wrong(aware).tolist()
        return found

    def section(self, done: Mapping[str, Json]) -> Json:
        rows: list[Json] = []
        for task in self.job.tasks:
            parts = [f"{task.name} {number}" for number, _ in task.chunks()]
            if all(part in done for part in parts):
                rows += self._rows(task, [done[part] for part in parts])
        labels = {
            "model": "Model",
            "detector": "Detector",
            "attacker": "Attacker",
            "auroc": "AUROC",
            "tpr": f"Noticed at {RATE:.0%} false alarms",
            "fpr": "False alarms",
            "wrong": "Wrong",
            "unnoticed": "Wrong and unnoticed",
        }
        return {
            "columns": [{"key": key, "label": label} for key, label in labels.items()],
            "rows": rows,
            "n": len(self.job.plan.data),
            "interval": "95 % Wilson; of AUROCs by Newcombe (2006), method 5",
            "attack": self.member.name,
            "steps": STEPS,
            "note": "The threshold lets 5 % of a random half of the clean images that are classified right pass as"
            " suspicious; false alarms are counted on the other half.",
        }

    def _rows(self, task: Task, parts: Sequence[Json]) -> list[Json]:
        """The rows of one model."""

        def joined(*path: str) -> Tensor:
            values: list[Any] = []
            for part in parts:
                for key in path:
                    part = part[key]
                values += part
            return torch.tensor(values)

        ids, right, seed = joined("ids"), joined("right"), task.options.seed
        wrong = {name: joined("wrong", name) for name in ("first", "every", "noise")}
        first, second = halves(right, uniform(keys(seed, ids, "threshold"), (1,))[:, 0])

        def row(detector: str, attacker: str, score: Tensor, clean: Tensor, wrong: Tensor) -> Json:
            limit = threshold(clean[first], RATE)
            shown = right & wrong if attacker != "noise" else right
            flagged, held = score > limit, clean[second]
            return {
                "model": task.name,
                "detector": detector,
                "attacker": attacker,
                "auroc": auroc(score[shown], clean[right]),
                "tpr": share(int((flagged & shown).sum()), int(shown.sum())),
                "fpr": share(int((held > limit).sum()), len(held)),
                "wrong": share(int(wrong.sum()), len(wrong)),
                "unnoticed": share(int((wrong & ~flagged).sum()), len(wrong)),
            }

        rows = []
        for text in self.detectors:
            clean = joined("scores", text, "clean").double()
            for attacker in ATTACKERS:
                fooled = joined("aware", text) if attacker == "aware" else wrong[attacker]
                rows.append(row(text, attacker, joined("scores", text, attacker).double(), clean, fooled))
        clean, score = (uniform(keys(seed, ids, RANDOM, of), (1,))[:, 0].double() for of in ("clean", "attacked"))
        return [*rows, row(RANDOM, "every", score, clean, wrong["every"])]


def halves(chosen: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the chosen samples in two halves, by the order of their draws. chosen, draw: (n,) bool, float.

    >>> [half.tolist() for half in halves(torch.tensor([True, False, True, True]), torch.tensor([0.9, 0.1, 0.2, 0.5]))]
    [[2], [3, 0]]
    """
    where = chosen.nonzero()[:, 0]
    order = where[draw[where].argsort(stable=True)]
    return order[: len(order) // 2], order[len(order) // 2 :]
