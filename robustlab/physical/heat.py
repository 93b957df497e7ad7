"""Where a model looks: how much of Grad-CAM's heat lies inside a sticker, beside the bare sign and a control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.evaluation.heat import heat_rows, heat_section
from robustlab.evaluation.studies.base import Study
from robustlab.explain.regions import own_colours
from robustlab.oracle import answers
from robustlab.physical.measure import judged
from robustlab.physical.sticker import seen
from robustlab.physical.studies import STICKER, Json, StickerJob
from robustlab.worlds.road_signs import CLASSES, Scenes
from robustlab.worlds.road_signs.camera import centres, on_sign

SCENES = 100  # at most
SHOWN = 6  # scenes on the sheet
BARE, CONTROL = "bare sign", "random"
_FINE = 4  # samples of the mask across a pixel


class Heat(Study[StickerJob]):
    """Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the model's own answer, inside the mask and outside.

    On the model that the sticker was fitted on, in scenes in which the bare sign is read right.
    """

    name = "heat"

    def parts(self) -> Sequence[str]:
        return ["0"]

    def work(self, part: str) -> Json:
        job = self.job
        model, sticker, control = job.models[int(part)], job.sticker(STICKER), job.sticker(CONTROL)
        scenes = judged(sticker, min(job.n, SCENES), job.seed)
        shown = {BARE: sticker.face, STICKER: sticker.on(sticker.face), CONTROL: control.on(control.face)}
        images = {name: seen(face, scenes, job.size) for name, face in shown.items()}
        right = answers(model, images[BARE]) == CLASSES.index(sticker.source)
        if not bool(right.any()):
            return {"rows": []}
        inside = mask_in_images(sticker.mask, scenes.take(right.nonzero()[:, 0]), job.size)
        return heat_rows(
            job,
            model,
            {name: x[right] for name, x in images.items()},
            inside,
            shown=SHOWN,
            column="sticker",
            colours=lambda maps: _outlined(maps, inside[:SHOWN]),
            more={"model": model.name},
        )

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("model", "Model", ""),
            ("sticker", "Sticker", ""),
            ("heat", "Heat inside the mask", ""),
            ("area", "Area of the mask in the image", ""),
        ]
        note = (
            "Grad-CAM of the model's own answer. The heat inside the mask is a share of the image's heat; heat that is"
            " spread evenly has the share of the area. Means over the scenes in which the bare sign is read right, with"
            " 95 % t intervals; n leaves out maps that are zero. The map is coarser than the mask, so some heat of a"
            " sticker always lies beside it. Pictures: bare, with the sticker, with random colours in the same mask;"
            " each above its heat, on its own scale, with the mask outlined."
        )
        return heat_section(done, columns, note)


def mask_in_images(mask: Tensor, scenes: Scenes, size: int) -> Tensor:
    """(B, size, size) in [0, 1]: the share of each pixel of the images that a mask (P, P) on the sign covers.

    Only geometry: what stands in front of the sign and the blur of the camera are left out.

    >>> from robustlab.worlds.road_signs import draw
    >>> whole = torch.ones(256, 256, dtype=torch.bool)
    >>> mask_in_images(whole, draw(0, "test", torch.arange(2)), 32).shape
    torch.Size([2, 32, 32])
    """
    at = centres(size * _FINE, scenes.key.device)
    u, v = on_sign(scenes, at, at)
    plane = mask.float().expand(len(scenes), 1, -1, -1)
    found = F.grid_sample(plane, torch.stack([u, v], -1), padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(found, _FINE)[:, 0]


def _outlined(maps: Tensor, inside: Tensor) -> Tensor:
    """(B, 3, H, W) the maps in colour, each on its own scale, with a white line around the mask; enlarged."""
    coloured = own_colours(maps)
    size = (coloured.shape[-2], coloured.shape[-1])
    covered = (F.interpolate(inside[:, None], size, mode="bilinear", align_corners=False) > 0.5).float()
    line = F.max_pool2d(covered, 3, 1, 1) > covered
    return torch.where(line, torch.ones(()), coloured)
