"""A run that fits something and judges it: its folder, and its studies in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from robustlab.base.environment import git_state, versions
from robustlab.base.files import default_folder, give_back, settled
from robustlab.base.words import interval, percent
from robustlab.evaluation.engine import clock_of, do
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.processes import World
from robustlab.evaluation.studies.base import AnyJob, Study
from robustlab.models.classifier import Classifier
from robustlab.oracle import full_float32
from robustlab.physical.folder import StickerRun
from robustlab.reporting.text import shown_names
from robustlab.runs import StoredRun, read_run

Finished = Callable[[Hashable, str], None]
J = TypeVar("J", bound=AnyJob)


def run_studies(
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


def config_of(networks: Sequence[Classifier], name: str, method: str, attack: Any, seed: int) -> dict[str, Any]:
    """What every such run has in its configuration. attack: a dataclass."""
    return {
        "models": [{"name": network.name, "hash": network.hash()} for network in networks],
        "attacks": [{"name": name, "method": method, "parameters": asdict(attack)}],
        "seed": seed,
    }


def first_of(models: Sequence[Classifier]) -> str:
    """What the page calls the first model, which something is fitted on."""
    return shown_names([model.name for model in models])[models[0].name]


def aim_of(target: int | None, classes: Sequence[str]) -> str:
    """What counts as a success, as a heading. classes: the names, or none where nobody knows them.

    >>> aim_of(1, ["dog", "cat"]), aim_of(3, []), aim_of(None, [])
    ('Read as cat', 'Read as class 3', 'Read wrong')
    """
    return "Read wrong" if target is None else f"Read as {classes[target] if classes else f'class {target}'}"


def rows_of(done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all parts of a study."""
    return [row for value in done.values() for row in value["rows"]]


def section_of(run: StoredRun, name: str) -> dict[str, Any]:
    """A section of a finished run."""
    return next(dict(section) for section in run.info["sections"] if section["name"] == name)


def in_words(run: StoredRun, what: str, of: str) -> list[str]:
    """What the section `success` says, a sentence for each model. what: patch or sticker. of: images or views."""
    section, said = section_of(run, "success"), []
    names = shown_names([row["model"] for row in section["rows"]])
    aim = next(column["label"] for column in section["columns"] if column["key"] == "success")
    for model in dict.fromkeys(row["model"] for row in section["rows"]):
        own = {row[what]: row["success"] for row in section["rows"] if row["model"] == model}
        success = own.pop(what)
        others = ", ".join(f"{name} {percent(share)}" for name, share in own.items())
        said.append(
            f"{names[model]}: {percent(success)} ({interval(success)}) of {success['n']} {of} are"
            f" {aim[0].lower() + aim[1:]} with the {what}. Controls: {others}."
        )
    return said


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
