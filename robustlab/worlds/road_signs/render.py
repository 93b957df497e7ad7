"""From faces and scenes to images: batched, on any device, differentiable in the faces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from robustlab.worlds.road_signs.camera import centres, expose, facing, on_sign
from robustlab.worlds.road_signs.faces import GAMMA
from robustlab.worlds.road_signs.scenes import Scenes
from robustlab.worlds.road_signs.surroundings import Surroundings


@dataclass(frozen=True, eq=False)
class Prepared:
    """Faces ready for `render`: linear light, premultiplied by alpha, at the one resolution that the samples need."""

    planes: Tensor  # (K, 4, p, p)
    size: int
    oversample: int


def prepare(faces: Tensor, size: int = 32, *, oversample: int = 2) -> Prepared:
    """What of the faces does not depend on the scene, done once: differentiable.

    faces: (K, 4, P, P), sRGB and straight alpha in [0, 1]. size: side of the images in pixels; the crop is sampled at
    `oversample` times that.
    """
    alpha = faces[:, 3:]
    planes = torch.cat([faces[:, :3].clamp_min(1e-4) ** GAMMA * alpha, alpha], 1)
    step, pixels = 1, faces.shape[-1]
    while pixels % (2 * step) == 0 and pixels // (2 * step) >= size * oversample:
        step *= 2
    return Prepared(avg_pool2d(planes, step), size, oversample)


def render(faces: Prepared, scenes: Scenes, which: Tensor | None = None, *, noise: bool = True) -> Tensor:
    """(B, 3, size, size) images in [0, 1], as a detector would cut them out of a camera's picture.

    faces: K of them. which: (B,) int64, the face for each scene, default `scenes.label`; a single face serves all.
    Gradients flow to the faces, except where the sensor clips. The scenes' images do not depend on each other.

    >>> from robustlab.worlds.road_signs import draw, faces
    >>> scenes = draw(0, "test", torch.arange(4))
    >>> render(prepare(faces()), scenes).shape
    torch.Size([4, 3, 32, 32])
    """
    samples = faces.size * faces.oversample
    x = y = centres(samples, scenes.key.device)
    planes = faces.planes
    if len(planes) == 1:
        planes = planes.expand(len(scenes), -1, -1, -1)
    else:
        planes = planes[scenes.label if which is None else which]

    with torch.no_grad():
        u, v = on_sign(scenes, x, y)
        around = Surroundings(scenes, x, y)
        behind = around.background()
        colour, mask = around.pole(u, v)
        behind = behind + (colour - behind) * mask
        front, front_mask = around.occluder()
        illumination = around.illumination()
        haze = scenes.haze[:, None, None, None]
        air = 0.7 * scenes.light[:, None, None, None] * haze
        # light = (sign + behind * (1 - alpha)) * pass_through + added: what the face meets is a gain and an offset
        gain = illumination * (1 - front_mask) * (1 - haze)
        offset = front * front_mask * illumination * (1 - haze) + air

    sign = grid_sample(planes, torch.stack([u, v], -1), padding_mode="zeros", align_corners=False)
    sheen = facing(scenes)[:, None, None, None]
    light = (sign[:, :3] * sheen + behind * (1 - sign[:, 3:])) * gain + offset
    return expose(light, scenes, faces.size, noise=noise)
