"""Images and archives that claim more than they are: one message, at once, and little memory."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustlab.base.errors import UserError
from robustlab.data import load_data
from robustlab.data.decoding import decode


def _png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG file that claims a size, whatever pixels it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _text(path: Path) -> None:
    """A text chunk that unpacks to 5 MB."""
    packed = b"k\0\0" + zlib.compress(b"\0" * 5_000_000)
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    good = _png(4, 4, (b"\0" + bytes(12)) * 4)
    path.write_bytes(good[:33] + chunk + good[33:])


def _write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(_png(4, 4))
        file.truncate(1 << 40)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/tmp/x) (w) file\n"
IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "10^9 pixels": (_write(_png(40_000, 40_000)), r"pixels|decompression bomb"),
    "70 million pixels": (_write(_png(10_000, 7_000)), "70,000,000 pixels; at most 67,108,864"),
    "a line": (_write(_png(1, 1_000_000)), "1,000,000 pixels long and 1 wide"),
    "text": (_text, "too large"),
    "code": (_write(POSTSCRIPT), "no image"),
    "a terabyte": (_huge, "1,099,511,627,776 bytes"),
    "pipe": (lambda path: os.mkfifo(path), "a named pipe|no images"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device|no images"),
    "cut": (_write(_png(4, 4, b"\0")), "."),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, tmp_path: Path) -> None:
    make, message = IMAGES[name]
    (tmp_path / "test" / "cat").mkdir(parents=True)
    make(tmp_path / "test" / "cat" / "x.png")
    with pytest.raises(UserError, match=message):
        load_data(f"folder:{tmp_path}")


def test_a_large_photograph_is_read() -> None:
    stream = io.BytesIO()
    Image.new("L", (3000, 2000)).save(stream, format="PNG")
    assert decode(stream.getvalue()).size == (3000, 2000)


def test_sixteen_bits_round_as_in_exact_numbers() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="PNG")
    assert np.array_equal(np.asarray(decode(stream.getvalue())), np.rint(values.astype(np.float64) / 257))


GOOD = {"test_images": np.zeros((2, 4, 4), np.uint8), "test_labels": np.arange(2)}


def _header(shape: str, descr: str = "|u1") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (63 - (10 + len(text)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def _archive(path: Path, key: str, member: bytes, packed: bool = False) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, array in GOOD.items():
            stream = io.BytesIO()
            np.save(stream, array)
            file.writestr(f"{name}.npy", member if name == key else stream.getvalue())
        if key not in GOOD:
            file.writestr(f"{key}.npy", member)


CLAIMS: dict[str, tuple[str, bytes, str]] = {
    "terabytes": ("test_images", _header("(1000000000000, 4, 4)"), "claims the shape"),
    "beyond int64": ("test_images", _header("(100000000000000000000000, 4)"), "claims the shape"),
    "negative": ("test_images", _header("(-1, 4, 4)"), "claims the shape"),
    "text for a number": ("test_images", _header("('x',)"), "cannot be read"),
    "nested": ("test_images", _header("(" * 3000), "cannot be read"),
    "objects": ("test_images", _header("(2,)", "|O") + b"cos\nsystem\n(S'true'\ntR.", "cannot be read"),
    "names of no length": ("class_names", _header("(1000000000,)", "<U0"), "claims the shape"),
    "labels of numbers": ("test_labels", _header("(1000000000,)", "<i8"), "claims the shape"),
    "huge labels": ("test_labels", _header("(2,)", "<i8") + struct.pack("<qq", 0, 2**62), "at most 100,000 classes"),
    "unsigned labels": ("test_labels", _header("(2,)", "<u8") + struct.pack("<QQ", 0, 2**64 - 1), "from 0 on"),
    "nothing": ("test_labels", b"", "cannot be read"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_archives(name: str, tmp_path: Path) -> None:
    key, member, message = CLAIMS[name]
    _archive(tmp_path / "x.npz", key, member)
    with pytest.raises(UserError, match=message):
        load_data(f"npz:{tmp_path}/x.npz")


@pytest.mark.slow
def test_an_archive_that_unpacks_to_a_gigabyte(tmp_path: Path) -> None:
    _archive(tmp_path / "x.npz", "test_images", _header("(1000000, 32, 32)") + bytes(1024 * 10**6), packed=True)
    assert (tmp_path / "x.npz").stat().st_size < 2_000_000
    with pytest.raises(UserError, match=r"bytes would become 1,024,000,128"):
        load_data(f"npz:{tmp_path}/x.npz")


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")])
def test_archives_that_never_end(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x.npz")
    with pytest.raises(UserError, match="names an .npz file"):
        load_data(f"npz:{tmp_path}/x.npz")
