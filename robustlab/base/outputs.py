"""What a model returns: the forms that are taken, how outputs that are no logits are recognised, and their logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any, Literal

import torch
import torch.fx
from torch import Tensor
from torch.overrides import TorchFunctionMode

from robustlab.base.errors import UserError, spelled

Form = Literal["logits", "softmax", "sigmoids"]
# log(0) is minus infinity: smaller probabilities count as this one. Its reciprocal, a gradient, must not overflow.
SMALLEST = 2.0**-120
# Likewise 1 - p: half of the distance from the largest float32 below 1 to 1. No other probability has this logit.
LARGEST_GAP = 2.0**-25
_SQUASHING = ("sigmoid", "softmax", "special_expit", "special_softmax")  # as torch calls these functions
_KEYS = ("logits", "out", "output")
ROUNDED = (
    "On {k} of {n} float32 has rounded the largest output to exactly 1, or all others to 0, so that no gradient of"
    " these is left."
)
UNROUNDED = "Give the layer before the sigmoid or softmax: its logits keep what the probabilities have lost."
ENOUGH = 8  # images: what holds for all of them is hardly chance
SINGLE_PROBABILITY = (
    "The model's output is said to be a logit, and all of its values lie in [0, 1]: every image with more than 0 is"
    ' then of class 1. Where it is a probability: two_classes(model, output="probability"), or in a model card'
    ' single_output = "probability".'
)
_VANISH = "Losses are computed on logits: on {these} gradients vanish and the model looks more robust than it is."
_SAY_SO = (
    'say so: with --outputs probabilities (in Python: outputs="probabilities") attacks see the logits of these values.'
)


# --- forms ------------------------------------------------------------------------------------------------------------


def rows(out: Any, images: Tensor) -> Tensor:
    """(N, K), one row an image, from what a model returned for images (N, C, H, W).

    Taken: (N, K); (N, K, 1, 1); (K,) for a single image; of a mapping, or of an object with names, what it calls
    logits, out or output; of a tuple or list, the only tensor (N, K). What else comes is a UserError. What torch.fx
    traces with has no values yet and is only reshaped.

    >>> rows({"loss": None, "logits": torch.zeros(2, 3, 1, 1)}, torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3])
    """
    out = unpacked(out)
    if not isinstance(out, torch.fx.Proxy):
        _check_form(out, len(images))
    if isinstance(out, Tensor) and out.ndim > 1:
        out = out.flatten(1)
    else:
        out = out.reshape(images.shape[0], -1)
    made: Tensor = out
    return made


def unpacked(out: Any) -> Any:
    """What `rows` takes for the outputs, in the shape that it came."""
    if isinstance(out, Tensor | torch.fx.Proxy):
        return out
    if isinstance(out, Mapping):
        found = next((out[key] for key in _KEYS if key in out), None)
        if found is None and len(out) == 1:
            found = next(iter(out.values()))
        if found is None:
            keys = ", ".join(map(str, out)) or "nothing in it"
            raise UserError(
                f"The model returned a {type(out).__name__} with {keys}, and none of them is called"
                f" {' or '.join(_KEYS)}. Wrap it in a module whose forward returns the logits only."
            )
        return found
    for key in _KEYS:
        if hasattr(out, key):
            return getattr(out, key)
    if isinstance(out, tuple | list):
        tensors = [each for each in out if isinstance(each, Tensor | torch.fx.Proxy)]
        tables = [each for each in tensors if isinstance(each, Tensor) and each.ndim == 2]
        if len(tables) > 1:
            shapes = " and ".join(str(tuple(each.shape)) for each in tables)
            raise UserError(
                f"The model returned a {type(out).__name__} with {len(tables)} tensors that may be the logits, of"
                f" shapes {shapes}. Wrap it in a module whose forward returns the logits only."
            )
        return next(iter([*tables, *tensors]), out)
    return out


def _check_form(out: Any, n: int) -> None:
    if not isinstance(out, Tensor):
        raise UserError(
            f"The model returned a {type(out).__name__}, not a tensor of logits (N, K). Wrap it in a module whose"
            " forward returns the logits only."
        )
    shape = tuple(out.shape)
    if out.numel() == n and n and out.ndim and (len(out) == n):
        raise UserError(
            f"The model returned one number an image (shape {shape}); one a class is needed, also for two classes."
            ' Say what it is: robustlab.two_classes(model, output="logit"), or output="probability" after a sigmoid;'
            " in a model card (FILE.toml): single_output = 'logit'."
        )
    single = out.ndim == 1 and n == 1 and len(out) > 1
    flat = out.ndim >= 2 and len(out) == n and shape[1] > 1 and prod(shape[2:]) == 1
    if not (single or flat) or not out.is_floating_point():
        raise UserError(
            f"The model must return float logits of shape ({n}, K), one column a class and at least 2; got"
            f" {out.dtype} {shape}."
        )


# --- are they logits? -------------------------------------------------------------------------------------------------


def unlike_logits(outputs: Tensor) -> str:
    """Why outputs (N, K) are probably no logits, and what to do; an empty text if they look like logits.

    Recognised: rows that sum to 1; values that lie in [0, 1] and fill more than half of it (one sigmoid a class, powers
    of probabilities, a softmax cut off or with columns missing); values in [-1, 1] that reach both ends (tanh); a
    largest and a smallest value that several classes share to the last bit (a clamp); most values at the very ends of
    their range (something bounded that was scaled). Logits that lie so by chance, and cosine similarities, which stay
    away from the ends, are not; log-probabilities are logits.

    >>> z = torch.tensor([[9.0, -4.0, -5.0], [-6.0, 7.0, -3.0]])
    >>> [bool(unlike_logits(f)) for f in (z, z.log_softmax(1), z.softmax(1), z.sigmoid(), z.tanh(), z.clamp(-4, 6))]
    [False, False, True, True, True, True]
    """
    z = outputs.detach().float()
    low, high = z.min().item(), z.max().item()
    cut = _cut(z, low, high)
    ends = f"{low:.4g} and {high:.4g}"
    if like_a_single_probability(z):
        return SINGLE_PROBABILITY
    if sum_to_one(z):
        kind = "The outputs look like probabilities (in [0, 1], each row sums to 1), not logits. "
        return kind + _VANISH.format(these="probabilities") + " Remove the softmax, or " + _SAY_SO
    if 0 <= low and high <= 1 and high - low > 0.5:
        kind = "All outputs lie in [0, 1], as those of a sigmoid for each class do, or of a softmax that was changed. "
        if cut:
            todo = f" They are cut off at {ends}, where no gradient is left: give the layer before all this."
        else:
            todo = " Remove what bounds them, or " + _SAY_SO
        return kind + _VANISH.format(these="bounded outputs") + todo
    if -1 <= low < -0.99 and 0.99 < high <= 1:
        return (
            "All outputs lie in [-1, 1] and reach both ends, as those of a tanh do. "
            + _VANISH.format(these="bounded outputs")
            + " Give the layer before the tanh; cosine similarities times the scale that they were trained with."
        )
    if cut:
        return (
            f"The outputs are cut off at {ends}, where no gradient is left: the model looks more robust than it is."
            " Give them without the clamp or rounding."
        )
    if low < high and _at_the_ends(z, low, high):
        return (
            f"Many outputs crowd at {ends}, as those of a sigmoid, tanh or softmax that was scaled do. "
            + _VANISH.format(these="bounded outputs")
            + " Give the layer before that."
        )
    return ""


def like_a_single_probability(logits: Tensor) -> bool:
    """Are these logits (N, 2) of `two_classes`, 0 and z, in which every z lies in [0, 1]? False for a few images."""
    z = logits.detach()
    return z.shape[1] == 2 and len(z) >= ENOUGH and not bool(z[:, 0].any()) and bool(((z >= 0) & (z <= 1)).all())


def sum_to_one(outputs: Tensor) -> bool:
    """Do all rows (N, K) lie in [0, 1] and sum to 1?"""
    return bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-3).all())


def _at_the_ends(z: Tensor, low: float, high: float) -> bool:
    """Do values of several classes crowd within 1 % of the range at each of its ends?

    At the lower one 5 % of the values in a quarter of the rows, at the upper one the largest of 4 rows in 10. On the
    zoo (n = 64) sigmoids have 10 to 24 % and 86 to 98 %, a softmax 81 to 92 % and 45 to 88 %, tanh 30 to 46 % and 95 to
    100 %; logits 0.2 and 2 %, log-probabilities 0.2 and 67 to 97 %, logits behind a ReLU 63 to 67 % and 2 %.
    """
    near = 0.01 * (high - low)
    lower, upper = z < low + near, z > high - near
    crowded = (
        lower.double().mean() > 0.05 and lower.any(1).double().mean() > 0.25 and upper.any(1).double().mean() > 0.4
    )
    return len(z) >= ENOUGH and bool(crowded) and min(int(lower.any(0).sum()), int(upper.any(0).sum())) > 1


def _cut(z: Tensor, low: float, high: float) -> bool:
    """Do several classes share the largest value and several the smallest, to the last bit?

    Equal images share only those of the same classes. Ties of a few images may be chance where outputs are coarse.
    """
    top, bottom = z == high, z == low
    often = int(top.any(1).sum()) >= max(2, 0.05 * len(z))
    return low < high and often and int(top.any(0).sum()) > 1 and int(bottom.any(0).sum()) > 1


# --- the logits of probabilities --------------------------------------------------------------------------------------


def form_of(probabilities: Tensor) -> Form:
    """Which logits belong to probabilities (N, K): of a softmax where rows sum to 1, else of one sigmoid a class."""
    low, high = probabilities.min().item(), probabilities.max().item()
    if not (low >= 0 and high <= 1 + 1e-5):
        tanh = " Where they are those of a tanh: (t + 1) / 2 are probabilities." if -1 <= low and high <= 1 else ""
        raise UserError(
            f"{spelled('outputs', 'probabilities')}: outputs must lie in [0, 1], and those of this model go from"
            f" {low:.4g} to {high:.4g}. Leave {spelled('outputs')} out where they are logits.{tanh}"
        )
    return "softmax" if sum_to_one(probabilities) else "sigmoids"


class Squashed(TorchFunctionMode):
    """While it is active: remembers what went into each sigmoid and softmax, by what came out.

    >>> z = torch.tensor([[40.0, 30.0]])
    >>> with Squashed() as squashed:
    ...     p = torch.nn.Sigmoid()(z)
    >>> p.tolist(), squashed.before(p, "sigmoids") is z, squashed.before(p, "softmax")
    ([[1.0, 1.0]], True, None)
    """

    def __init__(self) -> None:
        super().__init__()
        # the results are held, too, so that no other gets their place in memory
        self.seen: list[tuple[Any, Any, Callable[[], Any], str]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if args and name in _SQUASHING:
            form = "softmax" if "softmax" in name else "sigmoids"
            self.seen.append((made, args[0], partial(func, *args, **(kwargs or {})), form))
        return made

    def before(self, made: Any, form: Form) -> Tensor | None:
        """The logits of these very values; None where they come of something else, or one of both was written to."""
        for result, given, again, kind in self.seen:
            if result is made and kind == form:
                with torch.no_grad():
                    return given if torch.equal(again(), made) else None
        return None


def logits_of_probabilities(p: Tensor, form: Form, before: Tensor | None = None) -> Tensor:
    """(N, K) float32 logits whose softmax, or sigmoids, these are; of a softmax up to a constant a row.

    before: the logits themselves where the model computed them, exact also where p has rounded to 0 or 1. Without them
    log p, and for sigmoids log p - log(1 - p). The largest of a row stays the largest, and the first of equals the
    first: where the largest logit is not that of the largest p, because one of the two has rounded, the latter's is
    moved just above it, so that nobody's answer changes.

    >>> z = torch.tensor([[4.0, -1.0, 0.5]])
    >>> torch.allclose(logits_of_probabilities(z.sigmoid(), "sigmoids"), z, atol=1e-5)
    True
    """
    p = p.float()
    if before is not None:
        z = before.float()
    else:
        z = p.clamp_min(SMALLEST).log()
        if form == "sigmoids":
            z = z - (1 - p).clamp_min(LARGEST_GAP).log()
    top = p.argmax(1, keepdim=True)
    above = torch.nextafter(z.amax(1, keepdim=True), torch.full_like(z[:, :1], torch.inf))
    moved = (above - z.gather(1, top)).detach() * (z.argmax(1, keepdim=True) != top)
    return z.scatter_add(1, top, moved)


def rounded(logits: Tensor, form: Form) -> Tensor:
    """(N,) bool: a probability that matters had rounded in float32, so that its own gradient is lost.

    sigmoids: to exactly 1. softmax: all but the largest to about 0. logits: of `logits_of_probabilities`, which gives
    what has rounded one and the same value.
    """
    if form == "sigmoids":
        return (logits == -torch.tensor(LARGEST_GAP).log().to(logits)).any(1)
    return (logits == torch.tensor(SMALLEST).log().to(logits)).sum(1) == logits.shape[1] - 1
