"""A lock that dies with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from robustlab.base.errors import UserError
from robustlab.base.files.directory import Directory
from robustlab.base.files.manifest import LOCK


class Lock:
    """An exclusive flock on the file .lock in a directory, held until `release` or until the process dies."""

    def __init__(self, place: Directory, shown: Path) -> None:
        self.place = place
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            self._file = os.open(LOCK, flags, 0o644, dir_fd=place.handle)
            status = os.fstat(self._file)
            if not stat.S_ISREG(status.st_mode) or status.st_size:
                os.close(self._file)
                raise UserError(f"{shown / LOCK} is not a lock of robustlab. Choose another output.")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._file)
                raise UserError(
                    f"{shown} is in use by another robustlab process. Wait for it, or choose another output."
                ) from None
            # its last holder removed the file when done: what is locked must be what is there
            if self._is_there():
                return
            os.close(self._file)

    def _is_there(self) -> bool:
        status = self.place.status(LOCK)
        return status is not None and os.path.samestat(os.fstat(self._file), status)

    def release(self) -> None:
        """Let go, and leave no file behind. A second call does nothing."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                if self._is_there() and os.fstat(self._file).st_size == 0:
                    os.unlink(LOCK, dir_fd=self.place.handle)
            os.close(self._file)
            self._file = -1
