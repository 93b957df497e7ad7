"""What is shown of a backdoor beside its numbers: the trigger, scores, singular values, a projection, layers, heat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robustlab.backdoors.job import BackdoorJob
from robustlab.backdoors.studies import comparable, row_of, split
from robustlab.base.errors import UserError
from robustlab.base.pictures import png, sheet
from robustlab.defenses.filters.directions import top_directions
from robustlab.evaluation.heat import heat_rows, heat_section
from robustlab.evaluation.running import rows_of, table
from robustlab.evaluation.studies.base import Study

Json = dict[str, Any]
BINS, VALUES, POINTS, SHOWN = 30, 10, 600, 8
_WIDE = 20.0  # a score this many times the median is shown on a logarithmic axis


class First(Study[BackdoorJob]):
    """A question about the first seed alone."""

    def parts(self) -> Sequence[str]:
        return [str(self.job.seeds[0])]


class TriggerShown(First):
    """The trigger on training and test images."""

    name = "trigger"

    def work(self, part: str) -> Json:
        job, seed = self.job, int(part)
        data, tried = job.poisoned(seed), job.triggered(seed)
        changed = data.changed.nonzero()[:SHOWN, 0]
        before = torch.cat([job.train.images[(job.train.ids == i).nonzero()[0]] for i in data.ids[changed]])
        shown = tried.take(torch.arange(min(SHOWN, len(tried))))
        bare = torch.cat([job.test.images[(job.test.ids == i).nonzero()[0]] for i in shown.ids])
        rows, files = [], []
        for role, first, second in (("training", before, data.images[changed]), ("test", bare, shown.images)):
            off = second - first
            picture = sheet([first, second, (0.5 + 5 * off).clamp(0, 1)])
            job.run.write_image(f"trigger-{role}.png", png(picture))
            files.append(f"images/trigger-{role}.png")
            rows.append({"role": role, "pixels": _mean((off.abs().amax(1) > 0).float()), "change": _mean(off.abs())})
        return {"rows": rows, "images": files}

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("role", "Images", ""),
            ("pixels", "Share of the pixels that change", ""),
            ("change", "Mean change", "of the range from 0 to 1"),
        ]
        note = "From above: the image, with the trigger, and five times the difference, around grey."
        images = [file for value in done.values() for file in value["images"]]
        return table(columns, rows_of(done), note=note, images=images)


class Histograms(First):
    """The scores of the target class, clean and poisoned, of each filter."""

    name = "scores"

    def parts(self) -> Sequence[str]:
        return [f"{self.job.seeds[0]} {plan.name}" for plan in self.job.filters]

    def work(self, part: str) -> Json:
        job = self.job
        seed, plan = split(part, job.filters)
        found = job.found(seed, plan)
        if found is None:
            return {"error": "the filter did not end"}
        removed, scores = found
        data = job.poisoned(seed)
        own = ~scores.isnan() if data.target is None else (data.labels == data.target) & ~scores.isnan()
        if not bool(own.any()):
            return {"error": "it did not look at the target class"}
        inside, poisons = comparable(data, scores)[own].double(), data.changed[own]
        gone = inside[removed[own]]
        limit = float(gone.min()) if len(gone) else None
        wide = bool(inside.min() > 0) and float(inside.max()) > _WIDE * float(inside.median())
        if wide:
            inside, limit = inside.log10(), None if limit is None else float(torch.tensor(limit).log10())
        low, high = float(inside.min()), float(inside.max())
        high = high if high > low else low + 1.0
        counts = [torch.histc(inside[mask], BINS, low, high).long().tolist() for mask in (~poisons, poisons)]
        row = {"filter": plan.name, "low": low, "high": high, "scale": "log10" if wide else "linear"}
        return {"rows": [row | {"clean": counts[0], "poison": counts[1], "threshold": limit}]}

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [("filter", "Filter", ""), ("low", "From", ""), ("high", "To", ""), ("threshold", "Threshold", "")]
        whose = "the target class" if self.job.setting.target is not None else "all classes, by rank inside each,"
        note = f"How many images of {whose} have which score (first seed), clean ones and poisons."
        return table(columns, rows_of(done), note=note)


class Spectrum(First):
    """The largest singular values of each class."""

    name = "spectrum"

    def work(self, part: str) -> Json:
        job, data = self.job, self.job.poisoned(int(part))
        x, rows = job.representations(int(part), job.layers[0]), []
        for label in data.labels.unique().tolist():
            own = x[data.labels == label]
            values, _ = top_directions(own - own.mean(0), min(VALUES, len(own)))
            name = job.train.classes[label] if job.train.classes else str(label)
            scaled = (values / len(own) ** 0.5).tolist()
            rows.append({"class": name, "target": label == data.target, "values": scaled})
        return {"rows": rows}

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [("class", "Class", ""), ("target", "Target", ""), ("values", "Singular values", "")]
        note = (
            f"The largest singular values of the centred representations ({self.job.layers[0]}) of each class, divided"
            " by the root of its size: standard deviations along those directions. A spectral filter hopes that"
            " poisons stretch the first one of the target class."
        )
        return table(columns, rows_of(done), note=note)


class Projection(First):
    """The target class on its two main directions."""

    name = "projection"

    def parts(self) -> Sequence[str]:
        return super().parts() if self.job.poisoned(self.job.seeds[0]).target is not None else []

    def work(self, part: str) -> Json:
        job, data = self.job, self.job.poisoned(int(part))
        own = data.labels == data.target
        x, poisons = job.representations(int(part), job.layers[0])[own], data.changed[own]
        centred = x - x.mean(0)
        _, vectors = top_directions(centred, 2)
        points = (centred.double() @ vectors)[:, :2]
        few = [points[mask][: POINTS // 2].tolist() for mask in (~poisons, poisons)]
        named = zip(("clean", "poison"), few, strict=True)
        row = {
            f"{what}_{axis}": [point[at] for point in found] for what, found in named for at, axis in enumerate("xy")
        }
        return {"rows": [{"class": str(job.setting.target), **row}]}

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [("class", "Class", "")]
        note = (
            f"Representations ({self.job.layers[0]}) of the target class on its two top right singular vectors (first"
            f" seed): clean images and poisons, at most {POINTS // 2} of each."
        )
        return table(columns, rows_of(done), note=note)


class Layers(Study[BackdoorJob]):
    """The same filters on other layers of the same models."""

    name = "by layer"

    def parts(self) -> Sequence[str]:
        job = self.job
        return [f"{seed} {layer}" for seed in job.seeds for layer in job.layers] if len(job.layers) > 1 else []

    def work(self, part: str) -> Json:
        job = self.job
        number, _, layer = part.partition(" ")
        seed = int(number)
        data, rows = job.poisoned(seed), []
        for plan in job.filters:
            if plan.needs != ("representations",) or plan.layer is not None:
                continue
            row: Json = {"seed": seed, "layer": layer, "d": job.representations(seed, layer).shape[1]}
            try:
                found = job.filter(seed, plan)(job.seen(seed, plan, layer))
                rows.append(row | {"filter": plan.name, "auroc": row_of(data, found)["auroc"]})
            except UserError as error:  # such as: all representations of a class are equal
                job.listener.warn(f"{plan.name} on {layer}, seed {seed}: {error}")
                rows.append(row | {"filter": plan.name, "auroc": None})
        return {"rows": rows}

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("seed", "Seed", ""),
            ("layer", "Layer", ""),
            ("d", "Numbers an image", ""),
            ("filter", "Filter", ""),
            ("auroc", "AUROC in the target class", ""),
        ]
        note = "The undefended models' layers, by the area under the ROC curve of each filter. 0.5 is chance."
        return table(columns, rows_of(done), note=note)


class Heat(First):
    """Grad-CAM of the undefended model's own answer, without and with the trigger."""

    name = "heat"

    def work(self, part: str) -> Json:
        job, seed = self.job, int(part)
        model, tried = job.model(seed), job.triggered(seed)
        wanted = job.answers(model, tried.images) == tried.wanted
        chosen = tried.take(wanted.nonzero()[:100, 0])
        if not len(chosen):
            return {"rows": [], "reason": "no triggered image is read as the target"}
        bare = torch.cat([job.test.images[(job.test.ids == i).nonzero()[0]] for i in chosen.ids])
        inside = ((chosen.images - bare).abs().amax(1) > 0).float()
        versions = {"without the trigger": bare, "with the trigger": chosen.images}
        shown = {name: x.to(job.device) for name, x in versions.items()}
        return heat_rows(job, model, shown, inside, shown=SHOWN, column="images")

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("images", "Images", ""),
            ("heat", "Heat where the trigger is", ""),
            ("area", "Share of the pixels", ""),
        ]
        note = (
            "Grad-CAM of the undefended model's own answer (first seed), on test images that it reads as the target"
            " with the trigger. Means with 95 % t intervals; heat that is spread evenly has the share of the pixels."
            " From above: the image and its heat, without and with the trigger, each on its own scale."
        )
        return heat_section(done, columns, note)


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
