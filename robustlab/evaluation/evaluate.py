"""The main job: classifiers x data x suite -> a run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from robustlab.attacks.suite import Suite
from robustlab.base.environment import resolve_device
from robustlab.base.errors import RunError, UserError, did_you_mean
from robustlab.base.files import default_folder, give_back, settled
from robustlab.base.progress import Clock, every_minute
from robustlab.base.words import visible
from robustlab.evaluation.cascade import evaluate_chunk
from robustlab.evaluation.estimate import AUDIT, HEATMAPS, MATRIX, announced, planned
from robustlab.evaluation.inputs import home_of
from robustlab.evaluation.options import Options
from robustlab.evaluation.plan import Plan, settle
from robustlab.evaluation.processes import World
from robustlab.evaluation.randomised import long_run
from robustlab.evaluation.record import data_lines
from robustlab.evaluation.studies.audit import audit, collected
from robustlab.evaluation.studies.heatmaps import explain_kept
from robustlab.evaluation.studies.transfer import matrix_chunk, matrix_section
from robustlab.runs import Run, StoredRun, read_run


@dataclass(frozen=True)
class Listener:
    """Who is told what happens.

    say: gets sentences. advance: gets (units done, units in all, what was done). watch: shows how far the work is while
    it goes on, a line a minute unless another is given; see `robustlab.base.progress`.
    """

    say: Callable[[str], None] = field(default=lambda text: print(visible(text), file=sys.stderr))
    advance: Callable[[int, int, str], None] = field(default=lambda done, total, text: None)
    watch: Callable[[Clock, Callable[[str], None]], AbstractContextManager[None]] = every_minute


def evaluate(
    models: Any,
    data: Any = "road-signs",
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
    data: a name (its test split, the first `limit`), a `Data`, a pair (images (N, C, H, W) in [0, 1], labels (N,)) of
    tensors, arrays or lists, or a torch Dataset or DataLoader of such pairs, all of which is read into memory.
    suite: a card's name or path, or a `Suite`. surrogate: as models; the images are crafted on these alone, on the mean
    of their logits if there are several, and the attacked models are shown the finished ones. output: the run folder,
    default reports/DATA-DATE-TIME. options: the fields of `Options`. Raises UserError for bad input, RunError where
    a model failed on some samples.

    >>> import tempfile, torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> images, labels = torch.rand(8, 3, 2, 2), torch.zeros(8, dtype=torch.long)
    >>> quiet = Listener(say=lambda text: None)
    >>> run = evaluate({"net": net}, (images, labels), "fgsm", output=tempfile.mkdtemp() + "/run", listener=quiet)
    >>> run.info["aggregates"]["models"][0]["clean_accuracy"]["n"]
    8
    """
    listener = listener or Listener()
    known = [each.name for each in fields(Options)]
    for name in options:
        if name not in known:
            raise UserError(f"evaluate has no option {name!r}.{did_you_mean(name, known)} It has: {', '.join(known)}.")
    chosen = Options(**options)
    if not (output is None or isinstance(output, str | Path)):
        raise UserError(f"output is the path of a folder, got {output!r}.")
    world = World.join()
    if not world.first:
        listener = Listener(say=lambda text: None)
    device = world.device(resolve_device(chosen.device) if chosen.device != "auto" else home_of(models))
    with ExitStack() as left_as_found:
        plan = settle(models, data, suite, surrogate, limit, chosen, device, listener.say, left_as_found)
        if output is None:
            folder = world.agree(default_folder(plan.data.name) if world.first else Path())
            left_as_found.callback(give_back, folder)
        else:
            folder = settled(Path(output))
        config = plan.config()
        if world.agree(config) != config:
            raise UserError("The processes of this run were started with different configurations.")
        facts = plan.facts() | {"name": folder.name, "command": command}
        facts["operational"] = {"device": str(device), "batch_size": plan.batch_size, "processes": world.size}
        lines = lambda: data_lines(plan.data)  # noqa: E731, only the first process needs them
        with world.open(folder, config, facts, lines, resume=resume, overwrite=overwrite, say=listener.say) as run:
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
    chunks = world.share(tasks[0].chunks())
    clock = planned(tasks, sources, world.share(tasks), chunks)
    listener.say(announced(tasks, plan.data, clock))
    noisy = [task for task in tasks if task.evaluations > 1]
    if advice := long_run(noisy[0].suite if noisy else plan.suite, [task.name for task in noisy], clock.left()):
        listener.say(advice)

    def done(key: Hashable, name: str) -> None:
        clock.finish(key)
        listener.advance(clock.done, clock.total, name)

    with listener.watch(clock, listener.say):
        for task in tasks:
            for number, where in chunks:
                for unit in evaluate_chunk(task, number, where):
                    done((task.name, number, unit), f"{task.name}: {unit}")
        for number, where in chunks:
            for source in matrix_chunk(tasks, sources, number, where):
                done((MATRIX, source, number), f"{MATRIX}: {source}")
        world.wait()
        audit(tasks, world, listener.say, lambda name: done((AUDIT, name), f"{AUDIT} of {name}"))
        world.wait()
        if world.first:
            run.update(**collected(tasks, listener.say))
            explained = [(party.model, party.batches) for party in plan.attacked]
            run.finish(
                sections=[matrix_section(tasks, sources)] if sources else [],
                explain=partial(explain_kept, run, explained, plan.data, plan.device, listener.say),
            )
            done(HEATMAPS, HEATMAPS)
        world.wait()
