"""A run that fits something and judges it: its folder, and its studies in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from robustlab.base.environment import git_state, versions
from robustlab.base.files import default_folder, give_back, settled
from robustlab.evaluation.engine import clock_of, do
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.processes import World
from robustlab.evaluation.studies.base import AnyJob, Study
from robustlab.oracle import full_float32
from robustlab.physical.folder import StickerRun
from robustlab.runs import StoredRun, read_run

Finished = Callable[[Hashable, str], None]
J = TypeVar("J", bound=AnyJob)


def fit_and_judge(
    kinds: Sequence[type[Study[J]]],
    job_of: Callable[[StickerRun, Listener, Finished], J],
    config: Mapping[str, Any],
    about: Mapping[str, Any],
    *,
    output: str | Path | None,
    name: str,
    resume: bool,
    overwrite: bool,
    listener: Listener,
) -> StoredRun:
    """The studies, in order, in the folder `output` (None: one in reports/ that starts with `name`).

    config: what makes it another run if it changes. about: what else run.json says of it.
    """
    world = World.join()
    if output is None:
        folder = world.agree(default_folder(name) if world.first else Path())
    else:
        folder = settled(Path(output))
    heard = listener if world.first else Listener(say=lambda text: None)
    about = {"kind": "physical", "versions": versions(), "git": git_state(), **about}
    try:
        if world.first:
            run = StickerRun.create(folder, config, about, resume=resume, overwrite=overwrite, say=heard.say)
        world.wait()
        with full_float32(), run if world.first else StickerRun.beside(folder) as run:
            if not run.finished:
                _do(kinds, job_of, run, heard, world)
    finally:
        give_back(folder)
    return read_run(folder)


def _do(
    kinds: Sequence[type[Study[J]]],
    job_of: Callable[[StickerRun, Listener, Finished], J],
    run: StickerRun,
    listener: Listener,
    world: World,
) -> None:
    def finished(key: Hashable, name: str) -> None:
        if clock.finish(key):
            listener.advance(clock.done, clock.total, name)

    job = job_of(run, listener, finished)
    studies = [kind(job) for kind in kinds]
    clock = clock_of(studies, world)
    with listener.watch(clock, listener.say):
        sections, fields = do(studies, world)
        if world.first:
            times = {**run.info["times"], **fields.pop("times")}
            run.finish(sections, {**fields, "times": times})
        world.wait()


def table(
    columns: Sequence[tuple[str, str, str]],
    rows: Sequence[Mapping[str, Any]],
    *,
    note: str,
    n: int | None = None,
    images: Sequence[str] = (),
) -> dict[str, Any]:
    """A section of run.json. columns: key, label and unit of each."""
    return {
        "columns": [dict(zip(("key", "label", "unit"), column, strict=True)) for column in columns],
        "rows": list(rows),
        "n": n,
        "interval": "95 % Wilson" if n else None,
        "note": note,
        "images": list(images),
    }


KEPT = {"losses": "losses", "search_copies": "copy"}  # fields of run.json, and what a fit's part calls them


def kept_fields(done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What run.json keeps of the parts of a fit beside its section: the curve of the loss, and the search copy."""
    return {field: {name: each[key] for name, each in done.items()} for field, key in KEPT.items()}


def without_kept(each: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a fit without what `kept_fields` takes."""
    return {key: value for key, value in each.items() if key not in KEPT.values()}
