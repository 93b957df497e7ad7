"""A directory that is held open: what lies in it is reached by name from there, and no link is ever followed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # without waiting for the other end of a pipe
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Directory:
    """An open directory. Names are `file` or `folder/file`; only regular files are read, replaced or removed.

    Everything here may raise OSError.

    >>> import tempfile
    >>> with Directory.open(Path(tempfile.mkdtemp())) as here:
    ...     here.write("a.txt", b"one")
    ...     here.read("a.txt"), here.read("b.txt"), here.names()
    (b'one', None, ['a.txt'])
    """

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.handle = handle

    @classmethod
    def open(cls, path: Path) -> Directory:
        """path: resolved; a link is refused."""
        return cls(path, os.open(path, _FOLDER))

    def folder(self, name: str) -> Directory:
        """A folder in this one, which is no link."""
        return Directory(self.path / name, os.open(name, _FOLDER, dir_fd=self.handle))

    def close(self) -> None:
        """Let go. A second call does nothing."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *of: object) -> None:
        self.close()

    @property
    def in_place(self) -> bool:
        """Does its path still lead to it?"""
        try:
            return os.path.samestat(os.fstat(self.handle), os.stat(self.path, follow_symlinks=False))
        except OSError:
            return False

    def names(self, folder: str = "") -> list[str]:
        """What lies in here, or in a folder of it; nothing where there is no such folder."""
        if not folder:
            return sorted(os.listdir(self.handle))
        if not self.is_folder(folder):
            return []
        with self.folder(folder) as inner:
            return inner.names()

    def status(self, name: str) -> os.stat_result | None:
        """lstat of what is called so, or None."""
        try:
            with self._at(name) as (at, leaf):
                return os.stat(leaf, dir_fd=at, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_file(self, name: str) -> bool:
        return (status := self.status(name)) is not None and stat.S_ISREG(status.st_mode)

    def is_folder(self, name: str) -> bool:
        return (status := self.status(name)) is not None and stat.S_ISDIR(status.st_mode)

    def read(self, name: str, most: int | None = None, *, start: int = 0) -> bytes | None:
        """The bytes of a regular file from `start` on, `most` at most; None where there is none."""
        try:
            with self._at(name) as (at, leaf), os.fdopen(os.open(leaf, _READ, dir_fd=at), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError(errno.EINVAL, f"{name} is no regular file")
                file.seek(start)
                return file.read() if most is None else file.read(most)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes, *, replace: bool = False, sync: bool = True) -> None:
        """Write under a temporary name that is new; the file appears under its own when it is whole.

        replace: a regular file of that name goes; else FileExistsError where there is anything.
        sync: also push it through the operating system's cache, so that it outlives a power cut.
        """
        with self._at(name) as (at, leaf):
            temporary = f".{leaf[:80]}.{secrets.token_hex(4)}.tmp"
            handle = os.open(temporary, _NEW, 0o666, dir_fd=at)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    if sync:
                        file.flush()
                        os.fsync(file.fileno())
                _appear(at, temporary, at, leaf, replace=replace)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=at)
                raise

    def append(self, name: str, data: bytes, *, sync: bool) -> None:
        """Add to the end of a file in here, in one piece, whoever else does so at the same time."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(name, flags, dir_fd=self.handle)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise OSError(errno.EINVAL, f"{name} is no file of its own")
            if os.write(handle, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(handle)
        finally:
            os.close(handle)

    def move(self, name: str, to: Directory, *, replace: bool = False) -> None:
        """Move a file to the same name in another directory; replace: as in `write`."""
        with self._at(name) as (at, leaf), to._at(name) as (there, _):
            _appear(at, leaf, there, leaf, replace=replace)

    def remove(self, name: str) -> None:
        """Remove a regular file, if there is one."""
        if self.is_file(name):
            with contextlib.suppress(FileNotFoundError), self._at(name) as (at, leaf):
                os.unlink(leaf, dir_fd=at)

    def make(self, folder: str) -> None:
        """Make a folder, where there is none; another process may do so at the same time."""
        try:
            os.mkdir(folder, dir_fd=self.handle)
        except FileExistsError:
            if not self.is_folder(folder):
                raise

    def drop(self, folder: str) -> None:
        """Remove a folder, if it is there and empty."""
        with contextlib.suppress(OSError):
            if self.is_folder(folder):
                os.rmdir(folder, dir_fd=self.handle)

    @contextlib.contextmanager
    def _at(self, name: str) -> Iterator[tuple[int, str]]:
        """The open directory that holds it, and its name there."""
        folder, slash, leaf = name.rpartition("/")
        if leaf in ("", ".", "..") or "/" in folder or folder in (".", ".."):
            raise OSError(errno.EINVAL, f"{name!r} is no name in a folder")
        if not slash:
            yield self.handle, leaf
            return
        with self.folder(folder) as inner:
            yield inner.handle, leaf


def _appear(at: int, old: str, there: int, new: str, *, replace: bool) -> None:
    """Rename; without `replace`, never over something else."""
    try:
        status = os.stat(new, dir_fd=there, follow_symlinks=False)
    except FileNotFoundError:
        status = None
    if status is not None and not (replace and stat.S_ISREG(status.st_mode)):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    if not replace:  # a link, unlike a rename, fails where somebody is faster
        try:
            os.link(old, new, src_dir_fd=at, dst_dir_fd=there, follow_symlinks=False)
        except NotImplementedError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            os.unlink(old, dir_fd=at)
            return
    os.rename(old, new, src_dir_fd=at, dst_dir_fd=there)
