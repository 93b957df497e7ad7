"""`robustlab print`; the file is not called so, since the package would lose Python's own `print`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from robustlab.base.errors import UserError
from robustlab.base.words import visible
from robustlab.cli.app import app
from robustlab.cli.flags import Flag

if TYPE_CHECKING:
    from robustlab.physical import PhotoSticker, Sticker


@app.command(name="print")
def print_sticker(
    sticker: Annotated[
        Path,
        Parameter(help="The run folder of `robustlab attack --suite sticker`, or a file that Sticker.save wrote."),
    ],
    /,
    *,
    output: Path | None = None,
    paper: Literal["a4", "letter"] = "a4",
    width: float = 0.75,
    overwrite: Flag = False,
) -> int:
    """Print a sticker at its real size: pages with cut lines and a ruler, and one that shows where it goes.

    Parameters
    ----------
    output
        A folder for sticker.pdf and sticker.png (default reports/print-NAME-DATE-TIME).
    paper
        The size of the pages.
    width
        Of your sign, or photographed thing, from edge to edge, in metres.
    overwrite
        Replace a sticker.pdf and a sticker.png that are there.
    """
    if output is None and overwrite:
        raise UserError("--overwrite needs --output: name the folder whose sticker is to be replaced.")

    from robustlab.base.files import default_folder, give_back

    chosen = _loaded(sticker / "stickers" / "sticker.safetensors" if sticker.is_dir() else sticker)
    folder = output or default_folder("print", str(sticker))
    try:
        chosen.print(folder, paper, width, overwrite=overwrite)
    finally:
        give_back(folder)
    print(visible(folder / "sticker.pdf"))
    return 0


def _loaded(file: Path) -> Sticker | PhotoSticker:
    """A sticker for signs, or one for photographs."""
    from robustlab.physical import PhotoSticker, Sticker  # imports torch, which takes seconds

    try:
        return Sticker.load(file)
    except UserError as error:
        try:
            return PhotoSticker.load(file)
        except UserError:
            raise error from None
