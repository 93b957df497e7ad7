"""The main job: classifiers x data x suite -> a run folder."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from robustlab.attacks.suite import Suite
from robustlab.attacks.wrapped import Wrapped
from robustlab.base.environment import resolve_device
from robustlab.base.errors import RunError, UserError, did_you_mean
from robustlab.base.files import default_folder, give_back, settled
from robustlab.base.lazy import locate
from robustlab.base.processes import World
from robustlab.base.words import counted, rough_duration
from robustlab.evaluation.cascade import Task
from robustlab.evaluation.detecting import check_detectors
from robustlab.evaluation.engine import clock_of, do
from robustlab.evaluation.estimate import timed
from robustlab.evaluation.inputs import home_of
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.options import Options
from robustlab.evaluation.plan import Plan, settle
from robustlab.evaluation.randomised import long_run
from robustlab.evaluation.record import about, configuration, data_lines
from robustlab.evaluation.studies import STUDIES
from robustlab.evaluation.studies.base import Job, Study
from robustlab.runs import Run, StoredRun, read_run


def evaluate(
    models: Any,
    data: Any = "road-signs",
    suite: Suite | str | Sequence[str | Wrapped] | None = None,
    *,
    surrogate: Any = None,
    defense: Any = None,
    limit: int | None = 500,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    listener: Listener | None = None,
    studies: Sequence[type[Study[Job]]] = (),
    **options: Any,
) -> StoredRun:
    """Attack one or several classifiers and write everything that was found into a run folder.

    models: a zoo name, a module, or a list of these, or a mapping from names to modules; images in [0, 1] -> logits.
    data: a name (its test split, the first `limit`), a `Data`, a pair (images (N, C, H, W) in [0, 1], labels (N,)) of
    tensors, arrays or lists, or a torch Dataset or DataLoader of such pairs, all of which is read into memory.
    suite: a card's name or path, a `Suite`, or a list of attacks: texts ("pgd:steps=50"), and objects of foolbox and
    torchattacks (see `robustlab.attacks.wrap`). surrogate: as models; the images are crafted on these alone, on the
    mean of their logits if there are several, and the attacked models are shown the finished ones. defense:
    preprocessing, by name ("jpeg:quality=50"), as a card or a `Defense`, or several: each model is attacked bare and
    behind each, there by the suite and by images that the suite crafts on the bare model. output: the run folder,
    default reports/DATA-DATE-TIME. studies: more questions to ask, of your own. options: the fields of `Options`.
    Raises UserError for bad input, RunError where a model failed on some samples.

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
        plan = settle(models, data, suite, surrogate, defense, limit, chosen, device, listener, left_as_found)
        check_detectors(plan)
        if output is None:
            folder = world.agree(default_folder(plan.data.name) if world.first else Path())
            left_as_found.callback(give_back, folder)
        else:
            folder = settled(Path(output))
        config = configuration(plan) | ({"studies": [study.name for study in studies]} if studies else {})
        if world.agree(config) != config:
            raise UserError("The processes of this run were started with different configurations.")
        facts = about(plan) | {"name": folder.name, "command": command}
        facts["operational"] = {"device": str(device), "batch_size": plan.batch_size, "processes": world.size}
        if world.first:  # makes the folder and holds its lock, the others write their units beside it
            lines, say = data_lines(plan.data), listener.say
            run = Run.create(folder, config, lines, about=facts, resume=resume, overwrite=overwrite, say=say)
        world.wait()
        with run if world.first else Run.beside(folder) as run:
            plan.search_as_recorded(run.info)
            if not run.finished:
                _evaluate(plan, run, world, listener, studies)
    stored = read_run(folder)
    failed = sum(line.error is not None for line in stored.lines)
    if failed:
        raise RunError(
            f"{failed} attacked samples ended in an error of the model and count as not robust; the first:"
            f" {next(line.error for line in stored.lines if line.error)}. See samples.jsonl in {folder}."
        )
    return stored


def _evaluate(plan: Plan, run: Run, world: World, listener: Listener, own: Sequence[type[Study[Job]]]) -> None:
    """All studies, and what comes of them in run.json."""
    tasks = plan.tasks(run, listener.say)

    def finished(key: Hashable, name: str) -> None:
        if clock.finish(key):
            listener.advance(clock.done, clock.total, name)

    job = Job(plan, run, tasks, {task.name: timed(task) for task in tasks}, listener, finished)
    studies = [*(locate(path)(job) for path in STUDIES), *(kind(job) for kind in own)]
    clock = clock_of(studies, world)
    _announce(plan, tasks, clock.left(), listener)
    with listener.watch(clock, listener.say):
        sections, fields = do(studies, world)
        if world.first:
            run.finish(sections=sections, fields=fields)
        world.wait()


def _announce(plan: Plan, tasks: Sequence[Task], seconds: float, listener: Listener) -> None:
    """What will be done, and a guess of how long it takes."""
    suite, noisy = tasks[0].suite, [task for task in tasks if task.evaluations > 1]
    listener.say(
        f"{len(plan.data)} images of {plan.data.name}, {counted(len(tasks), 'model')}, {suite.threat.norm} eps"
        f" {suite.eps_typed}: {', '.join(m.name for m in suite.members)}. A guess: up to about"
        f" {rough_duration(seconds)}, less where models fall early."
    )
    if advice := long_run(noisy[0].suite if noisy else plan.suite, [task.name for task in noisy], seconds):
        listener.say(advice)
