"""ARCHITECTURE.md against the tree: the map, the layers, every path and every name. The links of all documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "robustlab"
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
CARDS = {"attacks/", "defenses/"}  # in the map, without code in them
QUOTED = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"\w[\w.-]*/[\w./-]*|\w+\.(?:py|md)")  # a folder, something in one, or a file at the top


def part(heading: str) -> str:
    """The text below a heading of the second level."""
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells for i, cells in enumerate(found) if i > 1 and not set(cells[0]) <= set("- ")]


def found(path: str) -> Path | None:
    """Where a path of the page leads to: from the top of the project, or from robustlab/."""
    return next((start / path for start in (ROOT, PACKAGE) if (start / path).exists()), None)


def names_in(path: Path) -> set[str]:
    """Every function, class and constant of a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def named() -> Iterator[tuple[str, str]]:
    """(file, name) for all that the tables say is in a file: beside it in its cell, or in the next one."""
    for cells in rows(part("Words")) + rows(part("One image through `robustlab attack`")):
        at = next(i for i, cell in enumerate(cells) if re.match(r"`[^`]*\.py`", cell))
        file, *names = [each for cell in cells[at : 2 if at == 0 else None] for each in QUOTED.findall(cell)]
        assert names, cells
        yield from ((file, name) for name in names)


def anchors(page: Path) -> set[str]:
    """The headings of a document, as links to them are written."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_map_is_the_tree() -> None:
    mapped = [QUOTED.findall(cells[0])[0] for cells in rows(part("The map"))]
    assert len(mapped) == len(set(mapped))
    code = {f"{path.parent.relative_to(ROOT)}/" for path in PACKAGE.rglob("*.py")}
    top = {f"{path.parent.name}/" for path in ROOT.glob("*/*.py")}
    assert set(mapped) == code | top | CARDS


def test_the_tests_lie_as_the_code_does() -> None:
    places = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert [str(place) for place in places if not (PACKAGE / place).is_dir()] == []


def test_the_layers_are_those_that_are_checked() -> None:
    tree = ast.parse((ROOT / "tests" / "test_package.py").read_text(encoding="utf-8"))
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "LAYERS" and node.value
    ]
    told = [set(QUOTED.findall(line)) for line in part("Layers").splitlines() if re.match(r"\d+\. ", line)]
    assert told == ast.literal_eval(value)


@pytest.mark.parametrize("path", sorted({quoted for quoted in QUOTED.findall(PAGE) if PATH.fullmatch(quoted)}))
def test_every_path_exists(path: str) -> None:
    assert found(path) is not None


@pytest.mark.parametrize(("file", "name"), sorted(set(named())))
def test_every_name_is_in_its_file(file: str, name: str) -> None:
    place = found(file)
    assert place is not None and name in names_in(place)


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("*/README.md")], ids=lambda page: page.parent.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Links of the documents to files, and to headings in them."""
    text = page.read_text(encoding="utf-8")
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r"(?:href|src)=\"([^\"]+)\"", text)]
    for link in (link for link in links if not link.startswith("https://")):
        path, _, anchor = link.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), link
        assert not anchor or anchor in anchors(place), link


def test_it_is_short() -> None:
    assert len(PAGE.splitlines()) < 200
