"""The main job: classifiers x data x suite -> a run folder."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustlab.attacks import FGSM
from robustlab.attacks.suite import Suite, load_suite
from robustlab.audit import audit, collected, row_steps
from robustlab.cascade import Task, evaluate_chunk
from robustlab.data import Data
from robustlab.data.matching import matched
from robustlab.distributed import World
from robustlab.environment import resolve_device
from robustlab.errors import RunError, UserError
from robustlab.explain.kept import explain_kept
from robustlab.files import default_folder
from robustlab.intake import (
    CHECKED,
    answer_names,
    as_data,
    check_data,
    classifiers_of,
    default_batch_size,
    default_chunk_size,
    home_of,
    named_alike,
    predictions,
    untrained,
    warnings_of,
    without_target_class,
)
from robustlab.judging import logits_of
from robustlab.memory import Batches, machine_failures
from robustlab.models.classifier import RANDOMISED, Classifier
from robustlab.models.search_copy import SearchCopy, make_search_copy
from robustlab.options import Options
from robustlab.oracle import forked, undisturbed
from robustlab.provenance import about, configuration, data_lines
from robustlab.randomised import averaged, check_targets, draws_of, in_words
from robustlab.runs import StoredRun, read_run
from robustlab.threat import ThreatModel, diameter, parse_eps
from robustlab.transfer import Source, as_one, check_surrogates, matrix_chunk, matrix_section, surrogates_of


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
    selected = as_data(data, limit)
    check_data(selected, chosen.labels)
    if not isinstance(suite, Suite):
        suite = load_suite(suite, default=selected.threat)
    classifiers = classifiers_of(models, device)
    lent = [] if surrogate is None else classifiers_of(surrogate, device)
    crafted_on = surrogates_of(suite, classifiers, lent)
    everyone, attacked = [*classifiers, *lent], len(classifiers)
    folder = Path(output) if output is not None else world.agree(default_folder(selected.name))
    values = math.prod(selected.images.shape[1:])
    chunk_size = chosen.chunk_size or default_chunk_size(values)
    batch_size = chosen.batch_size or default_batch_size(values, device)
    # what is nearest to the boundary of a surrogate says nothing about distances to that of the target
    nearest = None if any(crafted_on) else suite.nearest
    curve = _curve(chosen, suite.threat, values, fine=nearest is not None)
    drawing: dict[str, Any] = {"attack": (nearest or suite.curve_member).name, "eps": list(curve)}
    drawing |= {"from": "distances"} if nearest else {}

    with ExitStack() as left_as_found:
        for model in everyone:
            left_as_found.enter_context(undisturbed(model))
        left_as_found.enter_context(full_float32())
        left_as_found.enter_context(machine_failures())
        left_as_found.enter_context(forked(device, chosen.seed))
        batches = [Batches(batch_size, listener.say) for _ in everyone]
        together = list(zip(everyone, batches, strict=True))
        warnings = [
            *selected.notes,
            *(f"{m.name} has random weights: it was never trained." for m in everyone if untrained(m)),
        ]
        found = {model.name: b.fit(partial(warnings_of, model, selected, device)) for model, b in together}
        warnings += [f"{name}: {text}" for name, texts in found.items() for text in texts]
        randomised = {name for name, texts in found.items() if RANDOMISED in texts}
        check_targets(randomised, suite.threat, chosen)
        draws = [draws_of(model, own, randomised, chosen) for model, own in zip(classifiers, crafted_on, strict=True)]
        first = {model.name: logits_of(model, selected.images[:1].to(device), 1) for model in everyone}
        check_surrogates(classifiers, crafted_on, first)
        outputs = [first[model.name].shape[1] for model in classifiers]
        if chosen.labels == "given":
            selected = matched(selected, [(m.name, m.classes, first[m.name].shape[1]) for m in everyone])
            warnings += [w for model in classifiers for w in named_alike(model, selected)]
        truths = [selected.labels]
        if chosen.labels == "predicted":
            selected = replace(selected, classes=answer_names(classifiers, selected, max(outputs)))
            if suite.threat.target_class is not None:  # what any model sees as the target already, all leave out
                truths = [b.fit(partial(predictions, model, selected, device)) for model, b in together[:attacked]]
        selected, dropped = without_target_class(selected, truths, suite.threat, min(outputs))
        if dropped:
            warnings.append(f"{dropped} samples of the target class {suite.threat.target!r} were left out.")
        copies = [
            SearchCopy(None, "two of its evaluations differ, so that no copy can be seen to agree")
            if model.name in randomised
            else b.fit(partial(_search_copy, model, selected, chosen, device))
            for model, b in together
        ]
        for model in everyone:
            left_as_found.enter_context(_kept_in_eval(model))
        for text in warnings:
            listener.say(f"Warning: {text}")
        for model, copy in zip(everyone, copies, strict=True):
            if chosen.search_copy and copy.module is None:
                listener.say(
                    f"{model.name}: no search copy, {copy.reason}; attacks search on the model itself (slower)."
                )
        for model, drawn in zip(classifiers, draws, strict=True):
            if drawn:
                listener.say(f"{model.name}: {in_words(drawn)}")
        settled = replace(chosen, chunk_size=chunk_size)
        config = configuration(classifiers, selected, suite, settled, drawing if curve else {}, crafted_on, draws)
        lent_copies = list(zip(lent, copies[attacked:], strict=True))
        facts = about(classifiers, copies[:attacked], selected, suite, device, lent_copies)
        facts |= {"name": folder.name, "command": command, "warnings": warnings}
        facts |= {"randomised": True} if randomised else {}
        facts["operational"] = {"device": str(device), "batch_size": batch_size, "processes": world.size}

        if world.agree(config) != config:
            raise UserError("The processes of this run were started with different configurations.")
        lines = lambda: data_lines(selected)  # noqa: E731, only the first process needs them
        with world.open(folder, config, facts, lines, resume=resume, overwrite=overwrite) as run:
            copies = _as_recorded([*run.info["models"], *run.info.get("surrogates", [])], copies)
            if not run.finished:
                sources = [
                    Source(m, c.module or m, b, averaged(suite, draws_of(m, [], randomised, chosen), chosen))
                    for (m, b), c in zip(together, copies, strict=True)
                ]
                fast = {source.model.name: source.search for source in sources}
                tasks = [
                    Task(
                        run=run,
                        name=model.name,
                        model=model,
                        search=copy.module,
                        outputs=k,
                        data=selected,
                        suite=averaged(suite, drawn, chosen),
                        curve=curve,
                        options=chosen,
                        chunk_size=chunk_size,
                        batches=b,
                        device=device,
                        told=listener.say,
                        surrogate=as_one([fast[each.name] for each in own]),
                        evaluations=drawn.get("evaluations", 1),
                        distances=bool(curve) and nearest is not None,
                    )
                    for (model, b), copy, k, own, drawn in zip(
                        together[:attacked], copies[:attacked], outputs, crafted_on, draws, strict=True
                    )
                ]
                rows = sources if suite.transfer else []
                listener.say(_estimate(tasks, len(rows), selected, device))
                _work(tasks, rows, world, listener)
                world.wait()
                audit(tasks, world, listener.say)
                world.wait()
                if world.first:
                    run.update(**collected(tasks, listener.say))
                    run.finish(
                        sections=[matrix_section(tasks, rows)] if rows else [],
                        explain=partial(explain_kept, run, together[:attacked], selected, device, listener.say),
                    )
                world.wait()
    stored = read_run(folder)
    failed = sum(line.error is not None for line in stored.lines)
    if failed:
        raise RunError(
            f"{failed} attacked samples ended in an error of the model and count as not robust; the first:"
            f" {next(line.error for line in stored.lines if line.error)}. See samples.jsonl in {folder}."
        )
    return stored


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


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions and matrix products in float32, not in TF32, which GPUs round to by default; put back afterwards."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _as_recorded(records: Sequence[Mapping[str, Any]], copies: Sequence[SearchCopy]) -> list[SearchCopy]:
    """The search copies as a resumed run was started with: all its units search alike."""
    found = []
    for record, copy in zip(records, copies, strict=True):
        used = record["search_copy"]["used"]
        if used and copy.module is None:
            raise UserError(
                f"--resume: the run searched on a copy of {record['name']}, which cannot be used here ({copy.reason})."
                " Go on where it was started, or start another run."
            )
        found.append(copy if used else replace(copy, module=None))
    return found


def _search_copy(model: Classifier, data: Data, options: Options, device: torch.device, batch_size: int) -> SearchCopy:
    if not options.search_copy:
        return SearchCopy(None, "turned off")
    first = data.images[: min(CHECKED, batch_size)].to(device)
    return make_search_copy(model, first, options.precision, options.compile)


@contextmanager
def _kept_in_eval(model: Classifier) -> Iterator[None]:
    """Stop where the model puts a part of itself into training mode: what follows would not be its answers."""
    quiet = [(name, part) for name, part in model.module.named_modules() if not part.training]

    def look(*_: object) -> None:
        if turned := [name for name, part in quiet if part.training]:
            raise RunError(
                f"{model.name} went into training mode during the run ({turned[0] or 'the whole module'}): its forward"
                " calls train(). Remove that call, and go on with --resume."
            )

    hook = model.register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()


def _curve(options: Options, threat: ThreatModel, values: int, fine: bool) -> tuple[float, ...]:
    """The budgets of the security curve, many of them where they cost nothing (`fine`).

    values: in an image; no budget may be larger than the way across the box.
    """
    most = diameter(threat.norm, values)
    given = [replace(threat, eps=parse_eps(e)).eps for e in options.curve or ()]
    for eps in (threat.eps, *given):
        if eps > most:
            raise UserError(
                f"{threat.norm} eps = {eps:g} is larger than the distance between any two images of this size, at most"
                f" {most:.4g}: every image could become every other. Did you mean {eps:g}/255?"
            )
    if threat.eps == 0:
        return ()
    if options.curve is None:
        shares = [k / 16 for k in range(1, 33)] if fine else [0.25, 0.5, 1.0, 1.5, 2.0]
        return tuple(f * threat.eps for f in shares if f * threat.eps <= most)
    return tuple(sorted({*given, threat.eps} - {0.0})) if given else ()


def _estimate(tasks: Sequence[Task], rows: int, data: Data, device: torch.device) -> str:
    """What will be done and how long it will take at most: row-steps that nobody may be spared, times a timed one.

    rows: of the transfer matrix.
    """
    suite = tasks[0].suite
    text = (
        f"{len(data)} images of {data.name}, {len(tasks)} model{'s' * (len(tasks) > 1)}, {suite.threat.norm} eps"
        f" {suite.eps_typed}: {', '.join(m.name for m in suite.members)}."
    )
    seconds = 0.0
    for task in tasks:
        size = task.batches.size
        x = data.images[:size].to(device)
        once = FGSM()  # one step, which costs about as much in every norm
        try:
            search = task.search if task.surrogate is None else None
            y = logits_of(task.crafted_on, x, size).argmax(1)
            for part in (8, size):  # the first call only warms up
                start = time.perf_counter()
                once.run(task.crafted_on, x[:part], y[:part], search=search, batch_size=part)
        except Exception:  # the run itself will meet it and say so, sample by sample
            return text
        row_step = (time.perf_counter() - start) / len(x)
        steps = {m.name: m.attack.looks for m in task.suite.members}
        most: float = sum(steps.values())
        most += steps[suite.curve_member.name] * len(task.sweep)
        most += steps[suite.members[0].name] * rows / len(tasks)
        most += row_steps(task.suite) * min(task.options.audit, len(data)) / len(data)
        seconds += row_step * most * len(data)
    return f"{text} At most about {max(1, round(seconds))} s, less where models fall early."
