"""The audit of a run: which samples, which checks, and what is stored of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from robustlab.attacks.suite import Suite
from robustlab.audit import comparisons, gradients, outputs, points
from robustlab.audit.finding import TOLERATED, Check, Finding, not_run
from robustlab.audit.subject import CleanPass, Subject, fatal
from robustlab.cascade import CLEAN, Task, class_names, in_words, targets_of
from robustlab.data import Loaded
from robustlab.distributed import World
from robustlab.draws import keys
from robustlab.oracle import forked
from robustlab.threat import BUDGET_NORMS

Json = dict[str, Any]

# in the order of the page: the model, the search, its rivals, its points
CHECKS: tuple[Check, ...] = (*outputs.CHECKS, *gradients.CHECKS, *comparisons.CHECKS, *points.CHECKS)
SAMPLES = 128  # for what looks at samples whatever the model answers
_OWN = {each.name for each in comparisons.CHECKS} | {"converged"}  # with attacks of the audit's own
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
    checks = []
    with forked(subject.device, task.options.seed, "audit", task.name):
        for check in CHECKS:
            finding = _asked(check, subject)
            checks.append(
                {
                    "name": check.name,
                    "title": check.title,
                    "status": finding.status,
                    "measured": finding.measured,
                    "numbers": finding.numbers,
                    "advice": finding.advice or check.advice,
                    "source": check.source,
                }
            )
    return {
        "n": len(subject),
        "asked": task.options.audit,
        "tolerated": TOLERATED,
        "ids": hashlib.sha256(subject.ids.cpu().numpy().tobytes()).hexdigest()[:16],
        "checks": checks,
        "seconds": time.perf_counter() - start,
    }


def _asked(check: Check, subject: Subject) -> Finding:
    if not len(subject) and check.name not in ("clean", "normalisation"):
        return not_run("No image was classified right.")
    if check.name in _ATTACKS and subject.suite.threat.eps == 0:
        return not_run("The budget is 0: there is no attack to audit.")
    if check.name in _OWN and subject.suite.threat.norm not in BUDGET_NORMS:
        return not_run(f"The audit has no attack of its own in {subject.suite.threat.norm}.")
    if check.name in _ATTACKS and subject.elsewhere:
        return not_run("The suite crafts its images on other models; only an attack on the model itself is audited.")
    try:
        return check.ask(subject)
    except Exception as error:  # a model raises what it likes, and the run's numbers stand without this one
        if fatal(error):
            raise
        return not_run(f"The model failed: {in_words(error)}.")


def _subject(task: Task, tasks: Sequence[Task]) -> Subject:
    """The samples with the smallest keyed draws among those that the clean pass found right."""
    lines = [line for number, _ in task.chunks() for line in task.run.unit_lines(task.name, CLEAN, 0.0, number)]
    right = {line.id: line.label for line in lines if line.error is None and line.clean == line.label}
    chosen = _smallest(task, torch.tensor(sorted(right), dtype=torch.int64), task.options.audit, "audit")
    x, ids = _loaded(task, chosen).images.to(task.device), chosen.to(task.device)
    y = torch.tensor([right[id] for id in chosen.tolist()], dtype=torch.int64, device=task.device)
    threat, names = task.suite.threat, class_names(task.data, task.outputs)
    targets = None
    if len(chosen):
        targets = task.batches.fit(
            lambda size: targets_of(task.model, threat, x, y, ids, names, seed=task.options.seed, batch_size=size)
        )
    return Subject(
        model=task.model,
        search=task.search,
        suite=task.suite,
        x=x,
        y=y,
        ids=ids,
        targets=targets,
        classes=task.outputs,
        others=[(other.name, other.model) for other in tasks if other is not task],
        clean=CleanPass(
            n=len(lines),
            right=len(right),
            wrong=tuple(line.confidence or 0.0 for line in lines if line.id not in right and line.error is None),
        ),
        some=_loaded(task, _smallest(task, task.data.ids, SAMPLES, "audit, any")),
        own_labels=task.options.labels == "predicted",
        elsewhere=task.surrogate is not None,
        evaluations=task.evaluations,
        seed=task.options.seed,
        batches=task.batches,
    )


def _loaded(task: Task, ids: Tensor) -> Loaded:
    place = {id: i for i, id in enumerate(task.data.ids.tolist())}
    return task.data.take(torch.tensor([place[id] for id in ids.tolist()], dtype=torch.int64)).loaded()


def _smallest(task: Task, ids: Tensor, count: int, purpose: str) -> Tensor:
    """The `count` ids with the smallest keyed draws, in order."""
    order = keys(task.options.seed, ids, purpose).argsort()
    return ids[order[:count]].sort().values
