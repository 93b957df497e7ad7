"""The search copy: the classifier rebuilt for speed. Attacks search on it; what they find is judged by the original.

BatchNorm is folded into the convolutions where torch.fx can trace the module, memory is channels_last, parameters are
frozen; on request bfloat16 and compiled. It is used only if it agrees with the original on a first batch, in its logits
and in its gradients: torch.fx keeps what a forward pass computes, and loses the backward of an autograd.Function, a
no_grad block or a hook. What was lost is looked for in float32, where rounding hides nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.memory import of_the_machine
from robustlab.models.agreement import Agreement, Answer, agreement, answers

Precision = Literal["float32", "bfloat16"]
# The largest difference of logits, and the least agreement of gradients, that still count as agreement. Measured on
# honest copies of the zoo's nets and of 13 of torchvision's with random weights: float32 differs by at most 3e-6, and
# has signs of at least 0.9989 and a cosine of 0.9996 (VGG-11 at 224x224); bfloat16 2e-2, 0.68 and 0.52 (the same; the
# zoo's nets 0.93 and 0.98). A lost no_grad around the mean of the image leaves signs of 0.969, a lost half of a
# gradient the length 0.5, a lost straight-through, surrogate or reversed one no sign at all.
LIMITS: dict[str, Agreement] = {
    "float32": Agreement(difference=1e-4, signs=0.99, cosine=0.99, length=0.9),
    "bfloat16": Agreement(difference=5e-2, signs=0.6, cosine=0.4, length=0.5),
}
AGREES = "agrees with the original"


@dataclass(frozen=True)
class SearchCopy:
    """A search copy, or the reason why there is none. found: see `Agreement`; None if nothing was compared.

    unfolded: why a copy that could be folded is not.
    """

    module: nn.Module | None
    reason: str
    folded: bool = False
    precision: str = "float32"
    compiled: bool = False
    found: Agreement | None = None
    unfolded: str = ""

    @property
    def difference(self) -> float | None:
        return None if self.found is None else self.found.difference

    def describe(self) -> dict[str, object]:
        """What goes into run.json."""
        found = self.found
        return {
            "used": self.module is not None,
            "reason": self.reason,
            "folded": self.folded,
            "precision": self.precision,
            "compiled": self.compiled,
            "difference": self.difference,
            "gradient_signs": None if found is None else found.signs,
            "gradient_cosine": None if found is None else found.cosine,
            **({"unfolded": self.unfolded} if self.unfolded else {}),
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

    A copy that torch.fx has traced, where that is possible; if it does not agree, a plain one.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    >>> images = torch.rand(4, 3, 8, 8)
    >>> _ = net(images)
    >>> make_search_copy(net, images).folded
    True
    """
    if precision not in LIMITS:
        raise UserError(f"precision must be float32 or bfloat16, got {precision!r}.")
    wanted = answers(model, images)
    try:
        rebuilt, folded = fold(model)
        made = _checked(rebuilt, folded, wanted, images, precision, compile)
        if made.module is None and folded:
            plain = _checked(copy.deepcopy(model).eval(), False, wanted, images, precision, compile)
            made = replace(plain, unfolded=made.reason)
    except Exception as error:  # deepcopy fails in as many ways as there are modules
        if of_the_machine(error):
            raise
        return SearchCopy(None, f"the module cannot be copied ({type(error).__name__}: {error})")
    return made


def _checked(
    module: nn.Module, folded: bool, wanted: Sequence[Answer], images: Tensor, precision: Precision, compile: bool
) -> SearchCopy:
    """The copy made of a rebuilt module, as far as it agrees."""
    made = SearchCopy(None, AGREES, folded, precision, compile)
    for kind, fast in _steps(module, precision, compile):
        try:
            made = replace(made, module=fast, found=agreement(wanted, answers(fast, images)))
        except Exception as error:
            if of_the_machine(error):
                raise
            return replace(made, module=None, reason=f"the copy does not run ({type(error).__name__}: {error})")
        assert made.found is not None
        if reason := _disagreement(made.found, LIMITS[kind]):
            return replace(made, module=None, reason=reason)
    return made


def _steps(module: nn.Module, precision: Precision, compile: bool) -> Iterator[tuple[str, nn.Module]]:
    """The copy in float32, where everything that is lost shows, then as it is to be used."""
    for kind in dict.fromkeys(("float32", precision)):
        dtype = getattr(torch, kind)
        fast: nn.Module = _Fast(module.to(dtype).to(memory_format=torch.channels_last), dtype)
        for p in fast.parameters():
            p.requires_grad_(False)
        yield kind, fast
    if compile:
        yield precision, torch.compile(fast)  # type: ignore[misc]


def _disagreement(found: Agreement, limit: Agreement) -> str:
    """What differs by more than it may; empty if nothing does."""
    if not found.difference <= limit.difference:
        return f"its logits differ by {found.difference:.1e}, more than {limit.difference:g}"
    if found.signs >= limit.signs and found.cosine >= limit.cosine and found.length >= limit.length:
        return ""
    return (
        f"its gradients are not the model's ({found.signs:.1%} of their signs agree, the cosine is {found.cosine:.3f},"
        f" the ratio of their lengths {found.length:.3g})"
    )
