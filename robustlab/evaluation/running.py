"""A run of studies that is no attack on images: its folder, and its studies in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from robustlab.base.environment import git_state, versions
from robustlab.base.files import default_folder, give_back, settled
from robustlab.base.processes import World
from robustlab.evaluation.engine import clock_of, do
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.studies.base import AnyJob, Study
from robustlab.oracle import full_float32
from robustlab.runs import StoredRun, StudiedRun, read_run

Finished = Callable[[Hashable, str], None]
J = TypeVar("J", bound=AnyJob)
R = TypeVar("R", bound=StudiedRun)


def run_studies(
    kinds: Sequence[type[Study[J]]],
    folders: type[R],
    job_of: Callable[[R, Listener, Finished], J],
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

    folders: the class of the run folder. config: what makes it another run if it changes. about: what else run.json
    says of it.
    """
    world = World.join()
    if output is None:
        folder = world.agree(default_folder(name) if world.first else Path())
    else:
        folder = settled(Path(output))
    heard = listener if world.first else Listener(say=lambda text: None)
    about = {"versions": versions(), "git": git_state(), **about}
    try:
        if world.first:
            run = folders.create(folder, config, about, resume=resume, overwrite=overwrite, say=heard.say)
        world.wait()
        with full_float32(), run if world.first else folders.beside(folder) as run:
            if not run.finished:
                _do(kinds, job_of, run, heard, world)
    finally:
        give_back(folder)
    return read_run(folder)


def _do(
    kinds: Sequence[type[Study[J]]],
    job_of: Callable[[R, Listener, Finished], J],
    run: R,
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


def rows_of(done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all parts of a study."""
    return [row for value in done.values() for row in value["rows"]]


def section_of(run: StoredRun, name: str) -> dict[str, Any]:
    """A section of a finished run."""
    return next(dict(section) for section in run.info["sections"] if section["name"] == name)


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
