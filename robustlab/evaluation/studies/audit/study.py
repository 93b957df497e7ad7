"""The audit of a run: which samples, which checks, and what is stored of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustlab.attacks.suite import Suite
from robustlab.base.words import kind_and_line
from robustlab.evaluation.cascade import Task
from robustlab.evaluation.estimate import FORWARD
from robustlab.evaluation.studies.audit import active, comparisons, gradients, outputs, points
from robustlab.evaluation.studies.audit.check import Check
from robustlab.evaluation.studies.audit.choosing import rows_of, subject_of, which
from robustlab.evaluation.studies.audit.finding import TOLERATED, Finding, not_run
from robustlab.evaluation.studies.audit.rows import with_rows
from robustlab.evaluation.studies.audit.subject import Subject, fatal
from robustlab.evaluation.studies.base import Job, Study
from robustlab.oracle import forked
from robustlab.runs.aggregates import CLEAN, Line
from robustlab.threat.model import BUDGET_NORMS

Json = dict[str, Any]

# in the order of the page: the model, the search, its rivals, its points, and a test of the whole
CHECKS: tuple[Check, ...] = (
    *outputs.CHECKS,
    *gradients.CHECKS,
    *comparisons.CHECKS,
    *points.CHECKS,
    *active.CHECKS,
)
_OWN = {each.name for each in comparisons.CHECKS} | {"converged", "active"}  # with attacks, or draws, of its own
_ATTACKS = {each.name for each in points.CHECKS} | _OWN | {"confidence"}


class Audit(Study[Job]):
    """Each attacked model is audited on samples that it classifies right. A part is a model."""

    name = "audit"

    def parts(self) -> Sequence[str]:
        return [task.name for task in self.job.tasks] if self.job.plan.options.audit else []

    def seconds(self, part: str) -> float:
        task = self._task(part)
        # of a transfer attack only what looks at the model is audited
        n = min(task.options.audit, len(task.data))
        some = min(n, active.SAMPLES) * (FORWARD * active.PASSES + active.STEPS)
        steps = n * row_steps(task.suite) + some if task.surrogate is None else 2.0 * n
        return self.job.timings[part].step * steps

    def work(self, part: str) -> Json:
        task = self._task(part)
        subject = _subject(task, self.job.tasks)
        self.job.listener.say(f"{part}: auditing the attack on {len(subject)} images that were classified right.")
        return record_of(subject, CHECKS, part, task.options.audit)

    def fields(self, done: Mapping[str, Json]) -> Json:
        for name, record in done.items():
            for check in record["checks"]:
                if check["status"] in ("warn", "fail"):
                    where = f"{name}, audit, {check['name']} ({check['status']})"
                    self.job.listener.warn(f"{where}: {check['measured']}")
        return {"audit": dict(done)}

    def _task(self, part: str) -> Task:
        return next(task for task in self.job.tasks if task.name == part)


def row_steps(suite: Suite) -> float:
    """Gradient steps that the audit of one sample costs at most.

    Without the suite's score-based attacks, which run only where Square breaks what gradients left.
    """
    members = [m.attack for m in suite.members if m.attack.needs == "gradient"]
    leading = max((attack.steps * attack.eot for attack in members), default=20)
    own = leading * (3 + comparisons.RESTARTS) + comparisons.TRANSFER_STEPS
    return sum(attack.looks for attack in members) + own + FORWARD * (comparisons.QUERIES + comparisons.DRAWS)


def record_of(subject: Subject, checks: Sequence[Check], name: str, asked: int) -> Json:
    """What run.json says of the audit of a model. name: of the model, whose draws follow from it."""
    with forked(subject.device, subject.seed, "audit", name):
        found = [_described(check, _asked(check, subject)) for check in checks]
    return {**which(subject), "asked": asked, "tolerated": TOLERATED, "checks": found}


def _described(check: Check, finding: Finding) -> Json:
    return {
        "name": check.name,
        "title": check.title,
        "status": finding.status,
        "measured": finding.measured,
        "numbers": finding.numbers,
        "advice": finding.advice or check.advice,
        "source": check.source,
    }


def _asked(check: Check, subject: Subject) -> Finding:
    if (reason := not_asked(check, subject)) is not None:
        return not_run(reason)
    try:
        return with_rows(check.name, check.ask(subject), subject.ran)
    except Exception as error:  # a model raises what it likes, and the run's numbers stand without this one
        if fatal(error):
            raise
        reason = kind_and_line(error)
        return Finding("not run", f"The model failed: {reason}.", {"error": reason})


def not_asked(check: Check, subject: Subject) -> str | None:
    """Why a check cannot be asked of this subject, if it cannot."""
    if not len(subject) and check.name not in ("clean", "normalisation"):
        return "No image was classified right."
    if check.name in _ATTACKS and subject.suite.threat.eps == 0:
        return "The budget is 0: there is no attack to audit."
    if check.name in _OWN and subject.suite.threat.norm not in BUDGET_NORMS:
        return f"The audit has no attack of its own in {subject.suite.threat.norm}."
    if check.name in _ATTACKS and subject.elsewhere:
        return "The suite crafts its images on other models; only an attack on the model itself is audited."
    return None


def _subject(task: Task, tasks: Sequence[Task]) -> Subject:
    """What is audited of a model whose units are all done."""

    def lines(attack: str, eps: float) -> list[Line]:
        return [line for number, _ in task.chunks() for line in task.run.unit_lines(task.name, attack, eps, number)]

    return subject_of(
        task.model,
        lines(CLEAN, 0.0),
        task.data,
        task.suite,
        rows_of(task.suite, task.sweep, lines, full=task.options.full),
        asked=task.options.audit,
        seed=task.options.seed,
        outputs=task.outputs,
        device=task.device,
        batches=task.batches,
        search=task.search,
        others=[(other.name, other.model) for other in tasks if other is not task],
        own_labels=task.options.labels == "predicted",
        elsewhere=task.surrogate is not None,
        evaluations=task.evaluations,
    )
