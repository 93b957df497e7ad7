"""The page: a pure function of run folders. The same folders give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustlab.reporting.comparison import compare, read_runs
from robustlab.reporting.output import check_output, write_output
from robustlab.reporting.sections import OF_EACH_RUN, SECTIONS
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render

MARK = b'<meta name="generator" content="robustlab">'


def report(folders: Sequence[str | Path], output: str | Path, *, overwrite: bool = False) -> Path:
    """Write one HTML file for one or more finished runs; it needs no network and nothing beside it.

    Comparable runs (the same samples, labels and threat) share tables and charts; what is not comparable is said to be
    so and stands apart. A page that robustlab wrote is replaced, any other file only with `overwrite`.
    Raises UserError where a folder holds no finished run or is given twice, or `output` is a folder or somebody's file.
    """
    runs = read_runs(folders)
    output = Path(output)
    check_output(output, replace=overwrite or _is_page(output, runs))
    write_output(output, page(runs))
    return output


def page(runs: Sequence[PageRun]) -> bytes:
    """The HTML file of `report`."""
    groups, notices = compare(runs)
    sections = []
    for section in SECTIONS:
        shown = runs if section in OF_EACH_RUN else groups
        if section.applies(shown):
            sections.append({"name": section.NAME, "title": section.TITLE, "html": section.render(shown)})
    return render("page.html", runs=groups, sections=sections, notices=notices).encode()


def _is_page(path: Path, runs: Sequence[PageRun]) -> bool:
    """Is this a page that robustlab wrote, or the place of a run's own?"""
    own = [run.folder.resolve() / "report.html" for run in runs]
    if not path.is_file() or path.resolve() in own:
        return True
    with path.open("rb") as file:
        return MARK in file.read(1000)
