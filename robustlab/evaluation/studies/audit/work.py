"""The audit of a run: which samples, which checks, and what is stored of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from robustlab.attacks.suite import Suite
from robustlab.base.words import kind_and_line
from robustlab.evaluation.cascade import CLEAN, Task
from robustlab.evaluation.processes import World
from robustlab.evaluation.studies.audit import comparisons, gradients, outputs, points
from robustlab.evaluation.studies.audit.check import Check
from robustlab.evaluation.studies.audit.choosing import rows_of, subject_of, which
from robustlab.evaluation.studies.audit.finding import TOLERATED, Finding, not_run
from robustlab.evaluation.studies.audit.rows import with_rows
from robustlab.evaluation.studies.audit.subject import Subject, fatal
from robustlab.oracle import forked
from robustlab.runs.aggregates import Line
from robustlab.threat.model import BUDGET_NORMS

Json = dict[str, Any]

# in the order of the page: the model, the search, its rivals, its points
CHECKS: tuple[Check, ...] = (*outputs.CHECKS, *gradients.CHECKS, *comparisons.CHECKS, *points.CHECKS)
_OWN = {each.name for each in comparisons.CHECKS} | {"converged"}  # with attacks of the audit's own
FAILED = "The model failed: "
_ATTACKS = {each.name for each in points.CHECKS} | _OWN | {"confidence"}


FORWARD = 0.4  # of a gradient step: what a forward pass alone costs


def row_steps(suite: Suite) -> float:
    """Gradient steps that the audit of one sample costs at most.

    Without the suite's score-based attacks, which run only where Square breaks what gradients left.
    """
    members = [m.attack for m in suite.members if m.attack.needs == "gradient"]
    leading = max((attack.steps * attack.eot for attack in members), default=20)
    own = leading * (3 + comparisons.RESTARTS) + comparisons.TRANSFER_STEPS
    return sum(attack.looks for attack in members) + own + FORWARD * (comparisons.QUERIES + comparisons.DRAWS)


def audit(
    tasks: Sequence[Task], world: World, told: Callable[[str], None], done: Callable[[str], None] = lambda name: None
) -> None:
    """Audit the models of a run whose units are all done, those that are not audited yet; each process its share.

    done: is told the model that was audited.
    """
    for task in world.share(tasks):
        name = _part(task)
        if task.options.audit and task.run.part(name) is None:
            task.run.write_part(name, _audited(task, tasks, told))
        done(task.name)


def collected(tasks: Sequence[Task], told: Callable[[str], None]) -> Json:
    """run.json's `audit`, for each model what was stored, and `times` with that of the audit. Says what is amiss."""
    found, seconds = {}, 0.0
    for task in tasks:
        record = task.run.part(_part(task))
        if record is None:
            continue
        seconds += record.pop("seconds")
        found[task.name] = record
        for check in record["checks"]:
            if check["status"] in ("warn", "fail"):
                told(f"Warning: {task.name}, audit, {check['name']} ({check['status']}): {check['measured']}")
    return {"audit": found, "times": tasks[0].run.info["times"] | ({"audit": seconds} if found else {})}


def _part(task: Task) -> str:
    return f"audit--{task.name}"


def _audited(task: Task, tasks: Sequence[Task], told: Callable[[str], None]) -> Json:
    start = time.perf_counter()
    subject = _subject(task, tasks)
    told(f"{task.name}: auditing the attack on {len(subject)} images that were classified right.")
    record = record_of(subject, CHECKS, task.name, task.options.audit)
    return record | {"seconds": time.perf_counter() - start}


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
        return not_run(f"{FAILED}{kind_and_line(error)}.")


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
