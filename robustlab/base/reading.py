"""Reading files that a stranger may have made: regular files only, of limited size; JSON of limited depth."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from robustlab.base.errors import UserError

JSON_BYTES = 64 << 20  # of one document
JSON_VALUES = 5_000_000  # in one document: each takes about 100 bytes of memory, in two characters of text
JSON_DEPTH = 32
HEADER_BYTES = 16 << 20  # of a safetensors file: 100,000 tensors and more
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}


@contextmanager
def open_regular(path: str | Path, most: int | None = None, *, folder: str | Path | None = None) -> Iterator[IO[bytes]]:
    """A regular file of at most `most` bytes, open to read.

    folder: then `path` is a name relative to this folder, may not lead out of it, and no link in it is followed. The
    folder itself, and a path without a folder, are the user's own words, in which links are usual.
    Raises FileNotFoundError where there is none, and UserError where it is something else, too large or not readable.
    """
    shown = Path(path) if folder is None else Path(folder) / path
    try:
        handle = _opened(os.fspath(path), None if folder is None else os.fspath(folder))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{shown} was not read: {_why(shown, folder, error)}.") from error
    with ExitStack() as closing:
        closing.callback(os.close, handle)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{shown} was not read: it is {_kind(status)}, and a regular file was expected.")
        if most is not None and status.st_size > most:
            raise UserError(
                f"{shown} was not read: it has {status.st_size:,} bytes, and at most {most:,} are read of such a file."
            )
        yield closing.enter_context(os.fdopen(handle, "rb", closefd=False))


def read_bounded(path: str | Path, most: int, *, folder: str | Path | None = None) -> bytes:
    """The bytes of a regular file; see `open_regular`."""
    with open_regular(path, most, folder=folder) as file:
        content = file.read(most + 1)
    if len(content) > most:  # it grew while it was read
        raise UserError(f"{path} was not read: it has more than {most:,} bytes.")
    return content


def read_json(path: str | Path, *, folder: str | Path | None = None) -> Any:
    """A JSON document from a regular file; see `open_regular`. What is no JSON is a UserError that says where."""
    content = read_bounded(path, JSON_BYTES, folder=folder)
    try:
        return decoded(content)
    except ValueError as error:
        raise UserError(f"{path if folder is None else Path(folder) / path} is damaged: {error}.") from None


def decoded(content: bytes) -> Any:
    """The value of a JSON text. ValueError where it is none, nested more than 32 deep, or of too many values.

    >>> decoded(b'{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > JSON_VALUES:
        raise ValueError(f"it holds more than {JSON_VALUES:,} values")
    try:
        value = msgspec.json.decode(content)
    except RecursionError:
        raise ValueError(f"it is nested more than {JSON_DEPTH} deep") from None
    level, deep = [value] if isinstance(value, dict | list) else [], 0
    while level:
        if deep == JSON_DEPTH:
            raise ValueError(f"it is nested more than {JSON_DEPTH} deep")
        deep += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return value


def check_safetensors(path: str | Path, *, folder: str | Path | None = None) -> None:
    """UserError unless the file is regular and its header, which is read whole, has a usual size; see `open_regular`.

    What the header says of the tensors, the library checks against the size of the file.
    """
    with open_regular(path, folder=folder) as file:
        claimed = int.from_bytes(file.read(8), "little")
        if claimed > HEADER_BYTES:
            raise UserError(
                f"{path} is not a whole safetensors file: its header claims {claimed:,} bytes, and at most"
                f" {HEADER_BYTES:,} are read."
            )


def _opened(path: str, folder: str | None) -> int:
    # without waiting for the other end of a pipe
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if folder is None:
        return os.open(path, flags)
    *inner, name = parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("it leads out of the folder")
    at = os.open(folder, flags | os.O_DIRECTORY)
    try:
        for part in inner:
            below = os.open(part, flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=at)
    finally:
        os.close(at)


def _kind(status: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(status.st_mode), "no file")


def _why(path: Path, folder: str | Path | None, error: Exception) -> str:
    if folder is not None and isinstance(error, OSError):
        places = [Path(folder), *(Path(folder, *path.relative_to(folder).parts[:n]) for n in range(1, len(path.parts)))]
        with suppress(OSError, ValueError):
            if link := next((place for place in places[1:] if place.is_symlink()), None):
                return f"{link} is a link, and in a run folder no link is followed"
    if isinstance(error, OSError):
        with suppress(OSError, ValueError):
            if (status := path.lstat()) and not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
                return f"it is {_kind(status)}, and a regular file was expected"
        return error.strerror or str(error)
    return str(error)
