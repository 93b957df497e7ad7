"""`robustlab zoo` and `robustlab data`: what there is to attack."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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
    output: Path,
    count: int = 160,
    images: Flag = False,
    split: Literal["train", "val", "test"] = "test",
    data_root: Path | None = None,
    download: Flag = False,
    seed: int = 0,
    size: int | None = None,
) -> int:
    """Look at a data set: a contact sheet, and on request the images with a CSV of their factors.

    Parameters
    ----------
    name
        As --data of `robustlab attack`.
    output
        A folder for sheet.png, and images/ and factors.csv.
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
        Of a rendered world.
    size
        Side in pixels, for road-signs and gtsrb.
    """
    from robustlab.data import load_data
    from robustlab.data.sheet import write_sheet

    chosen = load_data(name, split, count, data_root=data_root, download=download, seed=seed, size=size)
    write_sheet(chosen, output, images=images, count=count)
    print(output / "sheet.png")
    return 0
