"""The questions asked of a sticker, one study each: fit, success beside controls, grid, drive-by."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.pictures import png, sheet
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.running import table
from robustlab.evaluation.studies.base import Study
from robustlab.models.classifier import Classifier
from robustlab.physical.fit_in_run import fit_in_run
from robustlab.physical.fitted import CURVE, means
from robustlab.physical.folder import StickerRun
from robustlab.physical.masks import shape_of
from robustlab.physical.measure import DISTANCES, YAWS, answers, controls, drive_by, grid, judged, paper_cells
from robustlab.physical.palette import PRINTABLE, from_palette
from robustlab.physical.rp2 import RP2
from robustlab.physical.running import first_of, kept_fields, without_kept
from robustlab.physical.sticker import Sticker, seen
from robustlab.worlds.road_signs import CLASSES, Ranges, faces

Json = dict[str, Any]
STICKER, SINGLE = "sticker", "one scene"  # what is fitted: with the expectation, and without
NEAR = Ranges(distance=(3.0, 20.0), yaw=30.0)
SHEET = 12  # scenes on the sheet
_STEP = 0.1  # seconds of a step, for a first guess


@dataclass(frozen=True)
class StickerJob:
    """A run that goes on, as its studies see it.

    models: the first is the one that the sticker is fitted on, all are shown it. n: scenes that it is judged on.
    """

    run: StickerRun
    attack: RP2
    models: Sequence[Classifier]
    n: int
    seed: int
    size: int
    listener: Listener
    finished: Callable[[Hashable, str], None]
    seeds: int = 1  # fits, with seed, seed + 1, ...

    def sticker(self, name: str) -> Sticker:
        """A fitted sticker, or a control in its shape."""
        if name in (STICKER, SINGLE):
            return self.run.sticker(name)
        return controls(self.run.sticker(STICKER), self.seed)[name]

    @property
    def aim(self) -> str:
        return f"read as {self.attack.target}" if self.attack.target else "read wrong"


class Fit(Study[StickerJob]):
    """The sticker, and for comparison one that is fitted to a single scene in the same mask."""

    name = "fit"

    def parts(self) -> Sequence[str]:
        return [STICKER]

    def seconds(self, part: str) -> float:
        return _STEP * self.job.attack.all_steps

    def work(self, part: str) -> Json:
        job, attack = self.job, self.job.attack
        face = faces()[CLASSES.index(attack.source)]
        sticker, losses, copy = fit_in_run(job.run, attack, job.models[0], job.size, job.seed, part, job.listener)
        job.run.write_image("sign-bare.png", png(_on_grey(face)))
        job.run.write_image("sign-sticker.png", png(_on_grey(sticker.on(face))))
        scenes = judged(sticker, SHEET, job.seed)
        bare = seen(face, scenes, job.size)
        job.run.write_image("sheet.png", png(sheet([bare, sticker.render(scenes, job.size)], 3)))
        shape = shape_of(sticker.mask, face)
        where = F.adaptive_avg_pool2d(sticker.mask[None].float(), sticker.texture.shape[-1])[0] > 0.5
        return {
            "share": shape.share,
            "pieces": shape.pieces,
            "side": 1000 * shape.side,
            "palette": from_palette(sticker.texture, where, PRINTABLE),
            "steps": attack.all_steps,
            "images": attack.all_steps * attack.scenes,
            "copy": copy,
            "losses": means(losses, CURVE),
        }

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("mask", "Mask", ""),
            ("share", "Share of the face", ""),
            ("pieces", "Separate stickers", ""),
            ("side", "Smallest side", "mm"),
            ("palette", "Distance to printable colours", ""),
            ("steps", "Steps", ""),
            ("images", "Images rendered", ""),
        ]
        return table(
            columns,
            [{"mask": self.job.attack.mask, **without_kept(each)} for each in done.values()],
            note="The sign as it is and with the sticker, and below it in scenes of the judging: bare above, with the"
            " sticker below." + " Every texel is one of the printable colours." * self.job.attack.printable,
            images=["images/sign-bare.png", "images/sign-sticker.png", "images/sheet.png"],
        )

    def fields(self, done: Mapping[str, Json]) -> Json:
        return kept_fields(done)


class OneScene(Study[StickerJob]):
    """The same fit without the expectation, in the mask of the sticker: what the expectation is for."""

    name = "fit without expectation"

    def parts(self) -> Sequence[str]:
        return [SINGLE]

    def seconds(self, part: str) -> float:
        return _STEP * self.job.attack.steps / 4

    def work(self, part: str) -> Json:
        job = self.job
        mask = job.sticker(STICKER).mask
        job.run.write_sticker(part, job.attack.without_expectation(job.models[0], mask, job.size, job.seed))
        return {}


class Success(Study[StickerJob]):
    """How often the sticker succeeds, on every model, beside the controls in the same mask."""

    name = "success"

    def parts(self) -> Sequence[str]:
        names = (STICKER, SINGLE, "grey", "random", "black and white")
        return [f"{at} {name}" for at in range(len(self.job.models)) for name in names]

    def work(self, part: str) -> Json:
        job = self.job
        at, name = part.split(" ", 1)
        sticker, model = job.sticker(name), job.models[int(at)]
        found = {"model": model.name, "sticker": name}
        for where, ranges in (("", None), ("near_", NEAR)):
            scenes = judged(sticker, job.n, job.seed, ranges)
            found |= {
                f"{where}{key}": value for key, value in answers(model, sticker, scenes, job.size).summary().items()
            }
        return found

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("model", "Model", ""),
            ("sticker", "Sticker", ""),
            ("clean", "Bare sign read right", ""),
            ("success", self.job.aim.capitalize(), ""),
            ("misread", "Read wrong", ""),
            ("near_success", f"{self.job.aim.capitalize()}, near", ""),
            ("near_misread", "Read wrong, near", ""),
        ]
        return table(
            columns,
            list(done.values()),
            n=self.job.n,
            note=f"Shares of the scenes in which the bare sign is read right. Near: up to {NEAR.distance[1]:g} m and"
            f" {NEAR.yaw:g} degrees. The sticker was fitted on {first_of(self.job.models)}; for another model it is a"
            " transfer attack. The controls fill the same mask, and nobody fitted them. No scene is one of the fit's.",
        )


class Grid(Study[StickerJob]):
    """Success by distance and angle."""

    name = "grid"

    def parts(self) -> Sequence[str]:
        return [f"{at} {distance:g}" for at in range(len(self.job.models)) for distance in DISTANCES]

    def work(self, part: str) -> Json:
        job = self.job
        at, distance = part.split()
        cells, model = [(float(distance), yaw) for yaw in YAWS], job.models[int(at)]
        rows = grid(model, job.sticker(STICKER), max(1, job.n // 5), job.seed, job.size, job.attack.ranges, cells)
        return {"rows": [{"model": model.name, **row} for row in rows]}

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("model", "Model", ""),
            ("distance", "Distance", "metres"),
            ("yaw", "Angle", "degrees"),
            ("fitted", "In the ranges of the fit", ""),
            ("clean", "Bare sign read right", ""),
            ("success", self.job.aim.capitalize(), ""),
        ]
        rows = [row for value in done.values() for row in value["rows"]]
        return table(columns, rows, n=max(1, self.job.n // 5), note="n scenes a cell, to either side of the sign.")


class Paper(Study[StickerJob]):
    """The cells that the paper has."""

    name = "cells of the paper"

    def parts(self) -> Sequence[str]:
        return ["0"]

    def work(self, part: str) -> Json:
        job = self.job
        return {
            "rows": grid(
                job.models[0], job.sticker(STICKER), job.n, job.seed, job.size, job.attack.ranges, paper_cells()
            )
        }

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("distance", "Distance", "metres"),
            ("yaw", "Angle", "degrees"),
            ("clean", "Bare sign read right", ""),
        ]
        rows = [row for value in done.values() for row in value["rows"]]
        note = "The distances and angles of Eykholt et al. 2018, table 2, in this world."
        return table(columns, rows, n=self.job.n, note=note)


class DriveBy(Study[StickerJob]):
    """The sign is approached, frame by frame."""

    name = "drive-by"

    def parts(self) -> Sequence[str]:
        return [str(at) for at in range(len(self.job.models))]

    def work(self, part: str) -> Json:
        model = self.job.models[int(part)]
        return {
            "model": model.name,
            **drive_by(model, self.job.sticker(STICKER), seed=self.job.seed, size=self.job.size),
        }

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("model", "Model", ""),
            ("clean", "Frames with the bare sign read right", ""),
            ("success", self.job.aim.capitalize(), ""),
            ("misread", "Read wrong", ""),
            ("read_at", "Read right from there on", "metres"),
        ]
        rows = [{key: value for key, value in each.items() if key != "frames"} for each in done.values()]
        note = "One approach from 40 m to 3 m, straight on; a dash where the sign is not read right in the last frame."
        return table(columns, rows, note=note)

    def fields(self, done: Mapping[str, Json]) -> Json:
        return {"drive_by": {each["model"]: each["frames"] for each in done.values()}}


STUDIES: tuple[type[Study[StickerJob]], ...] = (Fit, OneScene, Success, Grid, Paper, DriveBy)


def _on_grey(face: Tensor) -> Tensor:
    """A face (4, P, P) on grey paper."""
    return face[:3] * face[3:] + 0.5 * (1 - face[3:])


def check_model(model: Classifier) -> None:
    """UserError unless the model's classes are those of the world's signs."""
    if model.classes is None or tuple(model.classes) != CLASSES:
        known = ", ".join(model.classes or ("none",))
        raise UserError(
            f"{model.name} does not know the signs of the rendered world: its classes are {known:.200}. Train one:"
            " robustlab train cnn --data road-signs."
        )
