"""The main job: classifiers x data x suite -> a run folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustlab.attacks import FGSM
from robustlab.attacks.suite import Suite
from robustlab.audit import FORWARD, audit, collected, row_steps
from robustlab.cascade import Task, evaluate_chunk
from robustlab.data import Data
from robustlab.distributed import World
from robustlab.environment import resolve_device
from robustlab.errors import RunError, UserError
from robustlab.explain.kept import explain_kept
from robustlab.files import default_folder
from robustlab.intake import home_of
from robustlab.judging import logits_of
from robustlab.options import Options
from robustlab.plan import Plan, settle
from robustlab.provenance import data_lines
from robustlab.randomised import long_run
from robustlab.runs import Run, StoredRun, read_run
from robustlab.transfer import Source, matrix_chunk, matrix_section


@dataclass(frozen=True)
class Listener:
    """Who is told what happens: `say` gets sentences, `advance` gets (units done, units in all, what was done)."""

    say: Callable[[str], None] = field(default=lambda text: print(text, file=sys.stderr))
    advance: Callable[[int, int, str], None] = field(default=lambda done, total, text: None)


def evaluate(
    models: Any,
    data: Data | str | tuple[Tensor, Tensor] = "road-signs",
    suite: Suite | str | None = None,
    *,
    surrogate: Any = None,
    limit: int | None = 500,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    listener: Listener | None = None,
    **options: Any,
) -> StoredRun:
    """Attack one or several classifiers and write everything that was found into a run folder.

    models: a zoo name, a module, or a list of these, or a mapping from names to modules; images in [0, 1] -> logits.
    data: a name (its test split, the first `limit`), a `Data`, or a pair (images (N, C, H, W) in [0, 1], labels (N,)).
    suite: a card's name or path, or a `Suite`. surrogate: as models; the images are crafted on these alone, on the mean
    of their logits if there are several, and the attacked models are shown the finished ones. output: the run folder,
    default reports/DATA-DATE-TIME. options: the fields of `Options`. Raises UserError for bad input, RunError where
    a model failed on some samples.

    >>> import tempfile
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> images, labels = torch.rand(8, 3, 2, 2), torch.zeros(8, dtype=torch.long)
    >>> quiet = Listener(say=lambda text: None)
    >>> run = evaluate({"net": net}, (images, labels), "fgsm", output=tempfile.mkdtemp() + "/run", listener=quiet)
    >>> run.info["aggregates"]["models"][0]["clean_accuracy"]["n"]
    8
    """
    listener = listener or Listener()
    chosen = Options(**options)
    world = World.join()
    if not world.first:
        listener = Listener(say=lambda text: None)
    device = world.device(resolve_device(chosen.device) if chosen.device != "auto" else home_of(models))
    with ExitStack() as left_as_found:
        plan = settle(models, data, suite, surrogate, limit, chosen, device, listener.say, left_as_found)
        folder = Path(output) if output is not None else world.agree(default_folder(plan.data.name))
        config = plan.config()
        if world.agree(config) != config:
            raise UserError("The processes of this run were started with different configurations.")
        facts = plan.facts() | {"name": folder.name, "command": command}
        facts["operational"] = {"device": str(device), "batch_size": plan.batch_size, "processes": world.size}
        lines = lambda: data_lines(plan.data)  # noqa: E731, only the first process needs them
        with world.open(folder, config, facts, lines, resume=resume, overwrite=overwrite) as run:
            plan.search_as_recorded(run.info)
            if not run.finished:
                _evaluate(plan, run, world, listener)
    stored = read_run(folder)
    failed = sum(line.error is not None for line in stored.lines)
    if failed:
        raise RunError(
            f"{failed} attacked samples ended in an error of the model and count as not robust; the first:"
            f" {next(line.error for line in stored.lines if line.error)}. See samples.jsonl in {folder}."
        )
    return stored


def _evaluate(plan: Plan, run: Run, world: World, listener: Listener) -> None:
    """All units, the audit, and what follows from them; processes meet where one needs what the others have written."""
    tasks, sources = plan.tasks(run, listener.say), plan.sources()
    text, seconds = _estimate(tasks, len(sources), plan.data, plan.device)
    listener.say(text)
    noisy = [task for task in tasks if task.evaluations > 1]
    if advice := long_run(noisy[0].suite if noisy else plan.suite, [task.name for task in noisy], seconds):
        listener.say(advice)
    _work(tasks, sources, world, listener)
    world.wait()
    audit(tasks, world, listener.say)
    world.wait()
    if world.first:
        run.update(**collected(tasks, listener.say))
        explained = [(party.model, party.batches) for party in plan.attacked]
        run.finish(
            sections=[matrix_section(tasks, sources)] if sources else [],
            explain=partial(explain_kept, run, explained, plan.data, plan.device, listener.say),
        )
    world.wait()


def _work(tasks: Sequence[Task], sources: Sequence[Source], world: World, listener: Listener) -> None:
    """The units of all tasks, and the rows of the transfer matrix."""
    chunks = world.share(tasks[0].chunks())
    total = (sum(task.unit_count() for task in tasks) + len(sources)) * len(chunks)
    done = 0
    for task in tasks:
        for number, where in chunks:
            for unit in evaluate_chunk(task, number, where):
                done += 1
                listener.advance(done, total, f"{task.name}: {unit}")
    for number, where in chunks:
        for name in matrix_chunk(tasks, sources, number, where):
            done += 1
            listener.advance(done, total, f"transfer matrix: {name}")


def _estimate(tasks: Sequence[Task], rows: int, data: Data, device: torch.device) -> tuple[str, float]:
    """What will be done, and the seconds at most: row-steps of what a step of FGSM leaves, times a timed one.

    rows: of the transfer matrix.
    """
    suite = tasks[0].suite
    text = (
        f"{len(data)} images of {data.name}, {len(tasks)} model{'s' * (len(tasks) > 1)}, {suite.threat.norm} eps"
        f" {suite.eps_typed}: {', '.join(m.name for m in suite.members)}."
    )
    threat = suite.threat
    once = FGSM(norm=threat.norm, eps=threat.eps) if threat.norm in FGSM.norms else FGSM()
    seconds = 0.0
    for task in tasks:
        size = task.batches.size
        x = data.images[:size].to(device)
        try:
            search = task.search if task.surrogate is None else None
            y = logits_of(task.crafted_on, x, size).argmax(1)
            for part in (8, size):  # the first call only warms up
                start = time.perf_counter()
                fallen = once.run(task.crafted_on, x[:part], y[:part], search=search, batch_size=part).success
        except Exception:  # the run itself will meet it and say so, sample by sample
            return text, 0.0
        row_step = (time.perf_counter() - start) / len(x)
        cascaded = task.surrogate is None and not threat.targeted and not task.options.full
        left = 1 - fallen.double().mean().item() if cascaded else 1.0
        costs = {m.name: m.attack.looks * (1 if m.attack.needs == "gradient" else FORWARD) for m in task.suite.members}
        all_see = {m.name for i, m in enumerate(task.suite.members) if i == 0 or task.unbounded(m)}
        steps = sum(cost * (1 if name in all_see else left) for name, cost in costs.items())
        steps += costs[suite.curve_member.name] * len(task.sweep)
        steps += costs[suite.members[0].name] * rows / len(tasks)
        steps += row_steps(task.suite) * min(task.options.audit, len(data)) / len(data)
        seconds += row_step * steps * len(data)
    return f"{text} At most about {max(1, round(seconds))} s, less where models fall early.", seconds
