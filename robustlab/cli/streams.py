"""Standard output and error that never stop the work: no reader, a full disk, a closed or an ASCII-only stream."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from robustlab.base.words import visible_json

PLAIN = str.maketrans(
    {"ε": "eps", "∞": "inf", "–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "…": "...", "·": ".", "≤": "<="}
    | {"₀": "0", "₁": "1", "₂": "2", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "─": "-", "━": "-", "│": "|"}
)


def plain(text: str) -> str:
    """A text in ASCII; what has no usual spelling there becomes an escape.

    >>> plain("L∞ ε = 0.3, 表")
    'Linf eps = 0.3, \\\\u8868'
    """
    return text.translate(PLAIN).encode("ascii", "backslashreplace").decode()


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What a stream shows of characters that it cannot."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


codecs.register_error("robustlab", _in_ascii)


def print_json(value: Any) -> None:
    """A result on standard output, for --json; what cannot be seen in it as an escape."""
    import msgspec

    written = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.buffer.write(visible_json(written).encode() + b"\n")


class _Raw(io.RawIOBase):
    """A file descriptor; once a write has failed, `lost` says why, and what follows goes nowhere."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        while self.lost is None:
            try:
                return os.write(self.number, data)
            except BlockingIOError:
                select.select([], [self.number], [])
            except OSError as error:
                self.lost = error
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def isatty(self) -> bool:
        return self.lost is None and os.isatty(self.number)


@contextmanager
def guarded() -> Iterator[_Lost]:
    """The process's own streams replaced by such; yields what became of standard output."""
    _occupy()
    before, lost = (sys.stdout, sys.stderr), _Lost()
    sys.stdout, lost.raw = _stream(sys.stdout, sys.__stdout__, 1)
    sys.stderr, _ = _stream(sys.stderr, sys.__stderr__, 2)
    try:
        yield lost
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and stream not in before:
                stream.flush()
        sys.stdout, sys.stderr = before


class _Lost:
    """Why what was printed on standard output did not arrive."""

    raw: _Raw | None = None

    @property
    def reason(self) -> str | None:
        """None where all arrived; empty where the reader has left, as in `robustlab zoo | head -1`."""
        if sys.stdout is not None:
            sys.stdout.flush()
        if self.raw is None or self.raw.lost is None:
            return None
        return "" if self.raw.lost.errno == errno.EPIPE else str(self.raw.lost.strerror)


def _occupy() -> None:
    """Give closed descriptors a file, so that none of the run's gets their number and what is written to them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # in order, so that each gets its own; one that cannot be written to, as before
            os.open(os.devnull, os.O_RDONLY)


def _stream(now: TextIO | None, own: TextIO | None, number: int) -> tuple[TextIO, _Raw | None]:
    """The stream to use, and what is under it. now, own: what stands in `sys`, and what Python made of the process."""
    if now is not own:  # a caller's, as pytest's
        return now or io.StringIO(), None
    if now is not None:
        now.flush()
    raw = _Raw(-1 if now is None else number)  # a closed one's number may be that of another file by now
    encoding = "utf-8" if now is None else now.encoding
    lines = number == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="robustlab", line_buffering=lines), raw
