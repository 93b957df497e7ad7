"""Doing studies, one after another: shared among processes, skipped where done, stored when finished, watched."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from robustlab.base.processes import World
from robustlab.base.progress import Clock
from robustlab.evaluation.faults import blamed_on_model
from robustlab.evaluation.studies.base import Study

Json = dict[str, Any]


def stored(study: Study[Any], part: str) -> Json | None:
    """What a finished part came to; None where it is still to be done. A part that ended in an error is done again."""
    value = study.job.run.part(_file(study, part))
    return value if value is None or "error" not in value else None


def clock_of(studies: Sequence[Study[Any]], world: World) -> Clock:
    """The pieces of work of this process, in the order in which they are done."""
    pieces = [
        replace(piece, done=piece.done or stored(study, part) is not None)
        for study in studies
        for part in world.share(study.parts())
        for piece in study.pieces(part)
    ]
    return Clock(pieces)


def do(studies: Sequence[Study[Any]], world: World) -> tuple[list[Json], Json]:
    """Do all studies; returns the sections and the other fields of run.json that come of them, to the first process."""
    sections: list[Json] = []
    fields: Json = {}
    times: dict[str, float] = {}
    for study in studies:
        parts = study.parts()
        for part in world.share(parts):
            _do_part(study, part)
        world.wait()
        if not world.first:
            continue
        results = {part: study.job.run.part(_file(study, part)) or {} for part in parts}
        study.failed = {part: str(value["error"]) for part, value in results.items() if "error" in value}
        done = {part: value for part, value in results.items() if "error" not in value}
        if seconds := sum(value.pop("seconds", 0.0) for value in results.values()):
            times[study.name] = seconds
        if parts and (section := study.section(done)) is not None:
            sections.append({"name": study.name} | section | _not_run(study, section))
        fields |= study.fields(done)
    return sections, fields | {"times": times}


def _do_part(study: Study[Any], part: str) -> None:
    run, listener = study.job.run, study.job.listener
    if stored(study, part) is None:
        start = time.perf_counter()
        try:
            value = study.work(part)
        except Exception as error:  # a model raises what it likes
            reason = blamed_on_model(error, f"{study.name}, {part}")
            listener.warn(f"{study.name}, {part} was not finished: {reason}")
            value = {"error": reason}
        if value is not None:
            run.write_part(_file(study, part), value | {"seconds": time.perf_counter() - start})
    for piece in study.pieces(part):
        study.job.finished(piece.key, piece.name)


def _not_run(study: Study[Any], section: Json) -> Json:
    """The note, with what is missing from the section."""
    if not study.failed:
        return {}
    missing = " ".join(f"Not run: {part} ({reason})." for part, reason in study.failed.items())
    return {"note": f"{section.get('note') or ''} {missing}".strip()}


def _file(study: Study[Any], part: str) -> str:
    return f"{study.name}--{part}"
