"""What every trigger has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.base.errors import UserError
from robustlab.data import Loaded

Role = Literal["poison", "cover", "test"]


class Trigger(ABC):
    """A frozen dataclass whose fields are its parameters; `on` puts it on images.

    clean_label: poisons come from the target class and keep their label. covers: images for each poison that carry the
    trigger in training and keep their true label.
    """

    clean_label: ClassVar[bool] = False
    covers: float = 0.0

    def on(self, data: Loaded, seed: int, role: Role = "test") -> Tensor:
        """(N, C, H, W): the images of `data` with the trigger, in [0, 1] and rounded to k/255.

        role: "poison" or "cover" in training, "test" for attack success. The image of an id does not depend on what
        else is in `data`. UserError: the trigger does not fit on such images.
        """
        self.check(data)
        if not len(data):
            return data.images
        return (self.put(data, seed, role).clamp(0, 1) * 255).round() / 255

    def check(self, data: Loaded) -> None:
        """A UserError where the trigger does not fit on these images."""
        del data

    @abstractmethod
    def put(self, data: Loaded, seed: int, role: Role) -> Tensor:
        """(N, C, H, W): what `on` rounds."""


def noise(seed: int, shape: tuple[int, ...], purpose: str) -> Tensor:
    """One pattern of this shape, uniform in [0, 1), the same for all images of a seed.

    >>> noise(0, (1, 4, 4), "blended").shape
    torch.Size([1, 4, 4])
    """
    return uniform(keys(seed, torch.zeros(1, dtype=torch.int64), purpose), shape)[0]


def check_share(name: str, value: float) -> None:
    """A UserError unless 0 < value <= 1."""
    if not 0 < value <= 1:
        raise UserError(f"{name} must be above 0 and at most 1, got {value:g}.")


def check_fits(what: str, needed: tuple[int, int], images: Tensor) -> None:
    """A UserError where the images are smaller than what is put on them. needed: height, width."""
    height, width = images.shape[2:]
    if needed[0] > height or needed[1] > width:
        raise UserError(
            f"{what} needs {needed[0]}x{needed[1]} pixels, and the images have {height}x{width}. Make it smaller."
        )
