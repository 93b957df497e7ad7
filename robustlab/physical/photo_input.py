"""Photographs of one's own: a picture, or a folder of video frames, and the corners of the thing in them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.reading import JSON_BYTES, read_bounded, read_json
from robustlab.data.decoding import ENDINGS, FILE_BYTES, decode, to_tensor
from robustlab.physical.photo_view import check_corners

FORM = 'four corners as "x,y x,y x,y x,y", clockwise from the upper left one'


@dataclass(frozen=True, eq=False)
class Photographs:
    """images: (N, 3, H, W) in [0, 1]. corners: (N, 4, 2), in their pixels. names: of the files, in order."""

    images: Tensor
    corners: Tensor
    names: list[str]


def photographs(path: str | Path, corners: str | Path, size: int | tuple[int, int] = 32) -> Photographs:
    """One picture, or all of a folder in the order of their names, scaled to the model's size (height, width).

    A picture is scaled as a whole, whatever its shape, and its corners with it. corners: "x,y x,y x,y x,y" in pixels of
    the first picture, clockwise from the upper left corner of the thing, for all of them; or a file with corners for
    each: JSON, a list of four [x, y] for each picture or one such list by its name; or CSV, one line a picture, with
    its name and eight numbers. UserError: no picture, corners that cross, lie outside or are too few.
    """
    files = _files(Path(path).expanduser())
    pictures = [_picture(file) for file in files]
    names = [file.name for file in files]
    sizes = torch.tensor([picture.size for picture in pictures])  # width, height
    words = str(corners).strip()
    if words.lower().endswith((".json", ".csv")):
        given = _of_file(Path(words).expanduser(), names)
    else:
        given = torch.tensor([_numbers(words)] * len(names), dtype=torch.float64).view(-1, 4, 2)
        other = (sizes != sizes[0]).any(1).nonzero()[:, 0].tolist()
        if other:
            (w0, h0), (w, h) = sizes[0].tolist(), sizes[other[0]].tolist()
            raise UserError(
                f"{names[0]} is {w0} x {h0} pixels and {names[other[0]]} is {w} x {h}: one set of corners is for"
                " pictures of one size. Give a JSON or CSV file with corners for each."
            )
    for at, (wide, high) in enumerate(sizes.tolist()):
        check_corners(given[at, None], high, wide, names[at : at + 1])
    height, width = (size, size) if isinstance(size, int) else size
    scaled = [picture.resize((width, height), Image.Resampling.BILINEAR) for picture in pictures]
    places = given * (torch.tensor([width, height]) / sizes)[:, None]
    return Photographs(torch.stack([to_tensor(each, 3) for each in scaled]), places.float(), names)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"{path} does not exist: give a picture, or a folder of video frames.")
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS and not file.name.startswith("."))
    if not files:
        raise UserError(f"The folder {path} holds no pictures ({', '.join(sorted(ENDINGS))}).")
    return files


def _picture(file: Path) -> Image.Image:
    try:
        return decode(read_bounded(file, FILE_BYTES)).convert("RGB")
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise UserError(f"{file} cannot be read as a picture: {str(error).removesuffix('.')}.") from error


def _numbers(words: str, what: str = "") -> list[float]:
    """Eight finite numbers from a text. UserError: other words, or another count."""
    parts = words.replace(",", " ").split()
    try:
        values = [float(part) for part in parts]
    except ValueError:
        raise UserError(f"Expected {FORM}{what}; got {words!r}.") from None
    return _eight(values, what)


def _eight(values: list[float], what: str) -> list[float]:
    if len(values) != 8:
        raise UserError(f"Expected {FORM}{what}, which are 8 numbers; got {len(values)}.")
    if not all(abs(value) < 1e9 for value in values):  # not of NaN, either
        raise UserError(f"Expected {FORM}{what}; a number is not finite.")
    return values


def _of_file(file: Path, names: list[str]) -> Tensor:
    """(N, 4, 2) corners from a JSON or CSV file, in the order of the names."""
    try:
        known = read_json(file) if file.suffix.lower() == ".json" else _of_csv(read_bounded(file, JSON_BYTES), file)
    except FileNotFoundError as error:
        raise UserError(f"The file of corners {file} does not exist.") from error
    if isinstance(known, dict):
        if missing := [name for name in names if name not in known]:
            raise UserError(f"{file} has no corners for {missing[0]} ({len(missing)} of {len(names)} are missing).")
        known = [known[name] for name in names]
    if not isinstance(known, list) or len(known) != len(names):
        got = f"{len(known)} sets" if isinstance(known, list) else "none"
        raise UserError(f"{file} must hold four corners for each of the {len(names)} pictures; got {got}.")
    rows = [
        _eight(_flat(each, f" for {name} in {file}"), f" for {name} in {file}")
        for each, name in zip(known, names, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64).view(-1, 4, 2)


def _flat(value: Any, what: str) -> list[float]:
    """The numbers of [[x, y], ...] or of [x, y, ...]."""
    if isinstance(value, str):
        return _numbers(value, what)
    inner: list[Any] = [value]
    if isinstance(value, list):
        inner = [number for each in value for number in (each if isinstance(each, list) else [each])]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in inner):
        raise UserError(f"Expected {FORM}{what}, as four pairs [x, y]; got {str(value)[:60]}.")
    return [float(number) for number in inner]


def _of_csv(content: bytes, file: Path) -> dict[str, str]:
    """The words of the corners by the name of the picture; a line of titles is passed over."""
    try:
        lines = [line for line in csv.reader(io.StringIO(content.decode("utf-8-sig"))) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is no CSV file: {error}.") from error
    return {line[0].strip(): " ".join(line[1:]) for line in lines}
