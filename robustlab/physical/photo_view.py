"""Photographs as the thing that is stickered: where the sticker lies in them, and what another picture would change.

Corners are (4, 2) or (N, 4, 2): x to the right and y down, in pixels of the images (the upper left edge is 0, 0),
clockwise from the upper left corner of the thing. A face covers the quadrilateral, u and v in [-1, 1] as in `masks`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.draws import keys, normal, uniform
from robustlab.base.errors import UserError

SAMPLES = 2  # a side, of the sticker in each pixel of the image
FLATTEST = 0.02  # of the quadrilateral's area, that three of its corners enclose at least


@dataclass(frozen=True)
class Camera:
    """What differs between two photographs of one thing: each range is drawn from evenly.

    corners: how far each corner of the sticker is off, as a share of the sides, either way. turn: degrees either way.
    scale: of the whole image. shift: as a share of the image. brightness: added, either way. contrast: 1 minus to 1
    plus this. blur: the largest standard deviation, as a share of the shorter side. noise: the largest standard
    deviation, of values in [0, 1].
    """

    corners: float = 0.04
    turn: float = 8.0
    scale: tuple[float, float] = (0.9, 1.1)
    shift: float = 0.04
    brightness: float = 0.15
    contrast: float = 0.25
    blur: float = 0.025
    noise: float = 0.03

    def __post_init__(self) -> None:
        most = {
            "corners": 0.2,
            "turn": 180.0,
            "shift": 0.5,
            "brightness": 1.0,
            "contrast": 1.0,
            "blur": 0.5,
            "noise": 1,
        }
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "scale":
                if not 0.1 <= value[0] <= value[1] <= 10:
                    raise UserError(f"scale is two numbers from 0.1 to 10, the smaller one first; got {value}.")
            elif not 0 <= value <= most[each.name]:
                raise UserError(f"{each.name} must lie in [0, {most[each.name]:g}], got {value:g}.")


STILL = Camera(0.0, 0.0, (1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0)  # the photograph as it is


def keyed(seed: int, ids: Tensor, purpose: str, step: int = 0, copy: Tensor | int = 0) -> Tensor:
    """(B,) keys of the draws for images with these ids: fitting and judging share none."""
    return keys(seed, ids, f"photo, {purpose}", step, copy)


def corners_of(corners: Tensor, images: Tensor) -> Tensor:
    """(N, 4, 2) float corners, one set for each image. UserError: not so many, crossed, outside.

    >>> corners_of(torch.tensor([[1, 1], [9, 1], [9, 9], [1, 9]]), torch.zeros(2, 3, 10, 10)).shape
    torch.Size([2, 4, 2])
    """
    n, (height, width) = len(images), images.shape[-2:]
    if corners.shape[-2:] != (4, 2) or corners.ndim not in (2, 3) or (corners.ndim == 3 and len(corners) not in (1, n)):
        raise UserError(f"Corners have the shape (4, 2), or ({n}, 4, 2) for {n} images; got {tuple(corners.shape)}.")
    each = corners.float().expand(n, 4, 2).to(images.device)
    check_corners(each, height, width)
    return each


def check_corners(corners: Tensor, height: int, width: int, names: list[str] | None = None) -> None:
    """A `UserError` unless corners (N, 4, 2) are convex, clockwise and inside pictures of this size."""
    outside = ~((corners >= 0) & (corners <= corners.new_tensor([width, height]))).all(2)
    for at in outside.any(1).nonzero()[:1, 0].tolist():
        x, y = corners[at][outside[at]][0].tolist()
        raise UserError(
            f"The corner {x:g},{y:g}{_of(names, at)} lies outside the picture, which is {width} x {height} pixels."
        )
    for at in (~convex(corners)).nonzero()[:1, 0].tolist():
        given = " ".join(f"{x:g},{y:g}" for x, y in corners[at].tolist())
        raise UserError(
            f"The corners {given}{_of(names, at)} cross, or lie on a line: give the four corners of a convex"
            " quadrilateral, clockwise from the upper left one, x,y each."
        )


def _of(names: list[str] | None, at: int) -> str:
    return f" of {names[at]}" if names else ""


def convex(corners: Tensor) -> Tensor:
    """(N,) bool: each three neighbours of the four corners turn clockwise, and enclose an area."""
    forth, back = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
    turns = forth[..., 0] * back[..., 1] - forth[..., 1] * back[..., 0]  # twice the area of each triangle
    area = turns.sum(1) / 2  # twice that of the quadrilateral
    return (turns > FLATTEST * area[:, None]).all(1) & (area > 0)


def homography(corners: Tensor) -> Tensor:
    """(N, 3, 3): (x, y, 1) of the image to (u, v, 1) of the face, up to a positive factor (Heckbert 1989, 2.2.3)."""
    (x0, x1, x2, x3), (y0, y1, y2, y3) = corners.double().permute(2, 1, 0)
    dx1, dx2, dy1, dy2 = x1 - x2, x3 - x2, y1 - y2, y3 - y2
    sx, sy = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    below = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / below, (dx1 * sy - sx * dy1) / below
    first = torch.stack([x1 - x0 + g * x1, y1 - y0 + g * y1, g], 1)
    second = torch.stack([x3 - x0 + h * x3, y3 - y0 + h * y3, h], 1)
    third = torch.stack([x0, y0, torch.ones_like(x0)], 1)
    cross = torch.linalg.cross
    square = torch.stack([cross(second, third), cross(third, first), cross(first, second)], 1)  # to [0, 1]
    determinant = (first * square[:, 0]).sum(1)
    square = square / determinant[:, None, None]
    return torch.stack([2 * square[:, 0] - square[:, 2], 2 * square[:, 1] - square[:, 2], square[:, 2]], 1).float()


def rectified(images: Tensor, corners: Tensor, pixels: int) -> Tensor:
    """(N, C, pixels, pixels): what lies in the quadrilateral, seen from the front."""
    place = (torch.arange(pixels, device=images.device) + 0.5) * (2 / pixels) - 1
    back = torch.linalg.inv(homography(corners).double())[:, :, :, None, None]
    x, y, w = (back[:, i, 0] * place + back[:, i, 1] * place[:, None] + back[:, i, 2] for i in range(3))
    height, width = images.shape[-2:]
    grid = torch.stack([2 * x / w / width - 1, 2 * y / w / height - 1], -1).float()
    return F.grid_sample(images, grid, "bilinear", "border", align_corners=False)


def light_of(images: Tensor, corners: Tensor, face: Tensor) -> Tensor:
    """(N,) how bright the thing is in each image, its face (C, P, P) being 1: means over the middle, 0.1 to 3.

    >>> square = torch.tensor([[[2.0, 2], [6, 2], [6, 6], [2, 6]]])
    >>> light_of(torch.full((1, 3, 8, 8), 0.25), square, torch.full((3, 16, 16), 0.5))
    tensor([0.5000])
    """
    p = face.shape[-1] // 4
    middle = rectified(images, corners, 16)[:, :, 4:-4, 4:-4].mean((1, 2, 3))
    return (middle / face[:, p:-p, p:-p].mean().clamp_min(1e-3)).clamp(0.1, 3)


def pasted(images: Tensor, corners: Tensor, texture: Tensor, mask: Tensor, light: Tensor) -> Tensor:
    """Images (N, C, H, W) with a texture (C, t, t) inside a mask (t, t), 0 to 1; differentiable in the texture.

    light: (N,), see `light_of`; a sticker on a thing in the dark is dark, too.
    Texture and mask are resampled together, bilinearly, at `SAMPLES` x `SAMPLES` points a pixel. A texture finer than
    the image is averaged first.
    """
    height, width = images.shape[-2:]
    sticker = torch.cat([texture * mask, mask[None]])[None]
    if texture.shape[-1] > SAMPLES * max(height, width):
        sticker = F.interpolate(sticker, [SAMPLES * max(height, width)] * 2, mode="bilinear", antialias=True)
    x = (torch.arange(width * SAMPLES, device=images.device) + 0.5) / SAMPLES
    y = (torch.arange(height * SAMPLES, device=images.device) + 0.5) / SAMPLES
    q = homography(corners)[:, :, :, None, None]
    u, v, w = (q[:, i, 0] * x + q[:, i, 1] * y[:, None] + q[:, i, 2] for i in range(3))
    inside = (w > 1e-6) & (u.abs() <= w) & (v.abs() <= w)
    grid = torch.stack([u, v], -1) / torch.where(inside, w, 1.0)[..., None]
    found = F.grid_sample(sticker.expand(len(images), -1, -1, -1), grid, "bilinear", "border", align_corners=False)
    found = F.avg_pool2d(found * inside[:, None], SAMPLES)
    sticker = torch.minimum(found[:, :-1] * light[:, None, None, None], found[:, -1:])  # no brighter than white
    return (images * (1 - found[:, -1:]) + sticker).clamp(0, 1)


def viewed(
    images: Tensor, corners: Tensor, camera: Camera, key: Tensor, sticker: tuple[Tensor, Tensor, Tensor] | None = None
) -> Tensor:
    """Each image as another photograph of the thing, bare or with a sticker: texture, mask and light, as of `pasted`.

    The changes are drawn by key (N,), the same with and without a sticker. In order: the image is turned, scaled and
    shifted, the sticker put on with its corners a little off, and the whole image blurred, changed in contrast and
    brightness, and noise added.
    """
    if camera == STILL:
        return images if sticker is None else pasted(images, corners, *sticker)
    u = uniform(key, (16,)) * 2 - 1
    off = camera.corners * u[:, :8].view(-1, 4, 2)
    moved = corners + off[..., :1] * (corners.roll(-1, 1) - corners) + off[..., 1:] * (corners.roll(1, 1) - corners)
    corners = torch.where(convex(moved)[:, None, None], moved, corners)
    images, corners = _turned(images, corners, camera, u[:, 8:12])
    return _changed(images if sticker is None else pasted(images, corners, *sticker), camera, u[:, 12:], key)


def _turned(images: Tensor, corners: Tensor, camera: Camera, u: Tensor) -> tuple[Tensor, Tensor]:
    """The images turned, scaled and shifted, edges repeated, and the corners with them. u: (N, 4) in [-1, 1)."""
    height, width = images.shape[-2:]
    middle = images.new_tensor([width, height]) / 2
    angle, low, high = math.radians(camera.turn) * u[:, 0], *camera.scale
    size = low + (high - low) * (u[:, 1] + 1) / 2
    shift = camera.shift * u[:, 2:] * middle * 2
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x, y = (corners - middle).unbind(2)
    forth = torch.stack([cos * x - sin * y, sin * x + cos * y], 2) * size[:, None, None] + shift[:, None] + middle
    x = (torch.arange(width, device=images.device) + 0.5 - middle[0] - shift[:, :1])[:, None, :]
    y = (torch.arange(height, device=images.device) + 0.5 - middle[1] - shift[:, 1:])[:, :, None]
    cos, sin = (cos / size[:, None])[..., None], (sin / size[:, None])[..., None]
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], -1) / middle
    return F.grid_sample(images, grid, "bilinear", "border", align_corners=False), forth


def _changed(images: Tensor, camera: Camera, u: Tensor, key: Tensor) -> Tensor:
    """Blur, contrast, brightness and noise of whole images. u: (N, 4) in [-1, 1). key: (N,) of the noise."""
    brightness, contrast, blur, noise = u.T[:, :, None, None, None]
    height, width = images.shape[-2:]
    sigma = (camera.blur * min(height, width) * (blur[..., 0] + 1) / 2).clamp_min(1e-3)
    blurred: Tensor = _gaussian(height, sigma) @ images @ _gaussian(width, sigma).mT
    shown = (blurred - 0.5) * (1 + camera.contrast * contrast) + 0.5 + camera.brightness * brightness
    grains = normal(keys(0, key, "photo, noise"), images.shape[1:])
    noisy: Tensor = shown + grains * camera.noise * (noise + 1) / 2
    return noisy.clamp(0, 1)


def _gaussian(count: int, sigma: Tensor) -> Tensor:
    """(N, 1, count, count): row i weighs the pixels for pixel i. sigma: (N, 1, 1)."""
    at = torch.arange(count, device=sigma.device)
    weights = (-0.5 * ((at - at[:, None]) / sigma.view(-1, 1, 1)).square()).exp()
    rows: Tensor = (weights / weights.sum(2, keepdim=True))[:, None]
    return rows
