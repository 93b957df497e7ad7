"""Transfer: which models images are crafted on, and the matrix of every model against every other.

A transfer attacker has no access to the attacked model: images are crafted on surrogates, and the model is shown the
finished ones. What withstands that may fall to an attacker who sees the model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.attacks.suite import Suite
from robustlab.base.errors import RunError, UserError
from robustlab.base.intervals import share
from robustlab.base.memory import Batches, of_the_machine
from robustlab.base.words import kind_and_line
from robustlab.data import Loaded
from robustlab.data.matching import plain
from robustlab.evaluation.cascade import CLEAN, Task, class_names, ours, targets_of
from robustlab.evaluation.judging import logits_of, looks_of
from robustlab.models.classifier import Classifier
from robustlab.models.ensemble import Ensemble
from robustlab.oracle import forked, most, of_the_model
from robustlab.runs.transfer import TRANSFER_MATRIX
from robustlab.threat.geometry import distance
from robustlab.threat.model import allowed

Json = dict[str, Any]
_COUNTS = ("tried", "turned", "errors")  # of a cell of the matrix


def surrogates_of(suite: Suite, models: Sequence[Classifier], given: Sequence[Classifier]) -> list[list[Classifier]]:
    """For each model the ones that its images are crafted on: those that were given, or in a transfer suite all others.

    Empty lists in a white-box attack.
    """
    names = [model.name for model in models]
    twice = next((surrogate.name for surrogate in given if surrogate.name in names), None)
    if twice:
        raise UserError(
            f"{twice!r} is both a model to attack and a surrogate. For a white-box attack leave the surrogate out;"
            " different models need different names: {'a': model}."
        )
    if given:
        return [list(given) for _ in models]
    if not suite.transfer:
        return [[] for _ in models]
    if len(models) == 1:
        raise UserError(
            f"{suite.name} is a transfer suite: its images are crafted on other models than the attacked one. Add"
            " --surrogate NAME ..., or give several models, each of which is then attacked from all the others."
        )
    return [[other for other in models if other is not model] for model in models]


def check_surrogates(
    models: Sequence[Classifier], surrogates: Sequence[Sequence[Classifier]], logits: dict[str, Tensor]
) -> None:
    """A UserError where a surrogate knows other classes than its target, or is the target.

    logits: (1, K) of every model, on the same image.
    """
    for model, own in zip(models, surrogates, strict=True):
        for surrogate in own:
            there, here = logits[surrogate.name], logits[model.name]
            if there.shape[1] != here.shape[1]:
                raise UserError(
                    f"{surrogate.name} has {there.shape[1]} outputs and {model.name} has {here.shape[1]}: a surrogate"
                    " must know the classes of the model that is attacked."
                )
            names = [[plain(c) for c in m.classes or ()] for m in (surrogate, model)]
            if sorted(names[0]) == sorted(names[1]) and names[0] != names[1]:
                raise UserError(
                    f"{surrogate.name} and {model.name} have the same classes in another order. A surrogate must have"
                    f" them in the order of the model that is attacked: {', '.join(model.classes or ())}."
                )
            # a defense may leave weights as they are, so they alone do not tell
            alike = surrogate.hash() == model.hash() and repr(surrogate) == repr(model)
            if alike and torch.equal(there, here):
                raise UserError(
                    f"{surrogate.name} and {model.name} are the same model (weights, layers and answers): an image"
                    " crafted on it is a white-box attack. For that leave the surrogate out, or give another one."
                )


def as_one(members: Sequence[nn.Module]) -> nn.Module | None:
    """What images are crafted on: nothing, one model, or the mean of several models' logits."""
    return Ensemble(members) if len(members) > 1 else next(iter(members), None)


@dataclass(frozen=True)
class Source:
    """A row of the matrix: images are crafted on this model alone, or on its search copy. suite: as it attacks it."""

    model: Classifier
    search: nn.Module
    batches: Batches
    suite: Suite


def matrix_chunk(tasks: Sequence[Task], sources: Sequence[Source], number: int, where: Tensor) -> Iterator[str]:
    """Do the rows of one chunk that are not done yet, after the clean pass; yields each source when it is finished.

    tasks: the columns, models that are shown the images. The attack is the suite's first, with every step.
    """
    run, chunk = tasks[0].run, None
    for source in sources:
        name = _part(source, number)
        done = run.part(name)
        if done is None or "error" in done:  # what ended in an error is tried again
            chunk = tasks[0].data.take(where).loaded() if chunk is None else chunk
            start = time.perf_counter()
            try:
                row: Json = {"cells": source.batches.fit(partial(_row, tasks, source, number, chunk))}
            except Exception as error:  # a model raises what it likes
                if isinstance(error, UserError | RunError) or of_the_machine(error):
                    raise
                if not of_the_model(error):
                    raise RunError(ours(error, f"transfer matrix, {source.model.name}, chunk {number}")) from error
                row = {"error": kind_and_line(error)}
                tasks[0].told(f"Warning: no row of {source.model.name} in the transfer matrix: {row['error']}")
            run.write_part(name, row | {"seconds": time.perf_counter() - start})
        yield source.model.name


def _row(tasks: Sequence[Task], source: Source, number: int, chunk: Loaded, size: int) -> list[Json]:
    """For each task how many images of a chunk it was shown that it classifies right, and how many turned."""
    task = tasks[0]
    with forked(task.device, task.options.seed, TRANSFER_MATRIX, source.model.name, number):
        return _cells(tasks, source, number, chunk, size)


def _cells(tasks: Sequence[Task], source: Source, number: int, chunk: Loaded, size: int) -> list[Json]:
    task = tasks[0]
    threat, seed = task.suite.threat, task.options.seed
    x, y, ids = (each.to(task.device) for each in (chunk.images, chunk.labels, chunk.ids))
    if task.options.labels == "predicted":
        y = logits_of(source.model, x, size).argmax(1)
    targets = targets_of(
        source.search, threat, x, y, ids, class_names(task.data, task.outputs), seed=seed, batch_size=size
    )
    open_ = torch.ones_like(y, dtype=torch.bool) if targets is None else targets != y
    crafted = source.suite.members[0].attack.run(
        source.search,
        x[open_],
        y[open_],
        targets=None if targets is None else targets[open_],
        ids=ids[open_],
        seed=seed,
        batch_size=size,
        surrogate=source.search,
    )
    shown, invalid = x.clone(), torch.zeros_like(open_)
    shown[open_], invalid[open_] = crafted.images, crafted.invalid
    inside = distance(shown - x, threat.norm) <= allowed(threat.eps)
    cells = []
    for each in tasks:
        lines = {line.id: line for line in each.run.unit_lines(each.name, CLEAN, 0.0, number)}
        clean, label = (
            torch.tensor([getattr(lines[id], key) for id in chunk.ids.tolist()], device=x.device)
            for key in ("clean", "label")
        )
        logits = looks_of(each.model, shown, size, each.evaluations)
        answer = logits.argmax(2)
        tried = open_ & (clean == label) & (clean != targets if targets is not None else open_)
        failed = tried & (invalid | ~torch.isfinite(logits).all(2).all(0))
        turned = tried & ~failed & inside & most(answer != label if targets is None else answer == targets)
        cells.append({"tried": int((tried & ~failed).sum()), "turned": int(turned.sum()), "errors": int(failed.sum())})
    return cells


def _part(source: Source, number: int) -> str:
    return f"{TRANSFER_MATRIX} {source.model.name} {number}"


def matrix_section(tasks: Sequence[Task], sources: Sequence[Source]) -> Json:
    """The finished rows of all chunks as a section of run.json."""
    run, rows = tasks[0].run, []
    for source in sources:
        parts = [run.part(_part(source, number)) or {"error": "not run"} for number, _ in tasks[0].chunks()]
        reason = next((part["error"] for part in parts if "error" in part), None)
        for at, task in enumerate(tasks):
            total = {key: sum(part["cells"][at][key] for part in parts if "cells" in part) for key in _COUNTS}
            row = {"source": source.model.name, "target": task.name, "white_box": source.model.name == task.name}
            turned = None if reason else share(total["turned"], total["tried"])
            rows.append(row | {"turned": turned, "errors": total["errors"], "reason": reason})
    aim = "turned into the target" if tasks[0].suite.threat.targeted else "turned"
    return {
        "name": TRANSFER_MATRIX,
        "columns": [
            {"key": "source", "label": "Crafted on"},
            {"key": "target", "label": "Shown to"},
            {"key": "turned", "label": "Turned"},
            {"key": "errors", "label": "Errors"},
        ],
        "rows": rows,
        "n": len(tasks[0].data),
        "interval": "95 % Wilson",
        "attack": tasks[0].suite.members[0].name,
        "note": "Share of the images that the attacked model classifies right, whether or not the source does, and that"
        f" are {aim} by the same image crafted on the source alone, with every step. Where both are the same model,"
        " that is a white-box attack.",
    }
