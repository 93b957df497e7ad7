"""Files that a stranger may have made: what is no regular file, too large or too deep is one message at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from robustlab.base.errors import UserError
from robustlab.base.reading import decoded, read_bounded, read_json


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.json").write_bytes(b'{"a": 1}')
    assert read_bounded("images/a.json", 8, folder=tmp_path) == b'{"a": 1}'
    assert read_json(tmp_path / "images" / "a.json") == {"a": 1}
    with pytest.raises(FileNotFoundError):
        read_bounded("images/b.json", 8, folder=tmp_path)


def test_links_are_followed_in_the_users_own_words_only(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"1")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "real" / "b").symlink_to("a")
    assert read_bounded(tmp_path / "real" / "b", 9) == b"1"
    assert read_bounded("a", 9, folder=tmp_path / "folder") == b"1"
    with pytest.raises(UserError, match="is a link"):
        read_bounded("b", 9, folder=tmp_path / "real")
    with pytest.raises(UserError, match="folder is a link"):
        read_bounded("folder/a", 9, folder=tmp_path)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (_pipe, "a named pipe"),
    "socket": (_socket, "a socket"),
    "folder": (Path.mkdir, "a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a link"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "is a link"),
    "circle": (lambda path: path.symlink_to(path.name), "is a link"),
    "terabyte": (_sparse, "1,099,511,627,776 bytes"),
    "secret": (lambda path: path.touch(0), "Permission denied"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_file_of_that_size_is_refused(name: str, tmp_path: Path) -> None:
    if name == "secret" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    make, expected = STRANGE[name]
    make(tmp_path / "x")
    with pytest.raises(UserError, match=expected):
        read_bounded("x", 1000, folder=tmp_path)


def test_a_device_is_refused_in_the_users_own_words_too() -> None:
    with pytest.raises(UserError, match="is a device"):
        read_bounded("/dev/zero", 1000)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a\0b", "x/"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match=r"leads out of the folder|null byte|null character"):
        read_bounded(name, 1000, folder=tmp_path / "run")


@pytest.mark.parametrize(
    "content",
    [b"[" * 33 + b"]" * 33, b"[" * 1_000_000, b'{"a":' * 100_000, b'[{"a":' * 20 + b"1" + b"}]" * 20],
    ids=["33 lists", "a million lists", "open tables", "40 of both"],
)
def test_depth_is_bounded(content: bytes) -> None:
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        decoded(content)


@pytest.mark.parametrize("content", [b"", b"{", b"nul", b'"\xff"', b'"\\ud800"', b"1e400", b"NaN", b"1" * 5000])
def test_what_is_no_json_is_a_value_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="."):
        decoded(content)
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is damaged: "):
        read_json("x.json", folder=tmp_path)
