"""Standard streams that are closed, full, without a reader or in ASCII: an exit code, a message, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROBUSTLAB = f"{sys.executable} -m robustlab"
BAD, FULL = "Bad file descriptor", "No space left on device"


def shell(line: str, place: Path, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, cwd=place, env={**os.environ, **variables}
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("zoo >&-", 1, f"Standard output cannot be written to: {BAD}"),
        ("zoo >/dev/full", 1, f"Standard output cannot be written to: {FULL}"),
        ("zoo 2>&-", 0, ""),
        ("zoo 2>/dev/full", 0, ""),
        ("zoo >&- 2>&-", 1, ""),
        ("--help | true", 1, ""),  # the reader has left: in silence
        ("zoo gone >&-", 2, "There is no 'gone'"),
        ("zoo gone 2>/dev/full", 2, ""),
    ],
)
def test_a_stream_that_is_lost_is_no_traceback(line: str, code: int, said: str, tmp_path: Path) -> None:
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    found, _, err = shell(f"{ROBUSTLAB} {line}", tmp_path)
    assert found == code and said in err and (bool(said) or not err)
    assert "Traceback" not in err and "Exception" not in err


def test_an_ascii_terminal_gets_ascii(tmp_path: Path) -> None:
    (tmp_path / "ε∞.toml").write_text("nothing = 1\n", encoding="utf-8")
    code, out, err = shell(f"{ROBUSTLAB} --help; {ROBUSTLAB} attack ε∞.toml", tmp_path, PYTHONIOENCODING="ascii")
    assert code == 2 and "Usage" in out and "+-" in out and "epsinf.toml" in err
    assert (out + err).isascii()


def test_a_folder_that_was_removed_is_one_message(tmp_path: Path) -> None:
    code, _, err = shell(f"mkdir gone; cd gone; rmdir ../gone; {ROBUSTLAB} zoo", tmp_path)
    assert code == 2 and "The current folder was removed" in err and "Traceback" not in err
