"""`robustlab zoo` and `robustlab data`: what there is to attack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from robustlab.base.words import visible
from robustlab.cli.app import Flag, app


@app.command
def zoo(name: str | None = None, /) -> int:
    """List the shipped models with their measured numbers, or show one.

    Parameters
    ----------
    name
        A zoo name such as road-signs/cnn.
    """
    from robustlab.models.zoo import describe

    print(describe(name))
    return 0


@app.command
def data(
    name: str = "road-signs",
    /,
    *,
    output: Path | None = None,
    count: int = 160,
    images: Flag = False,
    split: Literal["train", "val", "test"] = "test",
    data_root: Path | None = None,
    download: Flag = False,
    seed: int | None = None,
    size: str | None = None,
    workers: int | None = None,
    skip_bad: Flag = False,
) -> int:
    """Look at a data set: a contact sheet, and on request the images with a CSV of their factors.

    Parameters
    ----------
    name
        As --data of `robustlab attack`.
    output
        A folder for sheet.png, and images/ and factors.csv (default reports/data-NAME-DATE-TIME).
    count
        How many samples.
    images
        Write the images and factors.csv too.
    split
        train, val or test.
    data_root
        Where torchvision's data sets lie (default: the variable ROBUSTLAB_DATA).
    download
        Let torchvision download what is missing.
    seed
        Of the rendered world road-signs (default 0).
    size
        Side in pixels, or HEIGHTxWIDTH: of road-signs and gtsrb (a side); of folder:PATH, whose images are scaled until
        they cover it and cropped around their centre.
    workers
        Threads that decode the images of folder:PATH (default: as many as processors, at most 4).
    skip_bad
        Leave out files of folder:PATH that are no images, and say which.
    """
    from robustlab.base.typed import check_whole
    from robustlab.cli.asked import check_data_flags
    from robustlab.data import load_data, parse_size

    check_data_flags(
        name, data_root=data_root, download=download, size=size, workers=workers, skip_bad=skip_bad, seed=seed
    )
    check_whole("--count", count, 1)
    check_whole("--seed", seed, 0)

    from robustlab.base.files import default_folder, give_back
    from robustlab.data.sheet import write_sheet

    chosen = load_data(
        name,
        split,
        count,
        data_root=data_root,
        download=download,
        seed=seed or 0,
        size=None if size is None else parse_size(size),
        workers=workers,
        skip_bad=skip_bad,
    )
    for note in chosen.notes:
        print(f"Warning: {visible(note)}", file=sys.stderr)
    folder = output or default_folder("data", name)
    try:
        write_sheet(chosen, folder, images=images, count=count)
    finally:
        give_back(folder)
    print(visible(folder / "sheet.png"))
    return 0
