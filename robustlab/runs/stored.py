"""Reading a run folder. It may come from a stranger: everything is checked here, and nothing where it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from robustlab.base.errors import UserError
from robustlab.base.files import SCHEMA_VERSION
from robustlab.base.reading import decoded, open_regular, read_bounded, read_json
from robustlab.runs.aggregates import Line
from robustlab.runs.checking import check_info, check_sample
from robustlab.runs.notebook import Samples, run_html

BYTES = 1 << 30  # of samples.jsonl, and of data.jsonl
LINES = 5_000_000  # of each, some 300 bytes of memory a line
LINE_BYTES = 1 << 16  # of one line: an error of a model may be told in it
PICTURE_BYTES = 8 << 20  # of a kept image

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class StoredRun:
    """A finished run, read from its folder. `lines` and `data_lines` are read when they are first asked for."""

    folder: Path
    info: Json = field(repr=False)

    @cached_property
    def lines(self) -> list[Line]:
        """samples.jsonl."""
        return _lines(self.folder, "samples.jsonl", msgspec.json.Decoder(Line).decode)

    @cached_property
    def data_lines(self) -> list[Json]:
        """data.jsonl."""
        return _lines(self.folder, "data.jsonl", _sample)

    @cached_property
    def samples(self) -> Samples:
        """samples.jsonl as columns, which `pandas.DataFrame` takes."""
        return Samples({name: [getattr(line, name) for line in self.lines] for name in Line.__struct_fields__})

    @property
    def images(self) -> list[Json]:
        """The kept examples: model, attack, id, label, success, predictions, confidences, and their files."""
        return list(self.info.get("images", []))

    def _repr_html_(self) -> str:
        return run_html(str(self.info.get("name", self.folder)), self.info)

    def picture(self, name: str) -> bytes | None:
        """The bytes of a kept image, such as images/clean-3.png; None where there is none."""
        try:
            return read_bounded(name, PICTURE_BYTES, folder=self.folder)
        except FileNotFoundError:
            return None


def read_run(folder: str | Path) -> StoredRun:
    """Read a finished run. UserError: no run there, not finished, damaged, or from a newer robustlab."""
    folder = Path(folder)
    info = read_info(folder)
    if not info["finished"]:
        raise UserError(f"The run in {folder} is not finished. Go on with it: the same command and --resume.")
    run = StoredRun(folder, info)
    samples = folder / "samples.jsonl"
    if info.get("kind") == "attack" and samples.is_file() and not samples.stat().st_size:
        raise UserError(f"{samples} is empty: this is no run. Restore the file, or run again.")
    return run


def read_info(folder: Path) -> Json:
    """run.json, finished or not; UserError where there is none, or it is damaged, foreign or newer."""
    path = folder / "run.json"
    try:
        info = read_json("run.json", folder=folder)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is not a run folder: it has no run.json. Give a folder that `robustlab attack` wrote."
        ) from None
    if isinstance(info, dict) and info.get("kind") == "train":
        raise UserError(
            f"{folder} holds a training, no attack. Attack its model: robustlab attack {folder}/model.toml."
        )
    version = info.get("schema_version") if isinstance(info, dict) else None
    known = isinstance(version, int) and not isinstance(version, bool) and "finished" in info
    if not known or not isinstance(info.get("config"), dict):
        raise UserError(f"{path} was not written by robustlab: it has no schema_version, finished and config.")
    if info["schema_version"] > SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {info['schema_version']}, and this robustlab reads up to {SCHEMA_VERSION}. "
            "Update robustlab."
        )
    check_stored(info, path)
    return dict(info)


def check_stored(info: Json, path: Path) -> None:
    """UserError where run.json holds what it cannot."""
    try:
        check_info(info)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. Restore the file, or run again.") from None


def _lines(folder: Path, name: str, decode: Callable[[bytes], T]) -> list[T]:
    """The rows of a .jsonl file; UserError where it is missing, or a row is damaged, or they are too many."""
    found: list[T] = []
    try:
        with open_regular(name, BYTES, folder=folder) as file:
            while row := file.readline(LINE_BYTES + 1):
                if len(row) > LINE_BYTES or len(found) == LINES:
                    raise UserError(
                        f"{folder / name} was not read: at most {LINES:,} lines of {LINE_BYTES:,} bytes are read of"
                        " such a file."
                    )
                found.append(decode(row.rstrip(b"\r\n")))
    except FileNotFoundError:
        raise UserError(f"{folder / name} is missing: the run folder is not complete.") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # of msgspec, of `decoded`, or of text that is not UTF-8
        raise UserError(
            f"{folder / name}, line {len(found) + 1}, is damaged: {error}. Restore the file, or run again."
        ) from None
    return found


def _sample(row: bytes) -> Json:
    line: Json = decoded(row)
    check_sample(line)
    return line
