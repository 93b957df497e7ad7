"""The pinhole camera: where a sign lands in the crop, and what its sensor makes of the light.

A crop is the square that a sign detector hands on. Its coordinates are x, y in [-1, 1], pixel edges at the ends, so the
centre of pixel i of n lies at (i + 1/2) * 2/n - 1 (`align_corners=False` throughout).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustlab.base.draws import keys, normal
from robustlab.worlds.road_signs.faces import GAMMA
from robustlab.worlds.road_signs.scenes import FOCAL, WIDTH, Scenes

_FEWEST = 6  # sensor pixels across a crop


def centres(count: int, device: torch.device) -> Tensor:
    """(count,) coordinates of the pixel centres."""
    return (torch.arange(count, dtype=torch.float32, device=device) + 0.5) * (2 / count) - 1


def homography(scenes: Scenes) -> Tensor:
    """(B, 3, 3): crop (x, y, 1) to the sign's plane (u, v, 1), up to scale; the face covers u, v in [-1, 1].

    The sign is turned by R = R_y(yaw) R_x(pitch) R_z(roll) about its centre, which lies on the optical axis.
    """
    turn = math.pi / 180
    yaw, pitch, roll, d, fill, sx, sy = (
        getattr(scenes, name).double() for name in ("yaw", "pitch", "roll", "distance", "fill", "shift_x", "shift_y")
    )
    ca, sa, cb, sb = (yaw * turn).cos(), (yaw * turn).sin(), (pitch * turn).cos(), (pitch * turn).sin()
    cg, sg = (roll * turn).cos(), (roll * turn).sin()
    zero, one = torch.zeros_like(d), torch.ones_like(d)
    half = WIDTH / 2
    c0 = half * torch.stack([ca * cg + sa * sb * sg, cb * sg, -sa * cg + ca * sb * sg], -1)  # R's first two columns
    c1 = half * torch.stack([-ca * sg + sa * sb * cg, cb * cg, sa * sg + ca * sb * cg], -1)
    c2 = torch.stack([zero, zero, d], -1)
    cross = torch.linalg.cross
    inverse = torch.stack([cross(c1, c2), cross(c2, c0), cross(c0, c1)], 1)  # the adjugate: scale does not matter
    side = half / d / fill
    crop = torch.stack([side, zero, 2 * sx * side, zero, side, 2 * sy * side, zero, zero, one], -1).view(-1, 3, 3)
    # by hand: a matrix product may round differently at another batch size
    product: Tensor = (inverse[:, :, :, None] * crop[:, None]).sum(2) / d[:, None, None]
    return product.float()


def on_sign(scenes: Scenes, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where the rays through the crop points meet the sign's plane: u, v, each (B, S, S); x (S,), y (S,)."""
    q = homography(scenes)[:, :, :, None, None]
    w = q[:, 2, 0] * x + q[:, 2, 1] * y[:, None] + q[:, 2, 2]
    u = (q[:, 0, 0] * x + q[:, 0, 1] * y[:, None] + q[:, 0, 2]) / w
    v = (q[:, 1, 0] * x + q[:, 1, 1] * y[:, None] + q[:, 1, 2]) / w
    return u, v


def facing(scenes: Scenes) -> Tensor:
    """(B,) share of its brightness that a turned sign keeps: retroreflecting sheets return less light at an angle."""
    turn = math.pi / 180
    cosine = (scenes.yaw.double() * turn).cos() * (scenes.pitch.double() * turn).cos()
    return cosine.square().float()


def native(scenes: Scenes) -> Tensor:
    """(B,) sensor pixels that the crop really covers."""
    return FOCAL * WIDTH / scenes.distance / scenes.fill


def sensor_pixels(scenes: Scenes, size: int) -> Tensor:
    """(B,) sensor pixels m that are simulated: no more than the crop will show, since more would be averaged away."""
    return native(scenes).round().clamp(_FEWEST, size)


def expose(light: Tensor, scenes: Scenes, size: int, *, noise: bool) -> Tensor:
    """What the camera's file shows of the light in the crop.

    light: (B, 3, S, S) linear. Each of the m x m sensor pixels integrates a box blurred by lens and motion; noise with
    a constant and a shot part is added; the result is clipped, taken through the display curve and resized bilinearly
    from m to `size`. Returns (B, 3, size, size) in [0, 1].
    """
    pixels = sensor_pixels(scenes, size)
    angle = scenes.motion_angle.double() * (math.pi / 180)
    down_x = _integrate(scenes, (scenes.motion * angle.cos()).float(), pixels, size, light.shape[-1])
    down_y = _integrate(scenes, (scenes.motion * angle.sin()).float(), pixels, size, light.shape[-1])
    seen = down_y[:, None] @ light @ down_x[:, None].mT
    if noise:
        draw = normal(keys(0, scenes.key, "sensor noise"), (3, size, size))
        sigma = scenes.noise * (pixels / native(scenes)).clamp_max(1)  # several sensor pixels were averaged
        seen = seen + draw * sigma[:, None, None, None] * (0.25 + seen.detach().clamp(0, 1)).sqrt()
    # clamped above 0: the curve's slope at black is infinite
    shown = seen.clamp(1e-4, 1) ** (1 / GAMMA)
    up = _resize(pixels, size)
    return (up[:, None] @ shown @ up[:, None].mT).clamp(0, 1)


def _integrate(scenes: Scenes, motion: Tensor, pixels: Tensor, size: int, samples: int) -> Tensor:
    """(B, size, samples): row i < m weighs the samples for sensor pixel i, a box convolved with a Gaussian."""
    x = centres(samples, pixels.device)
    i = torch.arange(size, dtype=torch.float32, device=pixels.device)[None, :, None]
    pitch = (2 / pixels)[:, None, None]
    low = -1 + i * pitch
    # lens and motion are in real sensor pixels; below the sample spacing the Gaussian would fall between samples
    sigma = ((scenes.blur**2 + motion**2).sqrt() * 2 / native(scenes)).clamp_min(1 / samples)
    scale = (1 / (math.sqrt(2) * sigma))[:, None, None]
    weights = torch.erf((low + pitch - x) * scale) - torch.erf((low - x) * scale)
    weights = weights * (i < pixels[:, None, None])
    return weights / weights.sum(2, keepdim=True).clamp_min(1e-6)


def _resize(pixels: Tensor, size: int) -> Tensor:
    """(B, size, size): bilinear interpolation from the first m entries to all, edges repeated."""
    i = torch.arange(size, dtype=torch.float32, device=pixels.device)
    m = pixels[:, None, None]
    place = ((i[:, None] + 0.5) * m / size - 0.5).clamp_min(0)
    place = torch.minimum(place, m - 1)
    return (1 - (place - i).abs()).clamp_min(0)
