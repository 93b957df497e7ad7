"""The folder of a job: begun with a configuration, and gone on with by the same one only."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from robustlab.base.errors import UserError, spelled
from robustlab.base.files.changes import changes, short
from robustlab.base.files.manifest import INFO, SCHEMA_VERSION, Json, Kind
from robustlab.base.files.output import OutputFolder


def config_hash(config: Mapping[str, Any]) -> str:
    """16 hex digits over everything in `config`, whatever the order of its keys.

    >>> config_hash({"seed": 0, "eps": 0.5}) == config_hash({"eps": 0.5, "seed": 0})
    True
    """
    return hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()[:16]


class JobFolder:
    """An output folder that one process holds, and its run.json, `info`. A context manager lets go of it."""

    def __init__(self, output: OutputFolder, info: Json) -> None:
        self.folder, self.info = output.folder, info
        self._output = output

    @classmethod
    def opened(
        cls,
        folder: Path,
        kind: Kind,
        config: Mapping[str, Any],
        about: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        say: Callable[[str], None],
        check: Callable[[Json, Path], None] = lambda info, path: None,
        ready: Callable[[Self], None] = lambda job: None,
    ) -> Self:
        """Begin in `folder`, or go on with what is there (`resume`; a missing or empty folder begins, which is said).

        config: everything that decides what comes out, a `seed` among it. about: the rest of the first run.json.
        check: of the run.json that is there. ready: what else is to be done before the work; where it fails, a folder
        that was begun is empty again.

        UserError: as `OutputFolder`, or it was begun with another configuration.
        """
        wanted: Json = msgspec.json.decode(msgspec.json.encode(config))  # as it will be read: a tuple is a list
        with contextlib.ExitStack() as undo:
            output = OutputFolder(folder, kind, resume=resume, overwrite=overwrite)
            undo.callback(output.close)
            if output.info is None:
                undo.callback(output.abandon)
                if resume:
                    say(f"There is no {kind.word} in {output.folder} to go on with: a new one starts.")
                job = cls(output, _first_info(kind, wanted, msgspec.to_builtins(about)))
                output.start(job.info)
            else:
                check(output.info, output.folder / INFO)
                _check_same(output.info, wanted, output.folder, kind.word)
                job = cls(output, output.info)
            ready(job)
            undo.pop_all()
        return job

    @property
    def finished(self) -> bool:
        """Everything is there."""
        return bool(self.info.get("finished", True))

    @property
    def replaces(self) -> bool:
        """Is there one that this one will take the place of?"""
        return self._output.replaces

    def close(self) -> None:
        """Let go of the folder. What is written stays, finished or not."""
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_info(kind: Kind, config: Json, about: Json) -> Json:
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind.name,
        **about,
        "finished": False,
        "config": config,
        "config_hash": config_hash(config),
        "seed": config["seed"],
    }


def _check_same(info: Json, config: Json, folder: Path, what: str) -> None:
    """UserError that names the fields in which a configuration is not that of run.json."""
    if changed := list(changes(info["config"], config)):
        fields = "; ".join(f"{name} was {short(old)}, now {short(new)}" for name, old, new in changed)
        raise UserError(
            f"{spelled('resume', True)}: the {what} in {folder} was started with another configuration ({fields}), by"
            f" `{info.get('command') or 'a call from Python'}`. Give the same values, replace it"
            f" ({spelled('overwrite', True)}), or choose another output."
        )
