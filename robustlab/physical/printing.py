"""A sticker on paper at its real size: pages with cut lines, and one that shows where it goes on the sign.

Texels are vector rectangles with hard edges, so that no viewer and no printer smooths them.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.backends.backend_pdf import PdfPages
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustlab.base.errors import UserError, spelled
from robustlab.base.typed import check_choice
from robustlab.physical.page import BLACK, INCH, RED, Page, Place
from robustlab.physical.palette import PRINTABLE
from robustlab.physical.tiles import OVERLAP, Box, Piece, Scale, Tile, pieces_of, scale_of, tiles_of
from robustlab.reporting.plots import METADATA, SETTINGS

DPI = 150  # of the picture
PAPERS = {"a4": (210.0, 297.0), "letter": (215.9, 279.4)}  # mm
WIDEST = 2.0  # metres, of a sign
EDGE = 10.0  # mm that printers leave white; all below are mm, too
HEAD, FOOT = 24.0, 24.0  # of a page, above and below the sticker
MARKS = 6.0  # around the sticker, for the marks at corners and joins
SMALL = 100.0  # width of the sign on the first page
KEY = 22.0  # width of the sign on the other pages
ROW, COLUMN = 5.0, 23.0  # of the table on the first page
OVER = 0.1  # that a texel goes on under the next one: no white line between them
FEW = 8  # with more stickers, lines with distances would hide the small sign
TABLE = ("sticker", "from left", "from right", "from top", "from bottom", "width", "height", "page")
SIDES = {"left": (-1, 0), "top": (0, -1), "right": (1, 0), "bottom": (0, 1)}  # as in a box: columns and rows further


def printed(
    face: Tensor, texture: Tensor, mask: Tensor, title: str, paper: str = "a4", width: float = 0.75
) -> tuple[bytes, bytes]:
    """A PDF of all pages, and a PNG of the whole sheet (150 dots an inch, clear where no sticker is).

    face: (4, P, P), the bare sign. texture: (3, t, t), t a divisor of P. mask: (P, P). width: of the sign from edge to
    edge, in metres. The same input gives the same bytes. UserError: nothing to print, no such paper or width.

    >>> import torch
    >>> from robustlab.worlds.road_signs import faces
    >>> mask = torch.zeros(256, 256, dtype=torch.bool); mask[100:140, 80:180] = True
    >>> pdf, png = printed(faces()[0], torch.zeros(3, 64, 64), mask, "black")
    >>> pdf[:5], png[1:4]
    (b'%PDF-', b'PNG')
    """
    check_choice(spelled("paper"), paper, list(PAPERS))
    if not 0 < width <= WIDEST:
        raise UserError(f"{spelled('width')} is in metres, above 0 and at most {WIDEST:g}; got {width:g}.")
    if not bool(mask.any()):
        raise UserError("The sticker is empty: its mask has no pixel, so there is nothing to print.")
    colours = texture.permute(1, 2, 0).mul(255).round().byte().numpy()
    k = len(mask) // len(colours)
    large = colours.repeat(k, 0).repeat(k, 1)
    alpha = face[3].numpy()
    shown = np.moveaxis(face[:3].numpy(), 0, 2) * alpha[..., None] + 1 - alpha[..., None]  # on white
    sign = np.where(mask.numpy()[..., None], large / 255, shown)
    sheet = _Sheet(mask.numpy(), colours, sign, scale_of(alpha, 1000 * width), title, PAPERS[paper])
    with rc_context():
        rcdefaults()  # whatever the reader's own matplotlibrc says
        rcParams.update(SETTINGS)
        return sheet.pdf(), _png(mask.numpy(), large, sheet.scale)


def _png(mask: NDArray[np.bool_], colours: NDArray[np.uint8], scale: Scale) -> bytes:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    pixels = np.dstack([colours, np.full(mask.shape, 255, np.uint8)]) * mask[..., None]
    pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    high, wide = (max(1, round(scale.mm * side / INCH * DPI)) for side in pixels.shape[:2])
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((wide, high), Image.Resampling.NEAREST).save(stream, format="PNG", dpi=(DPI, DPI))
    return stream.getvalue()


def _space(paper: tuple[float, float]) -> tuple[float, float]:
    """Width and height that a page has for the sticker."""
    around = 2 * (EDGE + MARKS)
    return paper[0] - around, paper[1] - around - HEAD - FOOT


class _Sheet:
    """All pages. colours: (t, t, 3) of the texels. sign: (P, P, 3), the sign with the stickers on it."""

    def __init__(
        self,
        mask: NDArray[np.bool_],
        colours: NDArray[np.uint8],
        sign: NDArray[Any],
        scale: Scale,
        title: str,
        paper: tuple[float, float],
    ) -> None:
        self.colours, self.sign, self.scale, self.title, self.upright = colours, sign, scale, title, paper
        pieces = pieces_of(mask, scale)
        tried = [(tiles_of(pieces, scale, *_space(size)), size) for size in (paper, paper[::-1])]
        self.tiles, self.paper = min(tried, key=lambda each: len(each[0]))  # upright or across: the fewer pages
        self.whole = Box(0, 0, scale.width, scale.height)
        self.place = Place((paper[0] - SMALL) / 2, EDGE + HEAD + 2 * MARKS, SMALL / scale.width)  # of the small sign
        self.table = self.place.box(self.whole).bottom + 2 * MARKS
        rows = int((paper[1] - EDGE - FOOT - self.table) / ROW) - 1
        self.lists = [pieces[at : at + rows] for at in range(0, len(pieces), rows)]
        self.numbers = {_key(tile): number for number, tile in enumerate(self.tiles, len(self.lists) + 1)}

    def pdf(self) -> bytes:
        stream = io.BytesIO()
        with PdfPages(stream, metadata=METADATA["pdf"]) as pages:
            for number, pieces in enumerate(self.lists, 1):
                pages.savefig(self._overview(pieces, number).figure)
            for tile in self.tiles:
                pages.savefig(self._tile(tile).figure)
        return stream.getvalue()

    def _overview(self, pieces: list[Piece], number: int) -> Page:
        """The whole sign, small, with the stickers and their distances from its edges."""
        page = self._page(
            self.upright,
            number,
            f"Where the stickers go, on a sign {self.scale.width:.0f} mm wide and {self.scale.height:.0f} mm high, from"
            " edge to edge.",
            "For another sign, print again with its width in metres: --width. Print at 100 %, without any scaling, and",
            "check the ruler on each page. Matt paper shines less. All numbers are millimetres on the sign.",
        )
        place = self.place
        self._picture(page, place)
        step = 50 if self.scale.width <= 1000 else 100
        for at in range(0, int(max(self.scale.width, self.scale.height)) + 1, step):
            long, shown = (3.0, str(at)) if at % (2 * step) == 0 else (1.5, "")
            x, y = place.at((at, at)).tolist()
            if at <= self.scale.width:
                page.line((x, place.top - 2), (x, place.top - 2 - long))
                page.say(x, place.top - 6, shown, size=6, ha="center")
            if at <= self.scale.height:
                page.line((place.left - 2, y), (place.left - 2 - long, y))
                page.say(place.left - 6, y + 0.8, shown, size=6, ha="right")
        for piece in pieces:
            if len(pieces) <= FEW:
                self._distances(page, piece.box)
        for piece in pieces:
            page.outline([place.at(line) for line in piece.lines], "white", page.box, 1.2)
            page.outline([place.at(line) for line in piece.lines], BLACK, page.box)
            page.tag(place.at(np.add(piece.box[:2], piece.box[2:]) / 2), piece.name, 8)
        for at, word in enumerate(TABLE):
            page.say(EDGE + COLUMN * at + 12, self.table, word, ha="right", weight="bold")
        for row, piece in enumerate(pieces, 1):
            for at, word in enumerate(self._row(piece)):
                page.say(EDGE + COLUMN * at + 12, self.table + ROW * row, word, ha="right")
        return page

    def _row(self, piece: Piece) -> list[str]:
        """A line of the table, as TABLE."""
        box, own = piece.box, [self.numbers[_key(tile)] for tile in self.tiles if piece in tile.pieces]
        sides = box.left, self.scale.width - box.right, box.top, self.scale.height - box.bottom, box.width, box.height
        pages = f"{own[0]}" if len(own) == 1 else f"{own[0]}-{own[-1]}"
        return [piece.name, *(f"{side:.0f}" for side in sides), pages]

    def _distances(self, page: Page, box: Box) -> None:
        """Lines from a sticker to the nearer edges of the sign, with their lengths."""
        x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        across = (0.0, box.left) if x < self.scale.width / 2 else (box.right, self.scale.width)
        down = (0.0, box.top) if y < self.scale.height / 2 else (box.bottom, self.scale.height)
        for (start, end), along in ((across, [(across[0], y), (across[1], y)]), (down, [(x, down[0]), (x, down[1])])):
            points = self.place.at(along)
            page.line(*points.tolist(), colour="white", width=1.5)
            page.line(*points.tolist())
            page.tag(points.mean(0), f"{end - start:.0f}", 5)

    def _tile(self, tile: Tile) -> Page:
        """A part of the sticker at its real size."""
        parts = [each for each in self.tiles if each.pieces == tile.pieces]
        part = f", part {parts.index(tile) + 1} of {len(parts)}" if len(parts) > 1 else ""
        beside = {
            side: self.numbers[tile.pieces, tile.row + down, tile.column + across]
            for side, (across, down) in SIDES.items()
            if (tile.pieces, tile.row + down, tile.column + across) in self.numbers
        }
        joins = ", ".join(f"page {number} at the {side}" for side, number in beside.items())
        page = self._page(
            self.paper,
            self.numbers[_key(tile)],
            f"Sticker {', '.join(piece.name for piece in tile.pieces)}{part}. Cut along the black lines.",
            f"It lies {tile.box.left:.0f} mm from the left edge of the sign, {tile.box.top:.0f} mm from its top edge.",
            f"Goes on with {joins}; both pages show what is between the red marks." if joins else "",
        )
        key = Place(page.width - EDGE - KEY, EDGE, KEY / self.scale.width)
        self._picture(page, key)
        page.frame(key.box(tile.box), "white", 2)
        page.frame(key.box(tile.box), RED, 1)

        space = _space(self.paper)
        left = EDGE + MARKS + (space[0] - tile.box.width) / 2
        place = Place(left - tile.box.left, EDGE + HEAD + MARKS - tile.box.top)
        self._marks(page, place, tile, list(beside))
        k = len(self.sign) // len(self.colours)
        for piece in tile.pieces:
            lines = [place.at(line) for line in piece.lines]
            used = piece.mask.reshape(len(self.colours), k, -1, k).any((1, 3))
            down, across = np.nonzero(used)
            corners = np.stack([np.stack([across, down], 1), np.stack([across + 1, down + 1], 1)], 1) * k
            boxes = place.at(self.scale.on_sign(corners)).reshape(-1, 4) + (0, 0, OVER, OVER)
            page.rectangles(boxes, self.colours[used] / 255, lines, place.box(tile.box))
            page.outline(lines, BLACK, place.box(tile.box))
        return page

    def _marks(self, page: Page, place: Place, tile: Tile, beside: list[str]) -> None:
        """Short lines at the corners of each sticker, and red ones where a neighbouring page begins or ends."""
        part = place.box(tile.box)
        for piece in tile.pieces:
            box = place.box(piece.box)
            for x, out in ((box.left, -1), (box.right, 1)):
                for y, up in ((box.top, -1), (box.bottom, 1)):
                    if part.left <= x <= part.right and part.top <= y <= part.bottom:
                        page.line((x + out, y), (x + 4 * out, y))
                        page.line((x, y + up), (x, y + 4 * up))
        for side in beside:
            end, inward = part[list(SIDES).index(side)], OVERLAP if side in ("left", "top") else -OVERLAP
            for at in (end, end + inward):
                if side in ("left", "right"):
                    page.line((at, part.top - 5), (at, part.top - 1), colour=RED)
                    page.line((at, part.bottom + 1), (at, part.bottom + 5), colour=RED)
                else:
                    page.line((part.left - 5, at), (part.left - 1, at), colour=RED)
                    page.line((part.right + 1, at), (part.right + 5, at), colour=RED)

    def _picture(self, page: Page, place: Place) -> None:
        """The sign with the stickers, small."""
        high, wide = self.sign.shape[:2]
        corners = place.at(self.scale.on_sign([(0, 0), (wide, high)]))
        page.picture(self.sign, Box(*corners.flatten().tolist()))

    def _page(self, paper: tuple[float, float], number: int, *says: str) -> Page:
        """A page with its title, lines of text, the ruler and the strip of colours."""
        page = Page(*paper)
        page.say(EDGE, EDGE + 4, self.title, size=11, weight="bold")
        for at, text in enumerate((f"Page {number} of {len(self.lists) + len(self.tiles)}", *says)):
            page.say(EDGE, EDGE + 9 + 4.5 * at, text)
        top = page.height - EDGE - FOOT + 4
        for at in range(0, 101, 5):
            page.line((EDGE + at, top), (EDGE + at, top - (3.0 if at % 10 == 0 else 1.5)))
        page.line((EDGE, top), (EDGE + 100, top))
        page.say(EDGE + 103, top - 1, "100 mm. If it is not, print again at 100 %.", size=7)
        each = (page.width - 2 * EDGE) / len(PRINTABLE)
        for at, colour in enumerate(PRINTABLE.mul(255).round().int().tolist()):
            left = EDGE + at * each
            page.frame(Box(left, top + 3, left + each, top + 12), [value / 255 for value in colour], fill=True)
            page.say(left + each / 2, top + 15, " ".join(map(str, colour)), size=6, ha="center")
        page.say(EDGE, top + 19, "The printable colours: red, green and blue of sRGB, 0 to 255.", size=6)
        return page


def _key(tile: Tile) -> tuple[tuple[Piece, ...], int, int]:
    return tile.pieces, tile.row, tile.column
