"""Grad-CAM of a run's kept examples, drawn when all attacks are done and stored beside them as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from robustlab.base.errors import RunError, UserError
from robustlab.base.intervals import mean_interval
from robustlab.base.pictures import heat_png
from robustlab.base.words import kind_and_line
from robustlab.evaluation.cascade import Task
from robustlab.evaluation.studies.base import Job, Study
from robustlab.explain.cams import grad_cam
from robustlab.explain.layers import Layer, find_layer
from robustlab.explain.shifts import same_size_noise, spearman
from robustlab.runs import Run
from robustlab.runs.examples import HEATMAPS, MOST, image_name

Json = dict[str, Any]
_TOGETHER = 64  # examples whose images and maps are held at a time
_MAPS = 7  # gradient steps that the heatmaps of an example and of its control take, with their pictures
_LOADING = 2.0  # seconds that captum takes to be imported


class Heatmaps(Study[Job]):
    """Three maps of each kept example, in one scale of colours. A part is a model.

    `heat_clean` and `heat_adv` are of the clean and the adversarial image for the class predicted there, `heat_same`
    is of the adversarial image for the class of `heat_clean`: most of what seems to move between the first two is the
    change of the class that is explained. `heat_scale` is the value in full colour, `heat_zero` lists the maps that are
    zero everywhere. `shift` is the mean rank correlation of the clean image's map with the two others, and with that of
    the control, the same change at random places: of the examples on which the attack succeeded, less those with a
    zero map. Where a model has no heatmaps, `reason` says why; whatever a model or captum raises, the run goes
    on.
    """

    name = "heatmaps"

    def parts(self) -> Sequence[str]:
        return [task.name for task in self.job.tasks]

    def seconds(self, part: str) -> float:
        plan = self.job.plan
        kept = min(MOST * len(plan.suite.members), len(plan.data))
        return self.job.timings[part].step * _MAPS * kept + _LOADING / len(self.job.tasks)

    def work(self, part: str) -> Json:
        task = next(task for task in self.job.tasks if task.name == part)
        own = [image for image in self.job.run.chosen() if image["model"] == part]
        if not own:
            return {}
        self.job.listener.say(f"{part}: drawing Grad-CAM heatmaps of the kept examples ({len(own)}).")
        layer: Layer | None = None
        reason: str | None = None
        found: list[Json] = []
        moved: dict[str, list[float]] = {"adv": [], "same": [], "noise": []}
        for start in range(0, len(own), _TOGETHER):
            batch = own[start : start + _TOGETHER]
            try:
                clean, adv = (each.to(task.device) for each in _images(task, batch))
                layer = layer or task.batches.fit(partial(_layer, task.model, clean))
                maps = task.batches.fit(partial(_maps, task.model, layer, clean, adv, batch))
            except Exception as error:  # captum and a model may raise anything, and none of it concerns the numbers
                reason, found, moved = _reason(error), [], {}
                self.job.listener.say(f"{part}: no heatmaps. {reason}")
                break
            found += [_stored(task.run, image, each) for image, each in zip(batch, maps[:, :3], strict=True)]
            there = torch.tensor([image["success"] for image in batch])
            for at, kind in enumerate(moved, start=1):
                both = there & (maps[:, 0].amax((1, 2)) > 0) & (maps[:, at].amax((1, 2)) > 0)
                each = spearman(maps[both, 0], maps[both, at])
                moved[kind] += each[each.isfinite()].tolist()
        about = {
            "method": "Grad-CAM",
            "layer": layer.name if layer else None,
            "maps": len(HEATMAPS) * len(found),
            "zero": sum(len(heat["heat_zero"]) for heat in found),
            "shift": {kind: mean_interval(values) for kind, values in moved.items()},
            "reason": reason,
        }
        return {"about": about, "examples": found}

    def fields(self, done: Mapping[str, Json]) -> Json:
        images, drawn = self.job.run.chosen(), {name: value for name, value in done.items() if value}
        for name, value in drawn.items():
            own = [image for image in images if image["model"] == name]
            for image, heat in zip(own, value["examples"], strict=bool(value["examples"])):
                image.update(heat)
        return {"images": images, "heatmaps": {name: value["about"] for name, value in drawn.items()}}


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] if isinstance(error, UserError | RunError) else kind_and_line(error)


def _images(task: Task, batch: Sequence[Json]) -> tuple[Tensor, Tensor]:
    """The clean and the adversarial images (B, C, H, W) of the examples, as they were attacked: not in 8 bits."""
    place = {id: i for i, id in enumerate(task.data.ids.tolist())}
    stored: dict[tuple[str, int], Tensor] = {}
    for attack in {image["attack"] for image in batch}:
        wanted = {image["id"] for image in batch if image["attack"] == attack}
        for content in task.run.kept(task.name, attack, task.suite.threat.eps):
            tensors = load(content)
            for row, id in enumerate(tensors["ids"].tolist()):
                if id in wanted:
                    stored[attack, id] = tensors["images"][row].clone()
    adv = torch.stack([stored[image["attack"], image["id"]] for image in batch])
    return task.data.images[torch.tensor([place[image["id"]] for image in batch])], adv


def _layer(model: nn.Module, images: Tensor, batch_size: int) -> Layer:
    return find_layer(model, images[:batch_size])


def _maps(model: nn.Module, layer: Layer, clean: Tensor, adv: Tensor, batch: Sequence[Json], batch_size: int) -> Tensor:
    """(B, 4, H, W) the maps of each example, in the order of `HEATMAPS`, and that of the control, on the CPU."""
    before = torch.tensor([image["clean_prediction"] for image in batch], device=clean.device)
    after = torch.tensor([image["prediction"] for image in batch], device=clean.device)
    # a module may draw random numbers: the same each time, and the caller's are not moved on
    with torch.random.fork_rng([clean.device] if clean.is_cuda else []):
        torch.manual_seed(0)
        ids = torch.tensor([image["id"] for image in batch])
        noise = same_size_noise(clean, adv, 0, ids)
        asked = ((clean, before), (adv, after), (adv, before), (noise, before))
        found = [grad_cam(model, x, classes, layer=layer, batch_size=batch_size).maps for x, classes in asked]
    return torch.stack(found, 1).cpu()


def _stored(run: Run, image: Json, maps: Tensor) -> Json:
    """Write the pictures of one example's maps (3, H, W); returns what is added to its entry in run.json."""
    scale = float(maps.max())
    heat: Json = {"heat_scale": scale, "heat_zero": []}
    for kind, each in zip(HEATMAPS, maps, strict=True):
        name = image_name(kind, image["id"], image["model"], image["attack"])
        run.write_image(name, heat_png(each, scale))
        heat[kind] = f"images/{name}"
        if float(each.max()) == 0:
            heat["heat_zero"].append(kind)
    return heat
