"""What the fits share: the state that a stopped one goes on from, Adam, and the head of a saved file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from robustlab.base.reading import decoded

CURVE = 60  # points of the curve of the loss
State = dict[str, Tensor]
Watch = Callable[[int, float, State], None]


def unwatched(step: int, loss: float, state: State) -> None:
    """The `watch` of a fit that nobody watches."""


def adam(state: State, gradient: Tensor, lr: float) -> State:
    """One step of Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1) on `z`, with `m`, `v` and `step`."""
    step = state["step"] + 1
    m, v = 0.9 * state["m"] + 0.1 * gradient, 0.999 * state["v"] + 0.001 * gradient.square()
    k = int(step)
    z = state["z"].detach() - lr * (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
    return {"z": z, "m": m, "v": v, "step": step}


def head(data: bytes, kind: str) -> Any:
    """What the head of a safetensors file says of its `kind`. KeyError, TypeError, ValueError: nothing, or no JSON."""
    size = int.from_bytes(data[:8], "little")
    return decoded(decoded(data[8 : 8 + size])["__metadata__"][kind].encode())


def means(values: Sequence[float], most: int) -> list[float]:
    """The means of consecutive values, at most so many.

    >>> means([1, 3, 5, 7, 9], 3)
    [2.0, 6.0, 9.0]
    """
    step = -(-len(values) // most) or 1
    parts = (values[at : at + step] for at in range(0, len(values), step))
    return [sum(part) / len(part) for part in parts]
