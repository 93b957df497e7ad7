"""Names that would act where they are shown: on the page, in tables, in figures and in the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from robustlab.base.words import visible
from robustlab.reporting import report, terminal_table
from robustlab.reporting.comparison import one_group
from robustlab.reporting.plots import draw
from robustlab.reporting.source import PageRun
from robustlab.reporting.tables import TABLES, written
from robustlab.runs import read_run, results

MODELS = {
    '=HYPERLINK("http://x")\u202e\x1b[31m[red]net[/red]': (0.97, 1.2),
    "_&#x202e;$x$ | \\input{x} `a`\u200b\n| forged |": (0.93, 12.0),
}
CLASSES = ["=1+1", "@x\x07", "<b>\u2066", "[bold]4[/bold]", "\u202estop", "a\nb", "\t-7", "-8"]


@pytest.fixture(scope="module")
def folder(write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(
        tmp_path_factory.mktemp("runs") / "hostile",
        n=80,
        models=MODELS,
        classes=CLASSES,
        suite="\u202esuite",
        command="robustlab \x1b[2J",
        warnings=["a\u202e\x1b[31m warning"],
        sections=[{"name": "\u202enew", "columns": [{"key": "k\u200b"}], "rows": [{"k\u200b": "\x1b[1m"}]}],
    )


def hidden(text: str) -> list[str]:
    """The lines that hold what cannot be seen."""
    return [line for line in text.split("\n") if visible(line) != line]


def test_page(folder: Path, tmp_path: Path) -> None:
    page = report([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    assert hidden(page) == []
    assert "\\u202e\\x1b[31m[red]net[/red]" in page and "<b>\\u2066" not in page and "&lt;b&gt;\\u2066" in page


@pytest.mark.parametrize("name", [name for name in TABLES if name != "transfer"])
@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_tables(name: str, form: str, folder: Path) -> None:
    text = written(PageRun.read(folder), name, form)
    assert hidden(text) == []
    if form == "csv":
        for row in csv.reader(io.StringIO(text)):
            for value in row:
                assert value[:1] not in ("=", "@") and (value[:1] not in ("+", "-") or float(value) is not None)
    elif form == "markdown":
        assert "&#x202e;" not in text.replace("\\&", "") and "forged |" not in text
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    else:
        assert "\\input" not in text


def test_terminal(folder: Path) -> None:
    text = terminal_table(results(read_run(folder)))
    assert hidden(text) == [] and "[red]net[/red]" in text and "\\x1b[31m" in text


@pytest.mark.parametrize("form", ["svg", "png"])
def test_figure(form: str, folder: Path) -> None:
    run, _ = one_group([folder])
    made = draw(run, "security-curve", form)
    if form == "svg":
        text = made.decode()
        assert hidden(text) == [] and "\\u202e" in text and "_&amp;#x202e;$x$" in text
