"""Where stickers may lie on a sign's face: shapes from the literature, a picture of one's own, or the best blocks.

A mask is a (P, P) bool tensor over a face of P x P pixels; the face covers u (to the right) and v (down) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from robustlab.base.errors import UserError, did_you_mean
from robustlab.physical.tiles import scale_of
from robustlab.worlds.road_signs.canvas import Canvas
from robustlab.worlds.road_signs.scenes import WIDTH

SOLID = 0.99  # alpha from which on a pixel is on the sign


def _bars(u: Tensor, v: Tensor) -> Tensor:
    """Two bars, above and below the middle (Eykholt et al. 2018, figure 1, black and white there)."""
    return ((v.abs() - 0.60).abs() < 0.13) & (u.abs() < 0.60)


def _art(u: Tensor, v: Tensor) -> Tensor:
    """Four rectangles around the middle, as in the paper's camouflage art."""
    places = (
        (-0.42, -0.62, 0.26, 0.12),
        (0.40, -0.60, 0.26, 0.14),
        (-0.38, 0.60, 0.28, 0.13),
        (0.42, 0.62, 0.22, 0.11),
    )
    found = torch.zeros_like(u, dtype=torch.bool) | torch.zeros_like(v, dtype=torch.bool)
    for x, y, half_width, half_height in places:
        found = found | (((u - x).abs() < half_width) & ((v - y).abs() < half_height))
    return found


def _graffiti(u: Tensor, v: Tensor) -> Tensor:
    """A word above and a word below the middle, as in the paper's camouflage graffiti."""
    canvas = Canvas(len(v))
    canvas.text("LOVE", 0.34, (255, 255, 255), bold=0.09, squeeze=0.9)
    word = torch.from_numpy(np.asarray(canvas.image)[..., 3] > 127)
    by = round(0.31 * len(v))
    return word.roll(-by, 0) | word.roll(by, 0)


def _poster(u: Tensor, v: Tensor) -> Tensor:
    """The whole face."""
    return (u < 2) & (v < 2)


MASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bars": _bars,
    "graffiti": _graffiti,
    "art": _art,
    "poster": _poster,
}
SEARCH = "search"


@dataclass(frozen=True)
class Shape:
    """What a person with scissors has to do: share of the face, separate stickers, and the smallest side in metres."""

    share: float
    pieces: int
    side: float


def mask_of(name: str, face: Tensor) -> Tensor:
    """(P, P) bool: a mask by name, or from a picture that is white where stickers may lie.

    face: (4, P, P), whose alpha says where the sign is. UserError: no such mask, no picture, nothing on the sign.

    >>> from robustlab.worlds.road_signs import faces
    >>> round(shape_of(mask_of("bars", faces()[0]), faces()[0]).share, 2)
    0.2
    """
    pixels, solid = face.shape[-1], face[3] > SOLID
    if name in MASKS:
        place = (torch.arange(pixels) + 0.5) * (2 / pixels) - 1
        mask = MASKS[name](place[None, :], place[:, None])
    else:
        mask = _picture(name, pixels)
        if bool((mask & (face[3] == 0)).any()) and not bool((mask & solid).any()):
            raise UserError(f"The mask {name} lies outside the sign: nothing of it is on the face.")
    mask = mask & solid
    if not bool(mask.any()):
        raise UserError(f"The mask {name} is empty: make it white where stickers may lie, and black elsewhere.")
    return mask


def _picture(name: str, pixels: int) -> Tensor:
    path = Path(name)
    known = (*MASKS, SEARCH)
    if not path.suffix:
        raise UserError(
            f"There is no mask {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}, or a picture."
        )
    try:
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L").resize((pixels, pixels), Image.Resampling.BOX))
    except OSError as error:
        raise UserError(f"The mask {name} cannot be read as a picture: {error}.") from error
    return torch.from_numpy(grey > 127)


def shape_of(mask: Tensor, face: Tensor) -> Shape:
    """Share of the face, number of separate stickers, and the smallest side of one in metres."""
    labels, pieces = ndimage.label(mask.numpy())
    sides = [min(s.stop - s.start for s in box) for box in ndimage.find_objects(labels)]
    metre = scale_of(face[3].numpy(), WIDTH).mm  # WIDTH is in metres, and so is a pixel then
    return Shape(float(mask.sum() / (face[3] > SOLID).sum()), pieces, min(sides, default=0) * metre)


def best_blocks(change: Tensor, face: Tensor, share: float, blocks: int, pieces: int) -> Tensor:
    """(P, P) bool: the blocks of the largest change, up to a share of the face, in at most so many separate stickers.

    change: (P, P), how much a sticker over the whole face changes each pixel. blocks: of a side; the smallest sticker
    is one block. Blocks that are not wholly on the sign are left out.
    """
    pixels = change.shape[-1]
    step = pixels // blocks
    solid = (face[3] > SOLID).float()
    on_sign = torch.nn.functional.avg_pool2d(solid[None, None], step)[0, 0] > 0.999
    value = torch.nn.functional.avg_pool2d(change[None, None], step)[0, 0]
    budget = int(share * float(solid.sum()) / step**2)
    if budget < 1:
        raise UserError(f"A share of {share:g} of the face is less than one block of {blocks} x {blocks}: give more.")
    chosen = torch.zeros_like(on_sign)
    order = torch.where(on_sign, value, torch.tensor(-1.0)).flatten().argsort(descending=True).tolist()
    for at in order:
        if int(chosen.sum()) >= budget or not bool(on_sign.flatten()[at]):
            break
        trial = chosen.clone()
        trial.view(-1)[at] = True
        if ndimage.label(trial.numpy())[1] <= pieces:
            chosen = trial
    return chosen.repeat_interleave(step, 0).repeat_interleave(step, 1)
