"""The PDF turned back into pixels and measured: what is 100 mm on paper is 100 mm, whatever the size of the paper."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.physical import Sticker
from robustlab.physical.masks import mask_of
from robustlab.physical.palette import PRINTABLE
from robustlab.worlds.road_signs import CLASSES, faces

Pixels = NDArray[np.int64]
STOP = faces()[CLASSES.index("stop")]
MM = 750 / (0.97 * 256)  # of one pixel of the face: the sign covers 97 % of it
DPI = 200
NEAR = 0.5  # mm
SIZES = {"a4": (210.0, 297.0), "letter": (215.9, 279.4)}
BLUE, WHITE = (31, 71, 153), (237, 237, 232)


def rectangle(rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
    mask = torch.zeros(256, 256, dtype=torch.bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


ONE = rectangle((80, 136), (64, 112))  # 12 x 14 texels: it fits on a page


def plain(colour: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(colour).div(255)[:, None, None].expand(3, 64, 64).contiguous()


def printed_pages(
    folder: Path, texture: torch.Tensor, mask: torch.Tensor, paper: str = "a4", width: float = 0.75
) -> list[Pixels]:
    """Every page in RGB at 200 dots an inch."""
    Sticker(texture, mask, "stop", "yield").print(folder, paper, width)
    with pypdfium2.PdfDocument(folder / "sticker.pdf") as document:
        return [np.array(page.render(scale=DPI / 72).to_pil().convert("RGB")).astype(int) for page in document]


def mm(pixels: float) -> float:
    return pixels / DPI * 25.4


def extent(found: NDArray[np.bool_]) -> tuple[float, float]:
    """Where it is true first and last, in mm."""
    at = np.flatnonzero(found)
    return mm(at[0]), mm(at[-1] + 1)


def like(page: Pixels, colour: tuple[int, int, int], by: int = 3) -> NDArray[np.bool_]:
    return np.asarray((abs(page - colour) <= by).all(2))


def runs(row: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where a row is true: start and end of each stretch."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]])))
    return list(zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True))


def middles(row: NDArray[np.bool_]) -> list[float]:
    """The middle of each line that a row of pixels crosses, in mm."""
    return [mm((start + end) / 2) for start, end in runs(row)]


def body(page: Pixels) -> Pixels:
    """What is below the text and above the ruler."""
    return page[round(35 / 25.4 * DPI) : -round(36 / 25.4 * DPI)]


@pytest.mark.parametrize("paper", SIZES)
def test_the_paper_and_the_ruler(paper: str, tmp_path: Path) -> None:
    pages = printed_pages(tmp_path, plain(BLUE), ONE, paper)
    assert len(pages) == 2
    for page in pages:
        assert (mm(page.shape[1]), mm(page.shape[0])) == pytest.approx(SIZES[paper], abs=0.1)
        dark = page[-round(50 / 25.4 * DPI) :].max(2) < 100
        longest = max(end - start for row in dark for start, end in runs(row))
        assert mm(longest) == pytest.approx(100, abs=NEAR)
        ruler = next(row for row, line in enumerate(dark) if any(end - start == longest for start, end in runs(line)))
        ticks = middles(dark[ruler - 8, : round(112 / 25.4 * DPI)])
        assert len(ticks) == 21 and np.diff(ticks) == pytest.approx(5, abs=NEAR)


@pytest.mark.parametrize("paper", SIZES)
@pytest.mark.parametrize("width", [0.75, 0.6])
def test_the_sticker_has_its_size(paper: str, width: float, tmp_path: Path) -> None:
    page = body(printed_pages(tmp_path, plain(BLUE), ONE, paper, width)[1])
    blue = like(page, BLUE)
    (left, right), (top, bottom) = extent(blue.any(0)), extent(blue.any(1))
    scale = MM * width / 0.75
    assert right - left == pytest.approx(48 * scale, abs=NEAR)
    assert bottom - top == pytest.approx(56 * scale, abs=NEAR)
    with Image.open(tmp_path / "sticker.png") as picture:
        assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        sides = [side / 150 * 25.4 for side in picture.size]
    assert sides == pytest.approx([48 * scale, 56 * scale], abs=NEAR)


@pytest.mark.parametrize("paper", SIZES)
def test_cut_lines_and_marks(paper: str, tmp_path: Path) -> None:
    """A line along the outline of each sticker, its holes too, and marks outside at the corners."""
    mask = ONE.clone()
    mask[100:110, 76:96] = False
    page = body(printed_pages(tmp_path, plain(WHITE), mask, paper)[1])
    dark = page.max(2) < 128
    inked = like(page, WHITE)
    (left, right), (top, bottom) = extent(inked.any(0)), extent(inked.any(1))
    y = round((top + MM * 25) / 25.4 * DPI)  # crosses the hole
    assert middles(dark[y]) == pytest.approx([left + MM * at for at in (0, 12, 32, 48)], abs=NEAR)
    x = round((left + MM * 22) / 25.4 * DPI)
    assert middles(dark[:, x]) == pytest.approx([top + MM * at for at in (0, 20, 30, 56)], abs=NEAR)
    for y in (top - 2.5, bottom + 2.5):
        assert middles(dark[round(y / 25.4 * DPI)]) == pytest.approx([left, right], abs=NEAR)
    for x in (left - 2.5, right + 2.5):
        assert middles(dark[:, round(x / 25.4 * DPI)]) == pytest.approx([top, bottom], abs=NEAR)


def test_a_large_sticker_is_divided_with_overlap(tmp_path: Path) -> None:
    """Two pages, whose lengths add up; red marks show the strip that is on both."""
    random = PRINTABLE[torch.randint(2, 8, (64, 64), generator=torch.Generator().manual_seed(0))].permute(2, 0, 1)
    mask = rectangle((100, 132), (60, 188))
    _, *parts = printed_pages(tmp_path, random.contiguous(), mask)
    assert len(parts) == 2
    found = []
    for page in map(body, parts):
        inked = np.logical_or.reduce([like(page, tuple(c)) for c in PRINTABLE.mul(255).round().int().tolist()])
        rows = np.flatnonzero(inked.sum(1) > 300)
        row = page[rows[0] - 20]  # above the sticker
        marks = middles(np.asarray((row[:, 0] > 150) & (row[:, 1] < 128)))
        assert np.diff(marks) == pytest.approx([10], abs=NEAR)
        found.append((page, extent(inked[rows].any(0)), marks, mm(rows[len(rows) // 2])))
    (one, first, end, y), (two, second, start, _) = found
    assert end[1] == pytest.approx(first[1], abs=NEAR) and start[0] == pytest.approx(second[0], abs=NEAR)
    assert first[1] - first[0] + second[1] - second[0] - 10 == pytest.approx(128 * MM, abs=NEAR)
    strips = [
        page[round(y / 25.4 * DPI), [round((at + shift) / 25.4 * DPI) for shift in (2, 4, 6, 8)]]
        for page, at in ((one, end[0]), (two, start[0]))
    ]
    assert np.array_equal(*strips)


def test_texels_have_the_colours_of_the_palette(tmp_path: Path) -> None:
    texture = PRINTABLE[torch.randint(0, 8, (64, 64), generator=torch.Generator().manual_seed(1))].permute(2, 0, 1)
    pages = printed_pages(tmp_path, texture.contiguous(), ONE)
    wanted = texture[:, 20:34, 16:28].permute(1, 2, 0).mul(255).round().int().numpy()
    page = pages[1]
    left = (210 - 48 * MM) / 2
    column = body(page)[:, round((left + 2) / 25.4 * DPI)]
    top = 35 + extent(np.asarray((column < 250).any(1)))[0]
    ys = [round((top + 4 * MM * (at + 0.5)) / 25.4 * DPI) for at in range(14)]
    xs = [round((left + 4 * MM * (at + 0.5)) / 25.4 * DPI) for at in range(12)]
    assert abs(page[np.ix_(ys, xs)] - wanted).max() <= 1
    inside = page[ys[0] : ys[-1], xs[0] : xs[-1]]
    known = np.logical_or.reduce([like(inside, tuple(c), 1) for c in PRINTABLE.mul(255).round().int().tolist()])
    assert known.mean() > 0.97  # nothing is smoothed: other colours are on the pixels of an edge only
    for page in pages:  # the strip
        row = page[-round(20 / 25.4 * DPI)]
        each = (210 - 20) / 8
        at = [round((10 + each * (n + 0.5)) / 25.4 * DPI) for n in range(8)]
        assert abs(row[at] - PRINTABLE.mul(255).round().int().numpy()).max() <= 1
    with Image.open(tmp_path / "sticker.png") as picture:
        small = np.array(picture.resize((12, 14), Image.Resampling.NEAREST))
    assert np.array_equal(small[..., :3], wanted) and (small[..., 3] == 255).all()


def test_the_first_page_says_where_it_goes(tmp_path: Path) -> None:
    page = printed_pages(tmp_path, plain(BLUE), ONE)[0][round(40 / 25.4 * DPI) : -round(60 / 25.4 * DPI)]
    left, right = extent(like(page, BLUE, 12).sum(0) > 50)
    edge = (210 - 100) / 2  # the small sign is 100 mm wide, in the middle
    assert [left - edge, right - edge] == pytest.approx([(at - 0.015 * 256) * MM / 7.5 for at in (64, 112)], abs=NEAR)
    with pypdfium2.PdfDocument(tmp_path / "sticker.pdf") as document:
        text = [each.get_textpage().get_text_range() for each in document]
    sides = [(64 - 3.84) * MM, 750 - (112 - 3.84) * MM, (80 - 3.84) * MM, 750 - (136 - 3.84) * MM, 48 * MM, 56 * MM]
    row = " ".join(["A", *(f"{side:.0f}" for side in sides), "2"])
    assert row in text[0].replace("\r\n", " ") and "stop, to be read as yield" in text[0]
    assert "Page 2 of 2" in text[1] and f"{sides[0]:.0f} mm from the left edge" in text[1]


@pytest.mark.parametrize(("name", "pages"), [("bars", 5), ("art", 5)])
def test_number_of_pages(name: str, pages: int, tmp_path: Path) -> None:
    """One with the sign, and what the separate stickers need: the longest of `bars` is cut in two."""
    Sticker(plain(BLUE), mask_of(name, STOP), "stop").print(tmp_path)
    with pypdfium2.PdfDocument(tmp_path / "sticker.pdf") as document:
        assert len(document) == pages


def test_many_small_stickers(tmp_path: Path) -> None:
    """The table goes on on a second page, and pages hold several stickers."""
    mask = torch.zeros(256, 256, dtype=torch.bool)
    for row in range(60, 180, 12):
        mask[row : row + 4, 60:180].view(4, 10, 12)[:, :, :4] = True
    Sticker(plain(BLUE), mask, "stop").print(tmp_path)
    with pypdfium2.PdfDocument(tmp_path / "sticker.pdf") as document:
        text = [each.get_textpage().get_text_range() for each in document]
    assert sum("Where the stickers go" in page for page in text) > 1
    assert "\nZ3 " in "".join(text).replace("\r", "") and len(text) < 40


def test_two_calls_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        Sticker(plain(BLUE), mask_of("bars", STOP), "stop").print(tmp_path / folder)
    for name in ("sticker.pdf", "sticker.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert b"CreationDate" not in (tmp_path / "one" / "sticker.pdf").read_bytes()


def test_the_picture_is_clear_beside_the_stickers(tmp_path: Path) -> None:
    Sticker(plain(BLUE), mask_of("bars", STOP), "stop").print(tmp_path)
    with Image.open(io.BytesIO((tmp_path / "sticker.png").read_bytes())) as picture:
        alpha = np.array(picture)[..., 3]
    share = float(mask_of("bars", STOP)[60:196, 60:196].float().mean())
    assert set(np.unique(alpha)) == {0, 255} and 0 < share < 1
    assert alpha[0].all() and not alpha[len(alpha) // 2].any()


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, with a sticker in the current folder."""
    monkeypatch.chdir(tmp_path)
    Sticker(plain(BLUE), ONE, "stop", "yield").save("one.safetensors")
    Sticker(plain(BLUE), ONE & False, "stop", "yield").save("empty.safetensors")
    Sticker(plain(BLUE)[:, :60, :60], ONE, "stop", "yield").save("uneven.safetensors")
    Path("some").mkdir()
    Path("text.safetensors").write_text("no sticker at all")
    return lambda *words: main(["print", *words])


def test_the_command(saved: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert saved("one.safetensors", "--output", "out", "--paper", "letter") == 0
    assert capsys.readouterr().out == "out/sticker.pdf\n"
    assert sorted(path.name for path in Path("out").iterdir()) == ["sticker.pdf", "sticker.png"]
    assert saved("one.safetensors") == 0
    (folder,) = Path("reports").iterdir()
    assert folder.name.startswith("print-one-") and capsys.readouterr().out == f"{folder}/sticker.pdf\n"


def test_nothing_is_lost(saved: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert saved("one.safetensors", "--output", "out") == 0
    before = Path("out/sticker.pdf").read_bytes()
    assert saved("one.safetensors", "--output", "out", "--paper", "letter") == 2
    assert "Add --overwrite" in capsys.readouterr().err and Path("out/sticker.pdf").read_bytes() == before
    Path("out/mine").write_text("mine")
    assert saved("one.safetensors", "--output", "out", "--paper", "letter", "--overwrite") == 0
    assert Path("out/sticker.pdf").read_bytes() != before and Path("out/mine").read_text() == "mine"
    Path("linked").mkdir()
    Path("linked/sticker.png").symlink_to(Path("out/mine").resolve())
    assert saved("one.safetensors", "--output", "linked", "--overwrite") == 2
    assert Path("out/mine").read_text() == "mine" and not Path("linked/sticker.pdf").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.safetensors"], "No such file"),
        (["text.safetensors"], "no sticker that robustlab has saved"),
        (["uneven.safetensors"], "sign, texture or mask cannot be used"),
        (["some"], "No such file"),
        (["empty.safetensors"], "The sticker is empty"),
        (["one.safetensors", "--paper", "a5"], '"a4", "letter"'),
        (["one.safetensors", "--width", "0"], "--width is in metres, above 0"),
        (["one.safetensors", "--width", "-1"], "--width is in metres, above 0"),
        (["one.safetensors", "--width", "750"], "at most 2; got 750"),
        (["one.safetensors", "--overwrite"], "--overwrite needs --output"),
        (["one.safetensors", "--output", "text.safetensors"], "is a file; a folder was expected"),
    ],
)
def test_bad_input(
    saved: Callable[..., int], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saved(*words) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not Path("reports").exists()


def test_an_unknown_paper_from_python(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="paper must be one of a4, letter"):
        Sticker(plain(BLUE), ONE, "stop").print(tmp_path, "a5")
