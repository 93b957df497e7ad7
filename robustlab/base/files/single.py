"""Single files that a user asked for, and folders of files that are written at once."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from robustlab.base.errors import RunError, UserError, spelled
from robustlab.base.files.directory import Directory
from robustlab.base.files.manifest import foreign, of_a_run
from robustlab.base.files.names import make_folders, remove_folders, resolved, settled


def place_of(output: Path) -> Path:
    """Where a file of this name is: its folder without links and `..`; the file itself may be a link."""
    if output.name in ("", ".."):
        raise UserError(f"The output {output} is a folder; a file was expected.")
    return resolved(output.parent) / output.name


def check_output(output: Path, *, replace: bool) -> None:
    """UserError where a file cannot be written, or where one lies that may not go (replace: it may)."""
    place = place_of(output)
    try:
        mode = place.lstat().st_mode
    except OSError:
        return  # not there; what else is wrong is said when it is written
    if stat.S_ISDIR(mode):
        raise UserError(f"The output {output} is a folder; a file was expected.")
    if stat.S_ISLNK(mode):
        raise UserError(f"The output {output} is a link, and no link is followed. Give the file itself.")
    if not stat.S_ISREG(mode):
        raise UserError(f"The output {output} is no regular file. Choose another output.")
    if of_a_run(place):
        raise UserError(f"The output {output} is a file of a run, which would be lost. Choose another output.")
    if not replace:
        raise UserError(
            f"{output} is there already. Add {spelled('overwrite', True)} to replace it, or choose another."
        )


def write_output(output: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file whole or not at all, and its folder where there is none; see `check_output`.

    UserError where there is one that may not go, whoever made it meanwhile. RunError where the disk refuses.
    """
    check_output(output, replace=replace)
    try:
        write_file(place_of(output), data, replace=replace)
    except OSError as error:
        if isinstance(error, FileExistsError) and os.path.lexists(output):
            raise UserError(f"{output} was made by somebody else meanwhile. Choose another output.") from error
        raise RunError(f"Cannot write {output}: {error.strerror}. Fix that, or choose another output.") from error


def write_file(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file, and its folder where there is none; a file that is there is replaced, a link never followed.

    Raises OSError.
    """
    folder = resolved(path.parent)
    folder.mkdir(parents=True, exist_ok=True)
    with Directory.open(folder) as place:
        place.write(path.name, data, replace=replace)


@dataclass
class NewFolder:
    """A folder that is filled at once; see `new_folder`."""

    place: Directory
    written: list[str] = field(default_factory=list)

    def write(self, name: str, data: bytes) -> None:
        """Write `file` or `folder/file`, which must be new. Raises OSError."""
        folder, slash, _ = name.rpartition("/")
        if slash:
            self.place.make(folder)
        self.place.write(name, data, sync=False)
        self.written.append(name)


def check_new_folder(path: Path) -> None:
    """Raise what `new_folder` would raise about what is there, before work is done for it. Writes nothing."""
    shown, path = settled(path), resolved(path)
    with refused(shown):
        check_folder(path, shown)
        if names := sorted(each.name for each in path.iterdir()) if path.is_dir() else []:
            raise foreign(shown, names)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[NewFolder]:
    """A folder to be filled at once: one that is empty, or not there yet. If that fails, what was written goes again.

    UserError where it holds anything; RunError where the disk refuses.
    """
    shown, path = settled(path), resolved(path)
    with refused(shown):
        check_folder(path, shown)
        made = make_folders(path)
        place = Directory.open(path)
    with place:
        if names := place.names():
            raise foreign(shown, names)
        filled = NewFolder(place)
        try:
            with disk(shown, resumes=False):
                yield filled
        except BaseException:
            for name in filled.written:
                place.remove(name)
            for folder in {name.rpartition("/")[0] for name in filled.written} - {""}:
                place.drop(folder)
            remove_folders(made)
            raise


@contextlib.contextmanager
def refused(folder: Path) -> Iterator[None]:
    """A folder that cannot be written to is the user's error, before anything is written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The output {folder} cannot be written to: {error.strerror}. Fix that, or choose another output."
        ) from error


@contextlib.contextmanager
def disk(folder: Path, *, resumes: bool = True) -> Iterator[None]:
    """A file system that refuses is the run's error, not a bug: what is written stays good."""
    try:
        yield
    except OSError as error:
        safe = f" What is finished is safe: fix that and go on with {spelled('resume', True)}." if resumes else ""
        raise RunError(f"Cannot write in {folder}: {error.strerror or error}.{safe}") from error


def check_folder(path: Path, shown: Path) -> None:
    """UserError where something else than a folder is in the way."""
    if path.exists() and not path.is_dir():
        raise UserError(f"The output {shown} is a file; a folder was expected. Choose another output.")
