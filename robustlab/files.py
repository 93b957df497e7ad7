"""Files that are whole or not there, and a lock that dies with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from robustlab.errors import RunError, UserError


def default_folder(*parts: str) -> Path:
    """reports/PARTS-DATE-TIME, in the current folder; of a name such as npz:PATH the file's own name.

    >>> str(default_folder("train", "road-signs/cnn")).startswith("reports/train-cnn-")
    True
    """
    names = [Path(part.rpartition(":")[2]).resolve().stem for part in parts]
    return Path("reports") / f"{'-'.join(names)}-{datetime.now():%Y%m%d-%H%M%S}"


@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """An interrupt says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"--output {folder} --resume") from None


@contextlib.contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """Write to a temporary name beside `path`; the file appears under its own name when it is whole.

    sync: also push it through the operating system's cache, so that it outlives a power cut.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[None]:
    """A file system that refuses is the run's error, not a bug: what is written stays good."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write in {folder}: {error.strerror}. What is finished is safe: mend that and go on with --resume."
        ) from error


class Lock:
    """An exclusive flock on folder/.lock, held until `release` or until the process dies; makes the folder.

    resume, overwrite: what is meant to be done with what is there; both at once is a `UserError`.
    """

    def __init__(self, folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        if resume and overwrite:
            raise UserError("--resume goes on with what is there and --overwrite removes it: give one of them.")
        self.path = folder / ".lock"
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o644)
            except OSError as error:
                raise UserError(
                    f"--output {folder} cannot be written to: {error.strerror}. Give a folder that can, or mend that."
                ) from error
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._file)
                raise UserError(
                    f"{folder} is in use by another robustlab process. Wait for it, or choose another --output."
                ) from None
            # its last holder removed the file when done: what is locked must be what is there
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file), os.stat(self.path)):
                    return
            os.close(self._file)

    def release(self) -> None:
        """Let go, and leave no file behind. A second call does nothing."""
        if self._file >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1
