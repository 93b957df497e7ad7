"""What the run's own lines say to the questions of the audit; they are of many more samples than those audited."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from robustlab.attacks.base import Attack
from robustlab.attacks.suite import Suite
from robustlab.base.intervals import share
from robustlab.evaluation.studies.audit.finding import Finding, Status, worst
from robustlab.runs.aggregates import Line

IN = 100  # more than one in so many is too many


class Rival(NamedTuple):
    """An attack, or a try of it, that met n samples which others had left, and broke k of them."""

    name: str
    others: str
    k: int
    n: int

    @property
    def many(self) -> bool:
        """More than one in a hundred; a single one is no evidence."""
        return self.k > 1 and IN * self.k > self.n

    def __str__(self) -> str:
        return f"{self.name} broke {self.k:,} of the {self.n:,} that {self.others} had left"


@dataclass(frozen=True)
class Ran:
    """The lines of one model.

    lines: of each attack of the suite, at the suite's budget. below: ids that fell at a smaller one. full: every attack
    saw every sample, not only what those before it had left.
    """

    suite: Suite
    lines: Mapping[str, Sequence[Line]]
    below: frozenset[int] = frozenset()
    full: bool = False

    def score_based(self) -> list[Rival]:
        """Attacks without gradients against those with."""
        return self._rivals(lambda a: a.needs != "gradient", lambda a: a.needs == "gradient")

    def on_distance(self) -> list[Rival]:
        """Attacks on the distance against those that climb a loss inside the budget."""
        return self._rivals(
            lambda a: a.needs == "gradient" and a.keep == "smallest",
            lambda a: a.needs == "gradient" and a.keep != "smallest",
        )

    def one_step(self) -> list[Rival]:
        """Attacks of one step against those of several."""
        return self._rivals(
            lambda a: a.needs == "gradient" and a.steps == 1, lambda a: a.needs == "gradient" and a.steps > 1
        )

    def last_restarts(self) -> list[Rival]:
        """The last random start of each attack against its others; where it found much, one more would, too."""
        found = []
        for member in self.suite.members:
            tries = getattr(member.attack, "restarts", 1)
            every = getattr(member.attack, "share", 1) == 1  # else not every sample took the last one
            if tries > 1 and every and not member.attack.aims:
                tried = [line for line in self.lines[member.name] if line.error is None]
                ranks = [line.rank or 0 for line in tried if line.succeeded]
                before = sum(rank < tries - 1 for rank in ranks)
                name = f"the last random start of {member.name}"
                found.append(Rival(name, "those before", len(ranks) - before, len(tried) - before))
        return [rival for rival in found if rival.n]

    def succeeded_below(self) -> list[Rival]:
        """What fell at a smaller budget, and is robust at this one: an adversarial inside the budget is known."""
        every = [line for lines in self.lines.values() for line in lines]
        robust = {line.id for line in every} - {line.id for line in every if line.succeeded or line.error is not None}
        known = len(self.below & robust)
        return [Rival("the curve's attack at a smaller budget", "the suite", known, len(robust))] if known else []

    def unconfirmed(self) -> int:
        """Successes that the model did not confirm when they were judged."""
        return sum(line.success and not line.succeeded for lines in self.lines.values() for line in lines)

    def _rivals(self, these: Callable[[Attack], bool], those: Callable[[Attack], bool]) -> list[Rival]:
        """Each of these against all of those that saw the samples before it; in a full run all saw all."""
        found, members = [], self.suite.members
        for at, member in enumerate(members):
            others = [m.name for m in (members if self.full else members[:at]) if m is not member and those(m.attack)]
            if not these(member.attack) or not others:
                continue
            met = self._tried(member.name).intersection(*map(self._tried, others))
            left = met.difference(*map(self._successes, others))
            said = others[0] if len(others) == 1 else "the gradient attacks"
            if left:
                found.append(Rival(member.name, said, len(left & self._successes(member.name)), len(left)))
        return found

    def _tried(self, name: str) -> set[int]:
        return {line.id for line in self.lines[name] if line.error is None}

    def _successes(self, name: str) -> set[int]:
        return {line.id for line in self.lines[name] if line.succeeded}


# of each check that rows have something to say to: what they say, and how grave many are
Question = tuple[Callable[[Ran], list[Rival]], Status]
QUESTIONS: dict[str, tuple[Question, ...]] = {
    "black-box": ((Ran.score_based, "fail"),),
    "converged": ((Ran.on_distance, "warn"), (Ran.succeeded_below, "fail")),
    "one-step": ((Ran.one_step, "fail"),),
    "restarts": ((Ran.last_restarts, "warn"),),
}


def with_rows(check: str, finding: Finding, ran: Ran) -> Finding:
    """What a check found on the audited samples, and beside it what the run's own rows say to the same question."""
    for ask, many in QUESTIONS.get(check, ()):
        finding = _beside(finding, ask(ran), many)
    return finding


def _beside(finding: Finding, rivals: Sequence[Rival], many: Status) -> Finding:
    """many: the status where a rival broke more than one in a hundred; fewer are a warning where many are a failure."""
    if not rivals:
        return finding
    few: Status = "warn" if many == "fail" else "pass"
    statuses = [many if rival.many else few if rival.k else "pass" for rival in rivals]
    quiet = finding.status == "not run" and set(statuses) == {"pass"}
    shares = finding.numbers.get("run", {}) | {rival.name: share(rival.k, rival.n) for rival in rivals}
    return replace(
        finding,
        status=finding.status if quiet else worst(finding.status, *statuses),
        measured=f"{finding.measured} In the run itself {', '.join(map(str, rivals))}.",
        numbers=finding.numbers | {"run": shares},
    )
