"""What files and folders are called."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from robustlab.base.errors import UserError, spelled
from robustlab.base.files.manifest import INFO, NEW

_reserved: dict[Path, list[Path]] = {}  # by `default_folder`, with the folders that were made for it


def slug(name: str) -> str:
    """A short file name for any name: different names stay different.

    >>> slug("road-signs/cnn")
    'road-signs_cnn'
    """
    short = name.rsplit("/", 1)[-1] if name.startswith("/") else name  # a run is shown to strangers: no home folders
    plain = re.sub(r"[^A-Za-z0-9.-]+", "_", short).lstrip(".")[:60]
    if plain.replace("_", "/") == name:
        return plain
    return f"{plain}-{hashlib.blake2b(name.encode(errors='surrogatepass'), digest_size=4).hexdigest()}"


def settled(path: Path) -> Path:
    """The path as the user typed it, or, where it goes back up, what it means: reports/../mine is mine.

    `..` does not lead anywhere where there is no reports, and that is when it would be misread.
    """
    return resolved(path) if ".." in path.parts else path


def resolved(path: Path) -> Path:
    """An absolute path without links and `..`, whether it is there or not."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
        raise UserError(f"{str(path)!r} cannot be used as a path: {error}.") from error


def default_folder(*parts: str) -> Path:
    """A new folder reports/PARTS-DATE-TIME, in the current folder; of a name such as npz:PATH the file's own name.

    It is made at once, so that no other process chooses the same; `resumable` takes it away if nothing gets there.
    """
    names = [re.sub(r"[^A-Za-z0-9.-]+", "_", Path(part.rpartition(":")[2]).resolve().stem)[:60] for part in parts]
    name = f"{'-'.join(names).strip('.-_') or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        folder = Path("reports") / (name if number == 1 else f"{name}-{number}")
        try:
            made = make_folders(folder)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be made: {error.strerror}. Give a folder that can be written to: {spelled('output')}."
            ) from error
        if folder in made:
            _reserved[folder.resolve()] = [each.resolve() for each in made]
            return folder
    raise AssertionError  # numbers do not end


def make_folders(path: Path) -> list[Path]:
    """Make a folder and those that it lies in; returns those that were not there, the innermost first."""
    made: list[Path] = []
    for each in reversed((path, *path.parents)):
        try:
            each.mkdir()
            made.insert(0, each)
        except OSError:  # there already, or a root that says something else
            if not each.is_dir():
                raise
    return made


def remove_folders(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextlib.contextmanager
def resumable(folder: Path, overwrite: bool = False) -> Iterator[None]:
    """An interrupt says how to go on, if anything was written; a default folder that stayed empty goes away."""
    before = _written(folder)
    try:
        yield
    except KeyboardInterrupt:
        if _written(folder) == before:
            raise
        flags = f"{spelled('output')} {shlex.quote(str(folder))} {spelled('resume', True)}"
        raise KeyboardInterrupt(flags + f" instead of {spelled('overwrite', True)}" * overwrite) from None
    finally:
        give_back(folder)


def _written(folder: Path) -> list[tuple[int, int]]:
    """The state of the folder; it changes when a run begins or goes on."""
    files = [path.stat() for path in (folder / INFO, folder / NEW / INFO) if path.is_file()]
    return [(status.st_ino, status.st_mtime_ns) for status in files]


def give_back(folder: Path) -> None:
    """Remove a folder of `default_folder`, if it is empty."""
    remove_folders(_reserved.pop(folder.resolve(), []))
