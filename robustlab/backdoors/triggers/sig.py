"""A sine wave over the whole image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.backdoors.triggers.base import Role, Trigger, check_share
from robustlab.base.errors import UserError
from robustlab.data import Loaded


@dataclass(frozen=True)
class SIG(Trigger):
    """delta sin(2 pi j f / width) added to column j (Barni et al. 2019, arXiv:1902.11237); clean label.

    delta: amplitude on the scale of [0, 1], the same in training and at test, where the paper may take another; its
    code has 30/255, later benchmarks 20/255. frequency: f, waves across the image, 6 in all of them. The paper's ramps,
    for digits, are not here. UserError: a bad parameter.

    >>> SIG().clean_label
    True
    """

    delta: float = 20 / 255
    frequency: float = 6.0
    clean_label: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("delta", self.delta)
        if not 0 < self.frequency < math.inf:
            raise UserError(f"frequency must be above 0, got {self.frequency:g}.")

    def put(self, data: Loaded, seed: int, role: Role) -> Tensor:
        width = data.images.shape[3]
        return data.images + self.delta * torch.sin(2 * math.pi * self.frequency * torch.arange(width) / width)
