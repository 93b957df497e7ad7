"""The page: a pure function of run folders. The same folders give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustlab.errors import UserError
from robustlab.files import disk, replacing
from robustlab.reporting.sections import SECTIONS
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render


def report(folders: Sequence[str | Path], output: str | Path) -> Path:
    """Write one HTML file for one or more finished runs; it needs no network and nothing beside it.

    Raises UserError where a folder holds no finished run, or `output` is a folder.
    """
    if not folders:
        raise UserError("No run folder was given. Give at least one that `robustlab attack` wrote.")
    runs = [PageRun.read(Path(folder)) for folder in folders]
    output = Path(output)
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; a file such as {output / 'report.html'} was expected.")
    sections = [
        {"name": section.NAME, "title": section.TITLE, "html": section.render(runs)}
        for section in SECTIONS
        if section.applies(runs)
    ]
    html = render("page.html", runs=runs, sections=sections)
    with disk(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as file:
            file.write(html.encode())
    return output
