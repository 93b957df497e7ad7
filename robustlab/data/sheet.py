"""A look at a data set: a contact sheet by class and, when asked, the images with a table of their factors."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from robustlab.base.errors import UserError
from robustlab.base.files import new_folder
from robustlab.base.pictures import packed, to_picture
from robustlab.base.words import cell, visible
from robustlab.data import Data

_COLUMNS = 12
_CELL = 80  # pixels of the sheet for one image, about
_LARGEST = 2 * _CELL
_GAP = 3
_PAPER, _INK, _FAINT = (250, 250, 248), (30, 30, 34), (120, 120, 126)


def write_sheet(data: Data, output: Path, *, images: bool = False, count: int) -> list[Path]:
    """Show the first `count` samples of `data` in the folder `output`; returns what was written, the sheet first.

    `sheet.png` has the samples by class, enlarged without smoothing, or reduced to 160 pixels. With `images`, every
    sample also becomes `images/NNNNN.png` (its id, true size) and a line of `factors.csv` (id, label, class, factors).
    The folder is made, or empty; UserError where it holds anything. One channel is shown grey, three as RGB, others as
    their mean.

    >>> from robustlab.data import load_data
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> [path.name for path in write_sheet(load_data("road-signs", limit=8), folder, count=8)]
    ['sheet.png']
    """
    if count < 1:
        raise UserError(f"count is the number of images to show and must be at least 1; got {count}.")
    count = min(count, len(data))
    names = [f"images/{i:05d}.png" for i in data.ids[:count].tolist()]
    with new_folder(output) as folder:
        shown = []
        for where in torch.arange(count).split(8):  # photographs may be large
            for i, image in zip(where.tolist(), data.images[where], strict=True):
                picture = to_picture(image)
                if images:
                    folder.write(names[i], packed(picture))
                if max(picture.size) > _LARGEST:
                    picture = ImageOps.contain(picture, (_LARGEST, _LARGEST))
                shown.append(picture)
        if images:
            folder.write("factors.csv", _factors(data, count))
        folder.write("sheet.png", packed(_sheet(data, shown)))
    return [output / name for name in ("sheet.png", *(["factors.csv", *names] if images else []))]


def _sheet(data: Data, pictures: list[Image.Image]) -> Image.Image:
    """One or more rows for each class that occurs, its name to the left."""
    labels = data.labels[: len(pictures)].tolist()
    rows: list[tuple[str, list[Image.Image]]] = []
    for label, name in [*enumerate(data.classes), (-1, "no label")]:
        mine = [p for p, own in zip(pictures, labels, strict=True) if own == label]
        for start in range(0, len(mine), _COLUMNS):
            rows.append((visible(name) if start == 0 else "", mine[start : start + _COLUMNS]))

    width, height = pictures[0].size
    scale = max(1, round(_CELL / max(width, height)))
    cell_w, cell_h = width * scale + _GAP, height * scale + _GAP
    font, small = ImageFont.load_default(size=15), ImageFont.load_default(size=12)
    margin = math.ceil(max(font.getlength(name) for name, _ in rows)) + 24
    head = 34
    columns = max(len(row) for _, row in rows)
    true = f"{data.images.shape[3]} x {data.images.shape[2]} px"
    title = f"{visible(data.name)}, {data.split}: {len(pictures)} of {len(data)} images, {true}, hash {data.hash}"
    sheet_width = max(margin + columns * cell_w, math.ceil(small.getlength(title)) + 24) + 9
    sheet = Image.new("RGB", (sheet_width, head + len(rows) * cell_h + 9), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((12, head // 2), title, fill=_FAINT, font=small, anchor="lm")
    for r, (name, row) in enumerate(rows):
        top = head + r * cell_h
        pen.text((12, top + cell_h // 2), name, fill=_INK, font=font, anchor="lm")
        for c, picture in enumerate(row):
            large = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(large, (margin + c * cell_w, top))
    return sheet


def _factors(data: Data, count: int) -> bytes:
    columns = [values[:count].tolist() for values in data.factors.values()]
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(["id", "label", "class", *map(cell, data.factors)])
    for i, label in enumerate(data.labels[:count].tolist()):
        row = (f"{column[i]:.6g}" for column in columns)
        name = cell(data.classes[label]) if label >= 0 else ""
        table.writerow([int(data.ids[i]), label, name, *row])
    return file.getvalue().encode()
