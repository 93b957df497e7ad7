"""What passes between the driver and an attack of rows: the rows, what the target showed, random keys, the state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from robustlab.attacks.base import Keep
from robustlab.base.draws import keys
from robustlab.oracle import Access

State = dict[str, Tensor]  # first dimension = rows; "query" is the next point to be seen


@dataclass
class Rows:
    """The samples in the slots of the working batch, one rank each. All fields have the rows as first dimension."""

    x: Tensor  # clean images
    y: Tensor  # labels
    target: Tensor  # the class to reach, -1 for none
    id: Tensor
    rank: Tensor
    age: Tensor  # steps taken
    pos: Tensor  # place in the selection, -1 for an idle slot

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def join(self, other: Rows) -> Self:
        return type(self)(**{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)})

    def put(self, index: Tensor, other: Rows) -> None:
        for f in fields(self):
            getattr(self, f.name)[index] = getattr(other, f.name)


class Observation(NamedTuple):
    """What the target showed at `state["query"]`; the gradient is None where the attack does not need one.

    With `eot` above 1, logits, loss and gradient are means over so many evaluations.
    """

    logits: Tensor
    loss: Tensor
    gradient: Tensor | None
    adversarial: Tensor  # (B,) bool


Watch = Callable[[Rows, Observation], None]  # is told what is seen, as the attack is


@dataclass(frozen=True)
class Draw:
    """Random keys for rows: a function of (seed, sample id, rank, age, purpose) and of nothing else."""

    seed: int

    def keys(self, rows: Rows, purpose: str) -> Tensor:
        return keys(self.seed, rows.id, rows.rank, rows.age, purpose)


class AskAndTell(Protocol):
    """All that the driver uses of an attack; `RowAttack` says what each of it is."""

    needs: ClassVar[Access]
    keep: ClassVar[Keep]
    aims: ClassVar[bool]
    views: ClassVar[int]
    faithful: ClassVar[bool]

    @property
    def norm(self) -> str: ...
    @property
    def eps(self) -> float: ...
    @property
    def eot(self) -> int: ...
    @property
    def stop_at_success(self) -> bool: ...
    @property
    def queries(self) -> int: ...
    def ranks(self, y: Tensor, targets: Tensor | None, clean_logits: Tensor | None) -> Tensor: ...
    def start(self, rows: Rows, draw: Draw) -> State: ...
    def objective(self, logits: Tensor, rows: Rows, state: State) -> Tensor: ...
    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State: ...
    def view(self, query: Tensor, rows: Rows, i: int, draw: Draw) -> Tensor: ...
    def judged(self, rows: Rows, state: State) -> Tensor | None: ...
    def crafted(self, state: State) -> Tensor: ...
    def done(self, rows: Rows, state: State) -> Tensor | None: ...
    def succeeds(self, predicted: Tensor, y: Tensor, target: Tensor) -> Tensor: ...


@runtime_checkable
class Foreseeable(AskAndTell, Protocol):
    """All that the leap uses of an attack, whose next queries are known while nothing changes; see `SearchAttack`."""

    def idle(self, state: State, loss: Tensor) -> Tensor: ...
    def propose(self, rows: Rows, state: State, draw: Draw) -> Tensor: ...
