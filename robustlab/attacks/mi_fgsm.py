"""The momentum iterative fast gradient sign method, and what makes its images transfer to other models."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.attacks.pgd import PGD, step
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.base.draws import uniform
from robustlab.base.errors import UserError
from robustlab.threat.geometry import column


@dataclass(frozen=True)
class MIFGSM(PGD):
    """Sign steps along a decaying sum of gradients (Dong et al. 2018, arXiv:1710.06081, algorithm 1).

    Each gradient is divided by its own mean absolute value, image by image. It starts at the clean image.
    decay: the factor mu of the sum. step_size: default eps / steps. What follows may be combined:
    nesterov: ask ahead, where the sum points (NI, Lin et al. 2020, arXiv:1908.06281, section 3.1).
    scales: average over the image divided by 1, 2, 4 ... (SI, the same, section 3.2).
    diversity: the share of queries shown smaller and shifted, by up to a tenth (DI, Xie et al. 2019, arXiv:1803.06978).
    kernel: pixels of the Gaussian that smooths the gradient, 0 for none (TI, Dong et al. 2019, arXiv:1904.02884).

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> MIFGSM(eps="8/255", steps=3)(model, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    steps: int = 10
    random_start: bool = False
    decay: float = 1.0
    nesterov: bool = field(default=False, kw_only=True)
    scales: int = field(default=1, kw_only=True)
    diversity: float = field(default=0.0, kw_only=True)
    kernel: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay < 0 or self.scales < 1:
            raise UserError(f"decay must be at least 0 and scales at least 1, got {self.decay} and {self.scales}.")
        if not 0 <= self.diversity <= 1:
            raise UserError(f"diversity is a share between 0 and 1, got {self.diversity}.")
        if self.kernel < 0 or (self.kernel and self.kernel % 2 == 0):
            raise UserError(f"kernel is an odd number of pixels, or 0 for none; got {self.kernel}.")

    @property
    def views(self) -> int:  # type: ignore[override]
        return self.scales

    @property
    def faithful(self) -> bool:  # type: ignore[override]
        return self.diversity == 0

    def view(self, query: Tensor, rows: Rows, i: int, draw: Draw) -> Tensor:
        shown = query / 2**i if i else query
        return diverse(shown, draw.keys(rows, f"view {i}"), self.diversity) if self.diversity else shown

    def start(self, rows: Rows, draw: Draw) -> State:
        state = {**super().start(rows, draw), "momentum": torch.zeros_like(rows.x)}
        return {**state, "point": state["query"].clone()} if self.nesterov else state

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        g = seen.gradient
        assert g is not None
        if self.kernel:
            g = smooth(g, self.kernel)
        mean = g.abs().flatten(1).mean(1).clamp_min(1e-30)
        momentum = self.decay * state["momentum"] + g / column(mean, g)
        if not self.nesterov:
            query = step(rows, state, momentum, self.step_length, self.norm, self.eps)
            return {**state, "momentum": momentum, "query": query}
        here = {**state, "query": state["point"]}
        point = step(rows, here, momentum, self.step_length, self.norm, self.eps)
        # the last query is the point itself: it is what is judged
        ahead = column((rows.age + 1 < self.steps).float(), g) * self.decay * self.step_length * momentum
        return {**state, "momentum": momentum, "point": point, "query": (point + ahead).clamp_(0, 1)}

    @property
    def step_length(self) -> float:
        return self.eps / self.steps if self.step_size is None else self.step_size


def diverse(images: Tensor, key: Tensor, share: float, room: float = 1.1) -> Tensor:
    """A `share` of the images shown smaller on a black ground: as on a canvas `room` times as large, scaled back.

    images: (B, C, H, W). key: (B,). The size is drawn between the image's and the canvas's, the place uniformly.
    Differentiable; an image that is not chosen comes back as it is.
    """
    u = uniform(key, (4,))
    chosen = u[:, 0] < share
    scale = (1 + u[:, 1] * (room - 1)) / room
    free = 1 - scale  # half the way that the shrunken image can move, in units of half the image
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, 0, 2] = (1 - 2 * u[:, 2]) * free / scale
    theta[:, 1, 2] = (1 - 2 * u[:, 3]) * free / scale
    grid = F.affine_grid(theta, list(images.shape), align_corners=False).to(images.dtype)
    return torch.where(column(chosen, images), F.grid_sample(images, grid, align_corners=False), images)


def smooth(gradient: Tensor, side: int) -> Tensor:
    """Each channel convolved with a Gaussian of `side` pixels, which reach three standard deviations to either side."""
    at = torch.arange(side, device=gradient.device, dtype=gradient.dtype) - side // 2
    line = torch.exp(-(at**2) / (2 * (max(side - 1, 1) / 6) ** 2))
    channels = gradient.shape[1]
    weight = (line[:, None] * line / line.sum() ** 2).expand(channels, 1, side, side)
    return F.conv2d(gradient, weight, padding=side // 2, groups=channels)


@dataclass(frozen=True)
class NIFGSM(MIFGSM):
    """MI-FGSM that asks ahead (Lin et al. 2020, arXiv:1908.06281)."""

    nesterov: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class SINIFGSM(NIFGSM):
    """NI-FGSM averaged over five scales of brightness (SI-NI-FGSM, Lin et al. 2020, arXiv:1908.06281)."""

    scales: int = field(default=5, kw_only=True)


@dataclass(frozen=True)
class DIFGSM(MIFGSM):
    """MI-FGSM with half of the queries shown smaller and shifted (M-DI-FGSM, Xie et al. 2019, arXiv:1803.06978)."""

    diversity: float = field(default=0.5, kw_only=True)


@dataclass(frozen=True)
class TIFGSM(MIFGSM):
    """MI-FGSM on smoothed gradients (TI-MI-FGSM, Dong et al. 2019, arXiv:1904.02884, eq. 9).

    kernel: the paper takes 15 for 299 pixels; 5 suits images of 32.
    """

    kernel: int = field(default=5, kw_only=True)
