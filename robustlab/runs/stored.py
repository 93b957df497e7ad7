"""Reading a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from robustlab.errors import UserError
from robustlab.runs.aggregates import Line

SCHEMA_VERSION = 1

Json = dict[str, Any]
T = TypeVar("T")
_decode = msgspec.json.Decoder(Line).decode


@dataclass(frozen=True)
class StoredRun:
    """A finished run, read from its folder. `lines` and `data_lines` are read when they are first asked for."""

    folder: Path
    info: Json = field(repr=False)

    @cached_property
    def lines(self) -> list[Line]:
        """samples.jsonl."""
        return _decoded(self.folder / "samples.jsonl", _decode)

    @cached_property
    def data_lines(self) -> list[Json]:
        """data.jsonl."""
        return _decoded(self.folder / "data.jsonl", msgspec.json.decode)

    @property
    def images(self) -> list[Json]:
        """The kept examples: model, attack, id, label, success, predictions, confidences, and their files."""
        return list(self.info.get("images", []))


def read_run(folder: str | Path) -> StoredRun:
    """Read a finished run. UserError: no run there, not finished, damaged, or from a newer robustlab."""
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise UserError(
            f"{folder} is not a run folder: it has no run.json. Give a folder that `robustlab attack` wrote."
        )
    info = read_info(folder)
    if not info["finished"]:
        raise UserError(f"The run in {folder} is not finished. Go on with it: the same command and --resume.")
    return StoredRun(folder, info)


def read_info(folder: Path) -> Json:
    """run.json, finished or not; UserError where it is damaged, foreign or newer."""
    path = folder / "run.json"
    try:
        info = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}). Run again with --overwrite.") from None
    if isinstance(info, dict) and info.get("kind") == "train":
        raise UserError(
            f"{folder} holds a training, no attack. Attack its model: robustlab attack {folder}/model.toml."
        )
    known = isinstance(info, dict) and isinstance(info.get("schema_version"), int) and "finished" in info
    if not known or not isinstance(info.get("config"), dict):
        raise UserError(f"{path} was not written by robustlab: it has no schema_version, finished and config.")
    if info["schema_version"] > SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {info['schema_version']}, and this robustlab reads up to {SCHEMA_VERSION}. "
            "Update robustlab."
        )
    return dict(info)


def _decoded(path: Path, decode: Callable[[bytes], T]) -> list[T]:
    """The rows of a .jsonl file; UserError where it is missing, or a row is damaged."""
    try:
        rows = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the run folder is not complete.") from None
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(decode(row))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}, line {number}, is damaged: {error}. Restore the file, or run again.") from None
    return found
