"""A folder that a command writes piece by piece, and may go on with after a kill.

It is ours only if its run.json says so; run.json is the first file to be written. Every file is named in a journal
before it appears, and in run.json when all is finished: only what is named there is ever replaced or removed. With
`overwrite` the new run is written into the folder .new inside, and takes the old one's place when it is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from robustlab.base.errors import RunError, UserError, spelled
from robustlab.base.files.directory import Directory
from robustlab.base.files.lock import Lock
from robustlab.base.files.manifest import (
    INFO,
    JOURNAL,
    NEW,
    Json,
    Kind,
    encoded,
    found,
    journal_line,
    names_of,
    read_journal,
    remove,
    remove_temporary,
)
from robustlab.base.files.names import make_folders, remove_folders, resolved, settled
from robustlab.base.files.replacing import replace_run
from robustlab.base.files.single import check_folder, disk, refused


class OutputFolder:
    """An output folder, held by one process.

    folder: as it was typed. info: run.json of the run to go on with; None where there is none, and `start` comes next.
    replaces: a run is there that stays until the new one is whole.

    UserError: it holds anything that is not ours or of another kind, a run and neither `resume` nor `overwrite` was
    asked for, or somebody else is writing there.
    """

    def __init__(self, folder: Path, kind: Kind, *, resume: bool = False, overwrite: bool = False) -> None:
        if resume and overwrite:
            raise UserError(
                f"{spelled('resume')} goes on with what is there and {spelled('overwrite')} removes it: give one of"
                " them."
            )
        self.folder, self.kind = settled(folder), kind
        self.info: Json | None = None
        self._begin()
        path = resolved(folder)
        if path.name == NEW:
            raise UserError(f"The output {folder}: {NEW} is where a replacement is written. Choose another output.")
        with refused(self.folder), contextlib.ExitStack() as undo:
            check_folder(path, self.folder)
            if path.exists():
                with Directory.open(path) as there:
                    self._allowed(found(there, kind, self.folder), there, resume or overwrite)
            self._made = make_folders(path)
            undo.callback(remove_folders, self._made)
            self._root = self._place = Directory.open(path)
            undo.callback(self._root.close)
            self._lock: Lock | None = Lock(self._root, self.folder)
            undo.callback(self._lock.release)
            self._settle(resume, overwrite)
            undo.pop_all()

    @classmethod
    def beside(cls, folder: Path, kind: Kind) -> Self:
        """The same folder in a second process of the same job, while the first one holds it."""
        self = cls.__new__(cls)
        self.folder, self.kind, self._lock, self._made = settled(folder), kind, None, []
        self._begin()
        with refused(self.folder):
            self._root = self._place = Directory.open(resolved(folder))
            if self._root.is_file(f"{NEW}/{INFO}"):
                self._place = self._root.folder(NEW)
            self.info = found(self._place, kind, self.folder)
            self._names = names_of(self._place, self.info or {}, kind)
        return self

    def _begin(self) -> None:
        self._names: set[str] = set()  # files of ours, by run.json and the journal
        self._old: set[str] = set()  # those of the run that is to be replaced
        self._offset = 0  # of the journal, what was read

    @property
    def replaces(self) -> bool:
        return self._place is not self._root

    def start(self, info: Mapping[str, Any]) -> None:
        """Write the first run.json into the empty folder: from here on it is ours."""
        with disk(self.folder):
            self._here()
            remove_temporary(self._place, [])  # a kill may have left some of another first run.json
            self._place.write(INFO, encoded(info))
            self._place.write(JOURNAL, b"")
        self.info = dict(info)

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Write run.json again."""
        with disk(self.folder):
            self._here()
            self._place.write(INFO, encoded(info), replace=True)
        self.info = dict(info)

    def write(self, name: str, data: bytes, *, sync: bool = True) -> None:
        """Write a file of ours, `file` or `folder/file`, whole or not at all; written before, it is replaced."""
        assert self.kind.may_write(name), name
        with disk(self.folder):
            self._here()
            known = name in self._names
            if not known and (status := self._place.status(name)) is not None:
                # after a power cut, a file may outlive the line that names it
                if not self._place.is_file(name) or (status.st_size and self._place.read(name) != data):
                    raise self._not_ours(name)
                known = True
            self._note("+", name, sync)
            if "/" in name:
                self._place.make(name.partition("/")[0])
            try:
                self._place.write(name, data, replace=known, sync=sync)
            except FileExistsError:  # made since we looked
                self._note("-", name, sync)
                raise self._not_ours(name) from None

    def read(self, name: str, most: int | None = None) -> bytes | None:
        """A file of ours, the first `most` bytes of it; None where there is none."""
        with disk(self.folder):
            return self._place.read(name, most) if self._knows(name) else None

    def names(self, folder: str) -> list[str]:
        """Our files in a folder, sorted, those of other processes among them."""
        with disk(self.folder):
            self._read_names()
            return sorted(name for name in self._names if name.startswith(f"{folder}/"))

    def has(self, name: str) -> bool:
        """Is it a file of ours with anything in it?"""
        status = self._place.status(name)
        return self._knows(name) and self._place.is_file(name) and status is not None and status.st_size > 0

    def free(self, name: str) -> bool:
        """Can a file be written under this name later on: is nothing called so, or what goes when this is finished?"""
        return self._knows(name) or name in self._old or self._root.status(name) is None

    def finish(self, info: Mapping[str, Any], keep: Iterable[str]) -> None:
        """Write the last run.json, which names the files to keep; the others go, and a run that was there before."""
        self.write_info({**info, "files": sorted(keep)})
        with disk(self.folder):
            self._tidy()
            if self.replaces:
                self._replace()

    def abandon(self) -> None:
        """Remove what was written since the run began, and the folder, if it was made for it."""
        with contextlib.suppress(OSError):
            self._read_names()
            self._clear(self._place, self._names)
        self.info = None

    def close(self) -> None:
        """Let go of the folder. What is written stays. A second call does nothing."""
        if self._root.handle < 0:
            return
        if self._lock:
            self._lock.release()
        if self.replaces:
            self._place.close()
            self._root.drop(NEW)
        self._root.close()
        remove_folders(self._made)

    def _allowed(self, info: Json | None, there: Directory, told: bool) -> None:
        if info is not None and not told:
            half = f" (and in {NEW} one that was to replace it)" if there.is_file(f"{NEW}/{INFO}") else ""
            raise UserError(
                f"{self.folder} already holds a {self.kind.word}{half}. Add {spelled('resume', True)} to go on"
                f" with it, {spelled('overwrite', True)} to replace it, or choose another output."
            )

    def _settle(self, resume: bool, overwrite: bool) -> None:
        """Decide, now that nobody else writes here, where to go on or to begin."""
        info = found(self._root, self.kind, self.folder)
        self._allowed(info, self._root, resume or overwrite)
        if info is not None and self._root.status(NEW) is not None:
            info = self._left(info, overwrite)
        if info is not None and (overwrite or self.replaces):
            old = found(self._root, self.kind, self.folder) or {}
            self._old = names_of(self._root, old, self.kind)
            self._check_places(self._old)
        if info is not None and overwrite:
            self._root.make(NEW)
            self._place, info = self._root.folder(NEW), None
        self.info = info
        if info is None:
            return
        names = {name for name in names_of(self._place, info, self.kind) if self._place.is_file(name)}
        if not self.replaces:
            self._check_places(names if not info.get("finished", True) else None)
        self._names = names
        if info.get("finished", True):
            self._tidy()
        else:
            self.write_info({**info, "files": sorted(names)})
            self._place.write(JOURNAL, b"", replace=True)

    def _left(self, old: Json, overwrite: bool) -> Json | None:
        """What a killed `overwrite` left: if it is whole, it takes its place now; else it is gone on with, or goes."""
        if not self._root.is_folder(NEW):
            raise self._in_the_way(NEW)
        self._place = self._root.folder(NEW)
        info = found(self._place, self.kind, self.folder / NEW)
        if info is not None and info.get("finished"):
            self._names, self.info = names_of(self._place, info, self.kind), info
            self._tidy()
            self._replace()
            return found(self._root, self.kind, self.folder)
        if info is not None and not overwrite:
            return info
        if info is not None:
            self._clear(self._place, names_of(self._place, info, self.kind))
        remove_temporary(self._place, [])
        self._place.close()
        self._place = self._root
        self._root.drop(NEW)
        return old

    def _clear(self, place: Directory, names: Iterable[str]) -> None:
        remove(place, {*names, JOURNAL})
        for folder in self.kind.folders:
            place.drop(folder)
        place.remove(INFO)  # the last: until then the folder is ours

    def _replace(self) -> None:
        """Put the finished run in .new into the place of the old one."""
        new, self._place = self._place, self._root
        try:
            replace_run(self._root, new, self.kind, self.folder)
        finally:
            new.close()

    def _tidy(self) -> None:
        """Of a finished run, remove what its run.json does not name."""
        assert self.info is not None
        keep = set(self.info.get("files", self._names))
        self._read_names()
        remove(self._place, self._names - keep)
        remove_temporary(self._place, keep)
        for folder in self.kind.folders:
            if not any(name.startswith(f"{folder}/") for name in keep):
                self._place.drop(folder)
        self._place.remove(JOURNAL)
        self._names, self._offset = keep, 0

    def _check_places(self, ours: set[str] | None) -> None:
        """UserError where something that is not ours (None: that is no file) stands where a run writes."""
        for name in self.kind.files:
            status = self._root.status(name)
            if status is not None and not ((ours is None or name in ours) and self._root.is_file(name)):
                raise self._in_the_way(name)
        for folder in self.kind.folders:
            if self._root.status(folder) is not None and not self._root.is_folder(folder):
                raise self._in_the_way(folder)
        if self._root.status(JOURNAL) is not None and not self._root.is_file(JOURNAL):
            raise self._in_the_way(JOURNAL)

    def _in_the_way(self, name: str) -> UserError:
        return UserError(
            f"{self.folder / name} is not robustlab's, and the {self.kind.word} must write there. Move it away,"
            " or choose another output."
        )

    def _not_ours(self, name: str) -> RunError:
        return RunError(
            f"{self.folder / name} appeared while the {self.kind.word} was going on and is not robustlab's, so"
            f" it is not replaced. Move it away and go on with {spelled('resume', True)}."
        )

    def _here(self) -> None:
        for place in {self._root, self._place}:
            if not place.in_place:
                raise RunError(
                    f"{self.folder} was moved, removed or replaced while robustlab was writing there. Nothing more is"
                    f" written. Put it back and go on with {spelled('resume', True)}."
                )

    def _knows(self, name: str) -> bool:
        if name not in self._names:
            self._read_names()
        return name in self._names

    def _note(self, sign: str, name: str, sync: bool) -> None:
        self._place.append(JOURNAL, journal_line(name, sign), sync=sync)
        self._read_names()

    def _read_names(self) -> None:
        """What was added to the journal since we looked, by us or by another process."""
        more = self._place.read(JOURNAL, start=self._offset) or b""
        whole = more[: more.rfind(b"\n") + 1]
        self._offset += len(whole)
        given, taken = read_journal(whole)
        self._names = (self._names | set(filter(self.kind.may_write, given))) - taken
