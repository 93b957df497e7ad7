"""Attacks that move every sample on its own, by ask and tell: what most attacks are made from."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustlab.attacks.base import Attack, Outcome
from robustlab.attacks.driver import drive
from robustlab.attacks.losses import LOSSES
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.base.errors import UserError, did_you_mean
from robustlab.oracle import Oracle


@dataclass(frozen=True)
class RowAttack(Attack):
    """An attack that moves every sample on its own, by ask and tell; `driver.drive` does the asking.

    A subclass says where a row starts and how it goes on from what was seen; it never calls the classifier.
    restarts: tries at a sample, of which the first that succeeds counts. loss: what is maximised.
    """

    views: ClassVar[int] = 1

    restarts: int = 1
    loss: str = "ce"
    stop_at_success: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise UserError(
                f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}.{did_you_mean(self.loss, LOSSES)}"
            )
        self._at_least_one("restarts")

    @property
    def looks(self) -> int:
        return self.queries * self.restarts * self.views * self.eot

    # --- what a subclass says -------------------------------------------------------------------------------------

    def ranks(self, y: Tensor, targets: Tensor | None, clean_logits: Tensor | None) -> Tensor:
        """(n, R): the target of each rank, -1 for none. The default: `restarts` times the given target."""
        column = torch.full_like(y, -1) if targets is None else targets
        return column[:, None].expand(-1, self.restarts)

    @abstractmethod
    def start(self, rows: Rows, draw: Draw) -> State:
        """The state of rows that begin: a dict of tensors with the rows as first dimension, "query" among them."""

    @abstractmethod
    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        """How the rows go on from what was seen at their query: the state with the next "query"."""

    def objective(self, logits: Tensor, rows: Rows, state: State) -> Tensor:
        """(B,): what the attack maximises, never reduced over rows."""
        aimed = self.targeted or self.aims
        return LOSSES[self.loss](logits, rows.y, rows.target if aimed else None)

    faithful: ClassVar[bool] = True  # view 0 is the query itself, so that its logits judge it

    def view(self, query: Tensor, rows: Rows, i: int, draw: Draw) -> Tensor:
        """What the target is shown as view i of the query."""
        return query

    def judged(self, rows: Rows, state: State) -> Tensor | None:
        """(B,) bool: rows that only want to know whether their query is adversarial, so that its gradient is zero."""
        return None

    def crafted(self, state: State) -> Tensor:
        """(B, C, H, W): what comes out where nothing is judged, for training and for transfer; the last point."""
        return state["query"]

    def done(self, rows: Rows, state: State) -> Tensor | None:
        """(B,) bool: rows that end before their last step."""
        return None

    def attempt(
        self, oracle: Oracle, x: Tensor, y: Tensor, ids: Tensor, targets: Tensor | None, crafting: bool, **how: Any
    ) -> Outcome:
        return drive(
            self,
            oracle,
            x,
            y,
            ids,
            targets=targets,
            keep="last" if crafting and self.keep == "adversarial" else None,
            **how,
        )


@dataclass(frozen=True)
class MinimumAttack(RowAttack):
    """An attack that looks for the nearest adversarial point. eps: stop a sample as soon as one within it is found.

    Without eps every step is taken. Where nothing is found inside eps, the image is the nearest adversarial one, and
    no success; where nothing is found at all, the clean image.
    """

    keep = "smallest"

    eps: float = math.inf


@dataclass(frozen=True)
class SearchAttack(RowAttack):
    """A random search: most queries leave the state as it is, so that several of the next ones are known beforehand."""

    needs = "scores"

    @abstractmethod
    def idle(self, state: State, loss: Tensor) -> Tensor:
        """(B,) bool: a query of this loss leaves all of the state but "query" as it is; False where in doubt."""

    @abstractmethod
    def propose(self, rows: Rows, state: State, draw: Draw) -> Tensor:
        """(B, C, H, W): the query after one that has left the state as it is; looks at all of it but "query"."""


def likeliest(y: Tensor, clean_logits: Tensor | None, classes: int) -> Tensor:
    """(n, R): the wrong classes with the largest clean logits, the largest first; R at most `classes`."""
    if clean_logits is None:  # no sample
        return torch.full((len(y), 1), -1, dtype=torch.long, device=y.device)
    others = clean_logits.scatter(1, y[:, None], -torch.inf)
    return others.topk(min(classes, others.shape[1] - 1), dim=1).indices
