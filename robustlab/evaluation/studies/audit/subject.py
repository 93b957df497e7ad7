"""What is audited: a model, the samples on which, and what the suite's attacks do to all of them, uncascaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from robustlab.attacks.apgd import APGD
from robustlab.attacks.base import Attack, Outcome
from robustlab.attacks.pgd import PGD
from robustlab.attacks.row_attack import RowAttack
from robustlab.attacks.rows import Observation, Rows
from robustlab.attacks.short_tries import ShortTries
from robustlab.attacks.suite import Member, Suite
from robustlab.base.memory import Batches
from robustlab.base.words import kind_and_line
from robustlab.data import Loaded
from robustlab.evaluation.faults import ends_the_run
from robustlab.evaluation.judging import Verdict, judge, logits_of, looks_of
from robustlab.evaluation.studies.audit.rows import Ran
from robustlab.oracle import NoGradientError, Oracle, most

CLIMBING = (PGD, APGD, ShortTries)  # attacks that raise a loss step by step


@dataclass(frozen=True)
class CleanPass:
    """What the run's clean pass said: over n images, how many right, and the confidence of the wrong answers."""

    n: int
    right: int
    wrong: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Attacked:
    """What one gradient attack did to all audited samples; where it ended in an error, nothing."""

    name: str
    attack: Attack
    outcome: Outcome | None
    verdict: Verdict | None
    success: Tensor
    error: str = ""


@dataclass(frozen=True, eq=False)
class Subject:
    """One model under audit.

    x, y, ids: the audited samples, classified right; targets: of a targeted threat. others: the run's other models, by
    name. ran: what the run's own attacks did. some: samples of the run whatever the model answers. elsewhere: the
    suite's images are crafted on another model. evaluations: how often a randomised model is asked.
    """

    model: nn.Module
    search: Callable[[Tensor], Tensor] | None
    suite: Suite
    x: Tensor
    y: Tensor
    ids: Tensor
    targets: Tensor | None
    classes: int
    others: Sequence[tuple[str, nn.Module]]
    clean: CleanPass
    ran: Ran
    some: Loaded
    own_labels: bool
    elsewhere: bool
    evaluations: int
    seed: int
    batches: Batches

    def __len__(self) -> int:
        return len(self.y)

    @property
    def device(self) -> torch.device:
        return self.x.device

    @cached_property
    def logits(self) -> Tensor:
        """(n, K) on the clean images."""
        return self.batches.fit(lambda size: logits_of(self.model, self.x, size))

    def succeeds(self, images: Tensor) -> Tensor:
        """(n,) bool: one image for each sample, is it what the attacker wants?"""
        answers = self.batches.fit(lambda size: looks_of(self.model, images, size, self.evaluations)).argmax(2)
        return most(answers != self.y if self.targets is None else answers == self.targets)

    @property
    def losses_used(self) -> list[str]:
        """By the suite's gradient attacks; cross-entropy where none says."""
        found = [attack.loss for _, attack in self.gradient_attacks if isinstance(attack, RowAttack)]
        return list(dict.fromkeys(found)) or ["ce"]

    @cached_property
    def gradient_attacks(self) -> list[tuple[str, Attack]]:
        """The suite's, by name; where it has none, `leading`."""
        members = [m for m in self.suite.members if m.attack.needs == "gradient"] or [self.leading]
        return [(member.name, member.attack) for member in members]

    # --- attacks --------------------------------------------------------------------------------------------------

    def run(self, attack: Attack, where: Tensor | None = None, **more: Any) -> Outcome:
        """An attack on the samples at `where` (default: on all), with the run's seed and ids."""
        if where is None:
            where = torch.arange(len(self), device=self.device)
        targets = self.targets[where] if self.targets is not None and attack.targeted else None
        search = None if "surrogate" in more else self.search
        return self.batches.fit(
            lambda size: attack.run(
                Oracle(self.model, evaluations=self.evaluations),
                self.x[where],
                self.y[where],
                **{"targets": targets, "ids": self.ids[where], "seed": self.seed, "search": search} | more,
                batch_size=size,
            )
        )

    def plain(self, kind: type[RowAttack], **parameters: Any) -> RowAttack:
        """An attack of the audit's own, under the suite's threat."""
        threat = self.suite.threat
        return kind(norm=threat.norm, eps=threat.eps, targeted=threat.targeted, eot=self.eot, **parameters)

    @property
    def eot(self) -> int:
        """How many evaluations of the model the suite's attacks average over."""
        return max(member.attack.eot for member in self.suite.members)

    @cached_property
    def climbing(self) -> list[Member]:
        """The suite's attacks that raise a loss step by step; where it has none, PGD as the audit chooses it."""
        members = [m for m in self.suite.members if isinstance(m.attack, CLIMBING) and m.attack.steps > 1]
        return members or [Member("the audit's PGD (20 steps)", "pgd", {}, self.plain(PGD, steps=20))]

    @property
    def leading(self) -> Member:
        """The first of them."""
        return self.climbing[0]

    @property
    def leading_attack(self) -> RowAttack:
        return cast(RowAttack, self.leading.attack)

    @cached_property
    def white(self) -> list[Attacked]:
        """What the gradient attacks do, each to every sample."""
        return [self._attacked(name, attack) for name, attack in self.gradient_attacks]

    @property
    def white_name(self) -> str:
        names = [name for name, _ in self.gradient_attacks]
        return names[0] if len(names) == 1 else "the gradient attacks"

    def _attacked(self, name: str, attack: Attack) -> Attacked:
        """One attack on all samples. What a model raises is kept as the reason why nothing was broken."""
        leads = isinstance(attack, CLIMBING) and name == self.leading.name
        try:
            outcome = self.run(attack, watch=self._watch if leads else None)
            verdict = self.batches.fit(
                lambda size: judge(
                    self.model,
                    outcome.images,
                    self.x,
                    self.y,
                    outcome.target,
                    self.suite.threat,
                    size,
                    self.evaluations,
                )
            )
        except Exception as error:
            if fatal(error):
                raise
            none = torch.zeros_like(self.y, dtype=torch.bool)
            return Attacked(name, attack, None, None, none, kind_and_line(error))
        success = outcome.success & verdict.success & verdict.inside & ~outcome.invalid
        return Attacked(name, attack, outcome, verdict, success)

    @cached_property
    def losses(self) -> Tensor:
        """(n, ages) the loss of `leading` at each step, of its best rank; filled while `white` runs."""
        return torch.full((len(self), self.leading_attack.queries + 1), -torch.inf, device=self.device)

    def _watch(self, rows: Rows, seen: Observation) -> None:
        """Note the largest loss of any try at each step, in `losses`."""
        live = rows.pos >= 0
        at = rows.pos[live] * self.losses.shape[1] + rows.age[live]
        self.losses.view(-1).scatter_reduce_(0, at, seen.loss[live].to(self.losses.dtype), "amax")

    @cached_property
    def success(self) -> Tensor:
        """(n,) bool: by any gradient attack of the suite."""
        return torch.stack([each.success for each in self.white]).any(0)

    @property
    def left(self) -> Tensor:
        """Positions of the samples that withstood them all."""
        return (~self.success).nonzero()[:, 0]

    def found(self, attack: Attack, **more: Any) -> Tensor:
        """(n,) bool: what withstood the gradient attacks and falls to this one."""
        found = torch.zeros_like(self.success)
        if len(self.left):
            found[self.left] = self.run(attack, self.left, **more).success
        return found


def fatal(error: Exception) -> bool:
    """Does the error end the run? Yes if the machine or the user's input caused it, not if the model raised it."""
    if isinstance(error, NoGradientError):  # of an attack of the audit's own
        return False
    return ends_the_run(error)
