"""The page: a pure function of run folders. The same folders give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustlab.base.files import check_output, place_of, write_output
from robustlab.reporting.comparison import compare, read_runs
from robustlab.reporting.sections import OF_EACH_RUN, SECTIONS
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render
from robustlab.runs.manifest import PAGE, is_page


def report(folders: Sequence[str | Path], output: str | Path, *, overwrite: bool = False) -> Path:
    """Write one HTML file for one or more finished runs; it needs no network and nothing beside it.

    Comparable runs (the same samples, labels and threat) share tables and charts; what is not comparable is said to be
    so and stands apart. In a run folder, the run's own page is replaced; any other file only with `overwrite`.
    Raises UserError where a folder holds no finished run or is given twice, or `output` is a folder or somebody's file.
    """
    runs = read_runs(folders)
    output = Path(output)
    replace = overwrite or _is_own(output, runs)
    check_output(output, replace=replace)
    write_output(output, page(runs), replace=replace)
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


def _is_own(output: Path, runs: Sequence[PageRun]) -> bool:
    """Is this the page of one of the runs, which its run.json names (an older one names nothing)?"""
    place = place_of(output)
    for run in runs:
        if place == run.folder.resolve() / PAGE and PAGE in run.stored.info.get("files", [PAGE]):
            if not place.is_file() or place.is_symlink():
                return False
            with place.open("rb") as file:
                return is_page(file.read(1000))
    return False
