"""What is drawn at random in a scene, and how: every factor is a pure function of (seed, split, index)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.worlds import Factor
from robustlab.worlds.road_signs.faces import CLASSES

WIDTH = 0.75  # metres across a sign
FOCAL = 560.0  # pixels: a camera of 640 pixels and 60 degrees
DAYLIGHT = 6500.0  # kelvin
BACKGROUNDS = ("foliage", "wall", "sky", "road", "brick")
FACTORS = {  # what is drawn, in the order in which it is shown
    "distance": Factor("distance", "metres"),
    "yaw": Factor("yaw", "degrees", "angle"),
    "light": Factor("light", "exposure, 1 is bright"),
    "pitch": Factor("pitch", "degrees", "angle"),
    "roll": Factor("roll", "degrees", "angle"),
    "temperature": Factor("temperature", "kelvin"),
    "haze": Factor("haze", "share of the light"),
    "background": Factor("background", kind="category", categories=BACKGROUNDS),
    "occlusion": Factor("occlusion", "half-width, share of half the image"),
    "shadow": Factor("shadow", "share of the light taken"),
    "noise": Factor("noise", "standard deviation"),
    "blur": Factor("blur", "sigma, sensor pixels"),
    "motion": Factor("motion", "sigma, sensor pixels"),
    "motion_angle": Factor("motion angle", "degrees", "angle"),
    "fill": Factor("fill", "share of the image"),
    "shift_x": Factor("shift x", "share of the image"),
    "shift_y": Factor("shift y", "share of the image"),
}


@dataclass(frozen=True)
class Ranges:
    """The ranges of the factors; a pair is (low, high), a single number is symmetric or a maximum."""

    distance: tuple[float, float] = (3.0, 35.0)  # metres, log-uniform
    yaw: float = 50.0  # degrees to either side
    pitch: float = 20.0
    roll: float = 8.0
    light: tuple[float, float] = (0.03, 1.1)  # exposure, log-uniform; above 1.1 clipping would stop the gradient
    mired: tuple[float, float] = (-40.0, 110.0)  # shift of the colour temperature from daylight, 1e6 / kelvin
    haze: float = 0.25  # at the far end of `distance`
    occluded: float = 0.15  # probability of an occluder
    occlusion: tuple[float, float] = (0.05, 0.20)  # its half-width, in half sides of the crop
    shaded: float = 0.3  # probability of a shadow
    shadow: tuple[float, float] = (0.25, 0.65)  # share of the light that it takes
    noise: tuple[float, float] = (0.003, 0.012)  # at light 1, log-uniform
    noise_growth: float = 0.25  # noise is multiplied by light ** -noise_growth: a camera turns up its gain in the dark
    blur: tuple[float, float] = (0.35, 0.9)  # sigma of the lens, sensor pixels
    motion: float = 1.2  # sigma of motion blur, sensor pixels; mostly small
    fill: tuple[float, float] = (0.60, 0.95)  # width of the sign, seen straight on, as a share of the crop
    shift: float = 0.06  # of the sign from the middle of the crop, as a share of the crop


@dataclass(frozen=True, eq=False)
class Scenes:
    """B scenes. Every field is a (B,) tensor: float32, but `key` and `label` int64.

    `key` decides what has no factor of its own: textures, palette, skyline, pole, place of the occluder, noise.
    """

    key: Tensor
    label: Tensor
    distance: Tensor  # metres
    yaw: Tensor  # degrees
    pitch: Tensor
    roll: Tensor
    light: Tensor  # exposure: 1 leaves a white sign just below clipping
    temperature: Tensor  # kelvin
    haze: Tensor  # share of the light that comes from the air between
    background: Tensor  # a number of BACKGROUNDS
    occlusion: Tensor  # half-width of the occluder in half sides of the crop; 0 = none
    shadow: Tensor  # share of the light that a shadow takes; 0 = none
    noise: Tensor  # sensor noise: its standard deviation at a bright point is about noise, in linear light
    blur: Tensor  # sigma of the lens, sensor pixels
    motion: Tensor  # sigma of the motion blur, sensor pixels
    motion_angle: Tensor  # degrees, 0 horizontal, 90 vertical
    fill: Tensor  # share of the crop
    shift_x: Tensor
    shift_y: Tensor

    def __len__(self) -> int:
        return len(self.key)

    def take(self, index: Tensor) -> Scenes:
        """The scenes at `index`: (M,) int64 positions or a (B,) bool mask."""
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> Scenes:
        return Scenes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def override(self, **values: float | Tensor) -> Scenes:
        """The same scenes with some factors set. Nothing else follows: noise stays when `light` is set.

        >>> draw(0, "test", torch.arange(2)).override(distance=10.0).distance
        tensor([10., 10.])
        """
        filled = {
            name: torch.as_tensor(value, dtype=getattr(self, name).dtype, device=self.key.device).expand(len(self))
            for name, value in values.items()
        }
        return replace(self, **filled)

    def factors(self) -> dict[str, Tensor]:
        """Every factor by name, without key and label: the `factors` of a data set."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("key", "label")}


def draw(
    seed: int, split: str, indices: Tensor, labels: Tensor | int | None = None, ranges: Ranges | None = None
) -> Scenes:
    """The scenes `indices` ((B,) int64) of a split; the same index gives the same scene however it is asked for.

    split: any string; different splits share no key. labels: one class, or (B,), instead of drawn ones; nothing else
    in the scene changes. ranges: default `Ranges()`.

    >>> whole = draw(0, "test", torch.arange(10)); part = draw(0, "test", torch.tensor([7]))
    >>> bool(whole.yaw[7] == part.yaw[0])
    True
    """
    r = Ranges() if ranges is None else ranges
    key = keys(seed, indices, "road-signs", split)

    # Scalars are computed in double precision and rounded once at the end: a float32 exp or cos may differ in its
    # last bit between the vectorised part and the tail of a tensor, and so between batch sizes.
    def u(purpose: str) -> Tensor:
        return uniform(keys(0, key, purpose), (1,))[:, 0].double()

    def linear(purpose: str, low: float, high: float) -> Tensor:
        return low + (high - low) * u(purpose)

    def symmetric(purpose: str, limit: float) -> Tensor:
        return linear(purpose, -limit, limit)

    def log(purpose: str, low: float, high: float) -> Tensor:
        return low * torch.exp(math.log(high / low) * u(purpose))

    def sometimes(purpose: str, probability: float, low: float, high: float) -> Tensor:
        value = linear(purpose, low, high)
        return torch.where(u(f"has {purpose}") < probability, value, torch.zeros_like(value))

    if labels is None:
        label = (u("label") * len(CLASSES)).long()
    else:
        label = torch.as_tensor(labels, dtype=torch.int64, device=key.device).expand(len(key))
    distance, light = log("distance", *r.distance), log("light", *r.light)
    scalars = {
        "distance": distance,
        "yaw": symmetric("yaw", r.yaw),
        "pitch": symmetric("pitch", r.pitch),
        "roll": symmetric("roll", r.roll),
        "light": light,
        "temperature": 1e6 / (1e6 / DAYLIGHT + linear("mired", *r.mired)),
        "haze": r.haze * u("haze") ** 2 * distance / r.distance[1],
        "background": (u("background") * len(BACKGROUNDS)).floor(),
        "occlusion": sometimes("occlusion", r.occluded, *r.occlusion),
        "shadow": sometimes("shadow", r.shaded, *r.shadow),
        "noise": log("noise", *r.noise) * light**-r.noise_growth,
        "blur": linear("blur", *r.blur),
        "motion": r.motion * u("motion") ** 3,
        "motion_angle": linear("motion angle", 0, 90),
        "fill": linear("fill", *r.fill),
        "shift_x": symmetric("shift x", r.shift),
        "shift_y": symmetric("shift y", r.shift),
    }
    return Scenes(key, label, **{name: value.float() for name, value in scalars.items()})
