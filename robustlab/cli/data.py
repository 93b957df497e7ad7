"""`robustlab data`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from robustlab.base.typed import check_whole
from robustlab.base.words import visible
from robustlab.cli.app import app
from robustlab.cli.flags import DATA_HELP, OWN, DataFlags, Flag
from robustlab.data import Split


@app.command
def data(
    name: Annotated[str, Parameter(help=f"{DATA_HELP}.")] = OWN,
    /,
    *,
    output: Path | None = None,
    count: int = 160,
    images: Flag = False,
    split: Split = "test",
    seed: int | None = None,
    files: DataFlags = DataFlags(),
) -> int:
    """Look at a data set: a contact sheet, and on request the images with a CSV of their factors.

    Parameters
    ----------
    output
        A folder for sheet.png, and images/ and factors.csv (default reports/data-NAME-DATE-TIME).
    count
        How many samples.
    images
        Write the images and factors.csv too.
    split
        Which part of the set.
    seed
        Of the rendered world road-signs (default 0).
    """
    files.check(name, seed=seed)
    check_whole("--count", count, 1)
    check_whole("--seed", seed, 0)

    from robustlab.base.files import default_folder, give_back
    from robustlab.data import load_data
    from robustlab.data.sheet import write_sheet  # imports torch, which takes seconds

    chosen = load_data(name, split, count, seed=seed or 0, **files.arguments)
    for note in chosen.notes:
        print(f"Warning: {visible(note)}", file=sys.stderr)
    folder = output or default_folder("data", name)
    try:
        write_sheet(chosen, folder, images=images, count=count)
    finally:
        give_back(folder)
    print(visible(folder / "sheet.png"))
    return 0
