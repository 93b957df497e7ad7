"""The pieces of a run's work, each with a guess of its seconds from one step that is timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from robustlab.attacks import FGSM
from robustlab.base.progress import Clock, Piece
from robustlab.base.words import rough_duration
from robustlab.data import Data
from robustlab.evaluation.cascade import CLEAN, Task
from robustlab.evaluation.judging import logits_of
from robustlab.evaluation.studies.audit import FORWARD, row_steps
from robustlab.evaluation.studies.transfer import Source

AUDIT, MATRIX, HEATMAPS = "audit", "transfer matrix", "heatmaps"
UNKNOWN = 1e-3  # seconds of a step on an image, where a model cannot be timed
_MAPS = 6  # gradient steps that the three heatmaps of an example take, with their pictures
_LOADING = 2.0  # seconds that the package takes that draws them

Chunks = Sequence[tuple[int, Tensor]]


def planned(tasks: Sequence[Task], sources: Sequence[Source], audited: Sequence[Task], chunks: Chunks) -> Clock:
    """The work in the order in which it is done. audited, chunks: the share of this process."""
    pieces: list[Piece] = []
    done, audits, step = 0, [], UNKNOWN
    for task in tasks:
        step, left = _timed(task)
        for number, where in chunks:
            for attack, eps, unit, steps in _units(task, left):
                if task.run.has_unit(task.name, attack, eps, number):
                    done += 1
                    continue
                name = f"{task.name}: {unit}"
                pieces.append(Piece((task.name, number, unit), name, (task.name, unit), step * steps * len(where)))
        if task in audited and task.options.audit:
            rows = min(task.options.audit, len(task.data))
            name = f"{AUDIT} of {task.name}"
            # of a transfer attack only what looks at the model is audited
            steps = row_steps(task.suite) if task.surrogate is None else 2.0
            audits.append(Piece((AUDIT, task.name), name, AUDIT, step * steps * rows))
    for number, where in chunks:
        for source in sources:
            steps = source.suite.members[0].attack.looks + FORWARD * len(tasks)
            name, key = f"{MATRIX}: {source.model.name}", (MATRIX, source.model.name, number)
            pieces.append(Piece(key, name, MATRIX, step * steps * len(where)))
    kept = min(64 * len(tasks[0].suite.members), len(tasks[0].data)) * len(tasks)
    heatmaps = Piece(HEATMAPS, HEATMAPS, HEATMAPS, step * _MAPS * kept + _LOADING)
    return Clock([*pieces, *audits, heatmaps], before=done)


def announced(tasks: Sequence[Task], data: Data, clock: Clock) -> str:
    """What will be done, and a guess of how long it takes."""
    suite = tasks[0].suite
    return (
        f"{len(data)} images of {data.name}, {len(tasks)} model{'s' * (len(tasks) > 1)}, {suite.threat.norm} eps"
        f" {suite.eps_typed}: {', '.join(m.name for m in suite.members)}. A guess: up to about"
        f" {rough_duration(clock.left())}, less where models fall early."
    )


def _units(task: Task, left: float) -> Iterator[tuple[str, float, str, float]]:
    """(attack, eps, what people are told, gradient steps for an image) of the units of a chunk, in their order.

    left: the share of the images that one step of FGSM leaves. What sees only these may see fewer, and what succeeds
    early takes fewer steps: this is the most that can be said before.
    """
    suite = task.suite
    yield CLEAN, 0.0, CLEAN, FORWARD * task.evaluations
    costs = {m.name: m.attack.looks * (1 if m.attack.needs == "gradient" else FORWARD) for m in suite.members}
    for at, member in enumerate(suite.members):
        everyone = at == 0 or task.unbounded(member) or task.options.full
        yield member.name, suite.threat.eps, member.name, costs[member.name] * (1.0 if everyone else left)
    name = suite.curve_member.name
    for eps in task.sweep:
        share = left if eps > suite.threat.eps else 1.0
        yield name, eps, f"{name} at {eps:.4g}", costs[name] * share


def _timed(task: Task) -> tuple[float, float]:
    """Seconds of a gradient step on one image, and the share of the images that one step of FGSM leaves."""
    threat, size = task.suite.threat, task.batches.size
    once = FGSM(norm=threat.norm, eps=threat.eps) if threat.norm in FGSM.norms else FGSM()
    x = task.data.images[:size].to(task.device)
    try:
        search = task.search if task.surrogate is None else None
        y = logits_of(task.crafted_on, x, size).argmax(1)
        for part in (8, size):  # the first call only warms up
            start = time.perf_counter()
            success = once.run(task.crafted_on, x[:part], y[:part], search=search, batch_size=part).success
            _wait(task.device)
            seconds = time.perf_counter() - start
    except Exception:  # the run itself will meet it and say so, sample by sample
        return UNKNOWN, 1.0
    cascaded = task.surrogate is None and not threat.targeted
    return seconds / len(x), 1 - success.double().mean().item() if cascaded else 1.0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
