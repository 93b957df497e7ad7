"""The questions asked of a patch, one study each: fit, success beside controls, by size, by place."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.pictures import png, sheet
from robustlab.data import Loaded
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.running import rows_of, table
from robustlab.evaluation.studies.base import Study
from robustlab.models.classifier import Classifier
from robustlab.models.search_copy import make_search_copy
from robustlab.physical.checkpoints import Checkpoints
from robustlab.physical.fitted import CURVE, means
from robustlab.physical.folder import StickerRun
from robustlab.physical.patch import Patch, PatchAttack
from robustlab.physical.patch_measure import measure_patch, patch_controls
from robustlab.physical.running import aim_of, first_of, kept_fields, without_kept

Json = dict[str, Any]
PATCH = "patch"
SIZES = (0.25, 0.5, 1.0, 1.5, 2.0)  # factors of the fitted share
PLACES = (0.0, 0.5, 1.0)  # from the left and upper edge to the right and lower one
SHEET = 8  # images on the sheet
_STEP = 0.1  # seconds of a step, for a first guess


@dataclass(frozen=True)
class PatchJob:
    """A run that goes on, as its studies see it.

    models: the first is the one that the patch is fitted on. fitted: the images of the fit; judged: others.
    """

    run: StickerRun
    attack: PatchAttack
    models: Sequence[Classifier]
    fitted: Loaded
    judged: Loaded
    seed: int
    listener: Listener
    finished: Callable[[Hashable, str], None]

    def found(self, at: int, patch: Patch, controls: Mapping[str, Patch]) -> Json:
        """What the model of this number says of the judged images with the patch, and with each control."""
        model, data = self.models[at], self.judged
        return measure_patch(model, patch, data.images, data.labels, data.ids, self.seed, controls)

    @property
    def aim(self) -> str:
        return aim_of(self.attack.number(self.judged.classes), self.judged.classes)


class Fit(Study[PatchJob]):
    """The patch, fitted on a search copy of the first model."""

    name = "fit"

    def parts(self) -> Sequence[str]:
        return [PATCH]

    def seconds(self, part: str) -> float:
        return _STEP * self.job.attack.steps

    def work(self, part: str) -> Json:
        job, attack, data = self.job, self.job.attack, self.job.fitted
        kept = Checkpoints(job.run, part, job.listener)
        job.listener.say(f"{job.models[0].name}: fitting a patch on {len(data)} images ({attack.steps} steps).")
        copy = make_search_copy(job.models[0], data.images[: attack.batch])
        patch = attack.fit(
            copy.module or job.models[0],
            data.images,
            data.labels,
            data.ids,
            data.classes,
            job.seed,
            kept.state,
            kept.watch,
        )
        job.run.write_patch(part, patch)
        job.run.write_image("patch.png", png(_large(patch)))
        shown = job.judged.take(torch.arange(min(SHEET, len(job.judged))))
        job.run.write_image("sheet.png", png(sheet([shown.images, patch.on(shown.images, shown.ids, job.seed)])))
        return {
            "shape": patch.shape,
            "share": patch.share,
            "steps": attack.steps,
            "images": len(data),
            "copy": copy.describe(),
            "losses": means(kept.losses, CURVE),
        }

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("shape", "Shape", ""),
            ("share", "Share of the image", ""),
            ("steps", "Steps", ""),
            ("images", "Images of the fit", ""),
        ]
        rows = [without_kept(each) for each in done.values()]
        note = "The patch, and images of the judging: as they are above, with the patch below."
        return table(columns, rows, note=note, images=["images/patch.png", "images/sheet.png"])

    def fields(self, done: Mapping[str, Json]) -> Json:
        return kept_fields(done)


class Success(Study[PatchJob]):
    """How often the patch succeeds, on every model, beside controls in the same places."""

    name = "success"

    def parts(self) -> Sequence[str]:
        return [str(at) for at in range(len(self.job.models))]

    def work(self, part: str) -> Json:
        job, data = self.job, self.job.fitted
        patch = job.run.patch(PATCH)
        pictured = patch.target is not None and bool((data.labels == patch.target).any())
        pictures = (data.images, data.labels, data.ids) if pictured else ()
        controls = patch_controls(patch, job.seed, *pictures)
        found = job.found(int(part), patch, controls)
        model = job.models[int(part)].name
        rows = [{"model": model, "patch": name, "clean": found["clean"], **row} for name, row in found["found"].items()]
        return {"rows": rows}

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("model", "Model", ""),
            ("patch", "Patch", ""),
            ("clean", "Images read right", ""),
            ("success", self.job.aim, ""),
            ("misread", "Read wrong", ""),
        ]
        note = (
            f"Shares of the images that are read right without a patch and are not of the target class. The patch was"
            f" fitted on {first_of(self.job.models)}; for another model it is a transfer attack. Nobody fitted the"
            " controls; they lie in the same places. No image is one of the fit's."
        )
        return table(columns, rows_of(done), n=len(self.job.judged), note=note)


class Sizes(Study[PatchJob]):
    """Success by the size of the patch."""

    name = "by size"

    def parts(self) -> Sequence[str]:
        return [f"{at} {factor:g}" for at in range(len(self.job.models)) for factor in SIZES if self._fits(factor)]

    def _fits(self, factor: float) -> bool:
        try:
            self._at(self.job.attack, factor).check_fits(*self.job.judged.images.shape[-2:])
        except UserError:
            return False
        return True

    def _at(self, placed: Any, factor: float) -> Any:
        return replace(placed, share=placed.share * factor)

    def work(self, part: str) -> Json:
        at, factor = part.split()
        patch = self._at(self.job.run.patch(PATCH), float(factor))
        grey = patch_controls(patch, self.job.seed)["grey"]
        found = self.job.found(int(at), patch, {"grey": grey})["found"]
        row = {"success": found[PATCH]["success"], "misread": found[PATCH]["misread"], "grey": found["grey"]["misread"]}
        return {"rows": [{"model": self.job.models[int(at)].name, "share": patch.share, **row}]}

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("model", "Model", ""),
            ("share", "Share of the image", ""),
            ("success", self.job.aim, ""),
            ("misread", "Read wrong", ""),
            ("grey", "Read wrong with a grey one", ""),
        ]
        note = f"The same patch, larger and smaller; it was fitted at {self.job.attack.share:g}."
        return table(columns, rows_of(done), n=len(self.job.judged), note=note)


class Places(Study[PatchJob]):
    """Success by where the patch lies."""

    name = "by place"

    def parts(self) -> Sequence[str]:
        if self.job.attack.place is not None:
            return []
        return [f"{at} {y:g}" for at in range(len(self.job.models)) for y in PLACES]

    def work(self, part: str) -> Json:
        at, y = part.split()
        patch, model = self.job.run.patch(PATCH), self.job.models[int(at)].name
        rows = []
        for x in PLACES:
            found = self.job.found(int(at), replace(patch, place=(x, float(y))), {})["found"][PATCH]
            rows.append({"model": model, "x": x, "y": float(y), **found})
        return {"rows": rows}

    def section(self, done: Mapping[str, Json]) -> Json | None:
        columns = [
            ("model", "Model", ""),
            ("y", "From the upper edge", ""),
            ("x", "From the left edge", ""),
            ("success", self.job.aim, ""),
            ("misread", "Read wrong", ""),
        ]
        note = "0 is at the edge, 0.5 in the middle, 1 at the other edge. The patch was fitted for all places at once."
        return table(columns, rows_of(done), n=len(self.job.judged), note=note) if done else None


STUDIES: tuple[type[Study[PatchJob]], ...] = (Fit, Success, Sizes, Places)


def _large(patch: Patch) -> Tensor:
    """The patch on white paper, enlarged."""
    mask = patch.mask(patch.texture.shape[-1])
    return F.interpolate((patch.texture * mask + (1 - mask))[None], scale_factor=4, mode="nearest")[0]
