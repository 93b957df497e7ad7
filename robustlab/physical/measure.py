"""How often a sticker succeeds: by distance and angle, beside its controls, on the way up to the sign.

A success counts only where the bare sign is read right in the same scene. Scenes of fitting and of judging share no
key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.base.intervals import share
from robustlab.oracle import ask, undisturbed
from robustlab.physical.palette import control_textures
from robustlab.physical.sticker import Sticker, seen
from robustlab.worlds.road_signs import CLASSES, Ranges, Scenes, draw

Json = dict[str, Any]
Model = Callable[[Tensor], Tensor]
DISTANCES = (1.5, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 40.0)  # metres
YAWS = (0.0, 15.0, 30.0, 45.0, 60.0)  # degrees
CELLS = tuple((distance, yaw) for distance in DISTANCES for yaw in YAWS)
PAPER = ((5, 0), (5, 15), (10, 0), (10, 30), (40, 0))  # feet and degrees: cells of Eykholt et al. 2018, table 2
FOOT = 0.3048
BLOCKS = 16  # of a side, in the random controls
JUDGE = "sticker, judge"  # the split of the scenes on which stickers are judged


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of n scenes: (n,) classes of the bare sign and of the one with the sticker."""

    bare: Tensor
    attacked: Tensor
    label: int
    target: int  # -1: any other class

    def succeeded(self) -> Tensor:
        """(n,) bool: the bare sign is read right, and the other as the target (or wrong, without one)."""
        reached = self.attacked != self.label if self.target < 0 else self.attacked == self.target
        return reached & (self.bare == self.label)

    def summary(self) -> Json:
        """Shares with their n and 95 % Wilson intervals: clean accuracy, success, and read as anything else."""
        right = self.bare == self.label
        n, wrong = int(right.sum()), int((right & (self.attacked != self.label)).sum())
        return {
            "clean": share(n, len(right)),
            "success": share(int(self.succeeded().sum()), n),
            "misread": share(wrong, n),
        }


def answers(model: Model, sticker: Sticker, scenes: Scenes, size: int = 32) -> Answers:
    """The model's answers to a sign in scenes, bare and with the sticker; images are rounded to 8 bits.

    >>> from robustlab import load_model
    >>> from robustlab.worlds.road_signs import draw
    >>> nothing = Sticker(torch.zeros(3, 64, 64), torch.zeros(256, 256, dtype=torch.bool), "stop", "yield")
    >>> found = answers(load_model("road-signs/cnn"), nothing, draw(0, JUDGE, torch.arange(20), 0))
    >>> bool((found.bare == found.attacked).all()), found.summary()["success"]["value"]
    (True, 0.0)
    """
    with torch.no_grad(), undisturbed(model):
        bare = _answers(model, seen(sticker.face, scenes, size))
        attacked = _answers(model, sticker.render(scenes, size))
    target = CLASSES.index(sticker.target) if sticker.target else -1
    return Answers(bare, attacked, CLASSES.index(sticker.source), target)


def _answers(model: Model, images: Tensor) -> Tensor:
    return torch.cat([ask(model, part).argmax(1) for part in images.split(256)])


def judged(sticker: Sticker, n: int, seed: int, ranges: Ranges | None = None) -> Scenes:
    """n scenes of the sticker's sign that no fit has seen."""
    return draw(seed, JUDGE, torch.arange(n), CLASSES.index(sticker.source), ranges)


def grid(
    model: Model,
    sticker: Sticker,
    n: int = 100,
    seed: int = 0,
    size: int = 32,
    fitted: Ranges | None = None,
    cells: Sequence[tuple[float, float]] = CELLS,
) -> list[Json]:
    """For each (metres, degrees) of yaw, to either side, the summary of n scenes, and whether the fit covered it.

    fitted: the ranges of the fit, default those of the world.
    """
    fitted = fitted or Ranges()
    rows = []
    for distance, yaw in cells:
        scenes = judged(sticker, n, seed)
        side = torch.where(uniform(keys(seed, torch.arange(n), "side"), (1,))[:, 0] < 0.5, -1.0, 1.0)
        found = answers(model, sticker, scenes.override(distance=distance, yaw=side * yaw), size).summary()
        inside = fitted.distance[0] <= distance <= fitted.distance[1] and yaw <= fitted.yaw
        rows.append({"distance": distance, "yaw": yaw, "fitted": inside} | found)
    return rows


def paper_cells() -> list[tuple[float, float]]:
    """The paper's cells, in metres and degrees."""
    return [(round(feet * FOOT, 2), float(yaw)) for feet, yaw in PAPER]


def drive_by(model: Model, sticker: Sticker, frames: int = 75, seed: int = 0, size: int = 32) -> Json:
    """One approach to the sign, from 40 m to 3 m at steady speed: the answer in each frame, bare and with the sticker.

    Everything but the distance stays as one scene has it. `read_at`: the distance in metres from which on the sign with
    the sticker is read right in all frames; None where it is not in the last one.
    """
    one = draw(seed, "sticker, drive-by", torch.zeros(frames, dtype=torch.int64), CLASSES.index(sticker.source))
    metres = torch.linspace(40, 3, frames)
    scenes = one.override(distance=metres, yaw=0.0, occlusion=0.0)
    found = answers(model, sticker, scenes, size)
    right = found.attacked == found.label
    last_wrong = (~right).nonzero()[:, 0].max().item() if not bool(right.all()) else -1
    return {
        **found.summary(),
        "frames": [
            {"distance": round(m, 2), "bare": CLASSES[a], "attacked": CLASSES[b]}
            for m, a, b in zip(metres.tolist(), found.bare.tolist(), found.attacked.tolist(), strict=True)
        ],
        "read_at": round(float(metres[int(last_wrong) + 1]), 2) if last_wrong + 1 < frames else None,
    }


def controls(sticker: Sticker, seed: int = 0) -> dict[str, Sticker]:
    """Stickers of the same shape that nobody fitted: grey, random printable colours, random black and white blocks."""
    textures = control_textures(sticker.texture.shape[-1], BLOCKS, seed, "sticker, control")
    return {name: Sticker(texture, sticker.mask, sticker.source, sticker.target) for name, texture in textures.items()}
