"""The search copy: the classifier rebuilt for speed. Attacks search on it; what they find is judged by the original.

BatchNorm is folded into the convolutions where torch.fx can trace the module, memory is channels_last, parameters are
frozen; on request bfloat16 and compiled. It is used only if its logits agree with the original's on a first batch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from robustlab.errors import UserError
from robustlab.oracle import undisturbed

Precision = Literal["float32", "bfloat16"]
# the largest difference of a logit, relative to the largest logit of the batch, that still counts as agreement
TOLERANCE: dict[str, float] = {"float32": 1e-4, "bfloat16": 5e-2}


@dataclass(frozen=True)
class SearchCopy:
    """A search copy, or the reason why there is none. `difference`: see `TOLERANCE`; None if nothing was compared."""

    module: nn.Module | None
    reason: str
    folded: bool = False
    precision: str = "float32"
    compiled: bool = False
    difference: float | None = None

    def describe(self) -> dict[str, object]:
        """What goes into run.json."""
        return {
            "used": self.module is not None,
            "reason": self.reason,
            "folded": self.folded,
            "precision": self.precision,
            "compiled": self.compiled,
            "difference": self.difference,
        }


class _Fast(nn.Module):
    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x.to(self.dtype, memory_format=torch.channels_last))
        return out.float()


def fold(module: nn.Module) -> tuple[nn.Module, bool]:
    """A copy in eval mode with BatchNorm folded into the convolutions before it, and whether that could be traced."""
    from torch.fx.experimental.optimization import fuse

    plain = copy.deepcopy(module).eval()
    if getattr(plain, "outputs", "logits") != "logits":  # a classifier that looks at what its module calls: not traced
        plain.module, folded = fold(cast(nn.Module, plain.module))
        return plain, folded
    try:
        return fuse(plain, inplace=False).eval(), True
    except Exception:  # torch.fx raises many kinds of error on code that it cannot trace
        return plain, False


def make_search_copy(
    model: nn.Module, images: Tensor, precision: Precision = "float32", compile: bool = False
) -> SearchCopy:
    """A search copy of a classifier that agrees with it on `images` (N, C, H, W), or none and the reason.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    >>> images = torch.rand(4, 3, 8, 8)
    >>> _ = net(images)
    >>> make_search_copy(net, images).folded
    True
    """
    if precision not in TOLERANCE:
        raise UserError(f"precision must be float32 or bfloat16, got {precision!r}.")
    try:
        module, folded = fold(model)
    except Exception as error:  # deepcopy fails in as many ways as there are modules
        return SearchCopy(None, f"the module cannot be copied ({type(error).__name__}: {error})")
    dtype = getattr(torch, precision)
    fast: nn.Module = _Fast(module.to(dtype).to(memory_format=torch.channels_last), dtype)
    for p in fast.parameters():
        p.requires_grad_(False)
    if compile:
        fast = torch.compile(fast)  # type: ignore[assignment]
    made = SearchCopy(fast, "agrees with the original", folded, precision, compile)
    with torch.no_grad(), undisturbed(model):
        wanted = model(images).float()
        try:
            got = fast(images)
        except Exception as error:
            return replace(made, module=None, reason=f"the copy does not run ({type(error).__name__}: {error})")
    difference = ((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6)).item()
    made = replace(made, difference=difference)
    if not difference <= TOLERANCE[precision]:
        return replace(
            made, module=None, reason=f"its logits differ by {difference:.1e}, more than {TOLERANCE[precision]:g}"
        )
    return made
