"""The suite as a study: the clean pass, the cascade and the sweep of the security curve, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from robustlab.base.progress import Piece
from robustlab.evaluation.cascade import Task, evaluate_chunk
from robustlab.evaluation.estimate import FORWARD
from robustlab.evaluation.neighbour import at_each_budget
from robustlab.evaluation.studies.base import Job, Study
from robustlab.runs.aggregates import CLEAN


class SuiteStudy(Study[Job]):
    """A part is a chunk of one model. It is stored unit by unit, each of which is finished or not."""

    name = "suite"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._parts: dict[str, tuple[Task, int, Tensor]] = {
            f"{task.name} {number}": (task, number, where) for task in job.tasks for number, where in task.chunks()
        }

    def parts(self) -> Sequence[str]:
        return list(self._parts)

    def work(self, part: str) -> None:
        task, number, where = self._parts[part]
        for unit in evaluate_chunk(task, number, where):
            self.job.finished((task.name, number, unit), f"{task.name}: {unit}")

    def pieces(self, part: str) -> list[Piece]:
        task, number, where = self._parts[part]
        timing = self.job.timings[task.name]
        return [
            Piece(
                key=(task.name, number, unit),
                name=f"{task.name}: {unit}",
                kind=(task.name, unit),
                seconds=timing.step * steps * len(where),
                done=task.run.has_unit(task.name, attack, eps, number),
            )
            for attack, eps, unit, steps in _units(task, timing.left)
        ]


def _units(task: Task, left: float) -> Iterator[tuple[str, float, str, float]]:
    """(attack, eps, what people are told, gradient steps for an image) of the units of a chunk, in their order.

    left: the share of the images that one step of FGSM leaves. What sees only these may see fewer, and what succeeds
    early takes fewer steps: this is the most that can be said before.
    """
    suite = task.suite
    yield CLEAN, 0.0, CLEAN, FORWARD * task.evaluations
    costs = {m.name: m.attack.likely_looks * (1 if m.attack.needs == "gradient" else FORWARD) for m in suite.members}
    for at, member in enumerate(suite.members):
        everyone = at == 0 or task.unbounded(member) or task.options.full
        yield member.name, suite.threat.eps, member.name, costs[member.name] * (1.0 if everyone else left)
    for member in task.unaware:
        yield member.name, suite.threat.eps, member.name, member.attack.queries + FORWARD * task.evaluations
    swept = suite.curve_member
    each = at_each_budget(swept.attack)
    cost = costs[swept.name] * each.likely_looks / swept.attack.likely_looks
    short = each is not swept.attack  # below eps they see what fell, others see everything
    for eps in task.sweep:
        seen = left if eps > suite.threat.eps else 1 - left if short else 1.0
        yield swept.name, eps, f"{swept.name} at {eps:.4g}", cost * seen
