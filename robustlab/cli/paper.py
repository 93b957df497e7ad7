"""`robustlab plot` and `robustlab table`: a figure or a table of runs, for a paper."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.words import listed, visible
from robustlab.cli.app import app
from robustlab.cli.flags import Flag

if TYPE_CHECKING:
    from robustlab.reporting.source import PageRun


@app.command(usage="Usage: robustlab plot RUN [RUN ...] FIGURE [OPTIONS]")
def plot(
    *words: str,
    format: Literal["svg", "pdf", "png"] | None = None,
    output: Path | None = None,
    overwrite: Flag = False,
) -> int:
    """Draw a figure for a paper, such as: robustlab plot reports/demo security-curve --format pdf.

    Parameters
    ----------
    words
        One or several run folders of the same samples, labels and threat, then the figure: security-curve. Of
        stickers: distance, of runs that need not be alike.
    format
        svg, pdf or png (default: what --output ends in, or svg).
    output
        The file to write (default: the figure's name in the current folder).
    overwrite
        Replace a file that is there.
    """
    from robustlab.base.files import check_output, write_output
    from robustlab.reporting.fitted_tables import FIGURE, distance
    from robustlab.reporting.plots import FIGURES, draw

    folders, name = _runs_and_name(words, [*FIGURES, FIGURE], "figure", "plot")
    kind = _format(format, output, {"svg": "svg", "pdf": "pdf", "png": "png"}, "svg")
    target = output or Path(f"{name}.{kind}")
    check_output(target, replace=overwrite)
    if name == FIGURE:
        drawn = distance(_fitted(folders, name), kind)
    else:
        drawn = draw(_one(folders), name, kind)
    write_output(target, drawn, replace=overwrite)
    print(visible(target))
    return 0


@app.command(usage="Usage: robustlab table RUN [RUN ...] TABLE [OPTIONS]")
def table(
    *words: str,
    format: Literal["markdown", "latex", "csv", "json"] | None = None,
    output: Path | None = None,
    overwrite: Flag = False,
) -> int:
    """Print a table for a paper, such as: robustlab table reports/demo attacks --format latex.

    Parameters
    ----------
    words
        One or several run folders of the same samples, labels and threat, then the table:
        verdict, differences, attacks, curve, confusion, factors, transfer or summary (for a leaderboard and a model
        card, in Markdown or JSON). Of stickers and patches, of runs that need
        not be alike: success, grid, paper-cells, drive-by, by-size, by-place or heat. Of backdoors, likewise: defenses,
        by-layer or by-seed.
    format
        markdown or latex (rounded, with intervals), csv (fractions as computed, with the ends of their intervals and
        n) or json (of a summary; default: what --output ends in, or markdown).
    output
        A file to write instead of standard output.
    overwrite
        Replace a file that is there.
    """
    from robustlab.base.files import check_output, write_output
    from robustlab.reporting.backdoor_tables import BACKDOOR_TABLES, backdoor_table
    from robustlab.reporting.fitted_tables import SECTIONS, fitted_table
    from robustlab.reporting.summary import FORMATS, NAME, summary
    from robustlab.reporting.tables import TABLES, written

    folders, name = _runs_and_name(words, [*TABLES, NAME, *SECTIONS, *BACKDOOR_TABLES], "table", "table")
    kind = _format(format, output, {"md": "markdown", "tex": "latex", "csv": "csv", "json": "json"}, "markdown")
    if (kind in FORMATS if name == NAME else kind != "json") is False:
        others = listed(FORMATS if name == NAME else ("markdown", "latex", "csv"), "or")
        raise UserError(f"The table {name} is not written as {kind}: choose {others}.")
    if output is not None:
        check_output(output, replace=overwrite)
    if name == NAME:
        text = summary(_one(folders), kind)
    elif name in SECTIONS:
        text = fitted_table(_fitted(folders, name), name, kind)
    elif name in BACKDOOR_TABLES:
        text = backdoor_table(_backdoors(folders, name), name, kind)
    else:
        text = written(_one(folders), name, kind)
    if output is None:
        print(text, end="")
    else:
        write_output(output, text.encode(), replace=overwrite)
        print(visible(output))
    return 0


def _runs_and_name(words: Sequence[str], known: Iterable[str], what: str, command: str) -> tuple[Sequence[str], str]:
    """The run folders, and the figure or table named after them."""
    usage = f"robustlab {command} RUN {next(iter(known))}"
    every = ", ".join(known)
    if not words:
        raise UserError(f"Give a run folder and the {what} ({every}): {usage}.")
    *runs, name = words
    name = {"security-curve": "curve", "curve": "security-curve"}.get(name, name) if name not in known else name
    if name in known and runs:
        return runs, name
    if name in known:
        raise UserError(f"Give the run folder before the {what}: {usage}.")
    if misplaced := [word for word in runs if word in known]:
        raise UserError(f"The {what} comes after the run folders: robustlab {command} {name} {misplaced[0]}.")
    if (Path(name) / "run.json").exists():
        raise UserError(f"Which {what}? Name it after the run folders: {usage}. There are: {every}.")
    raise UserError(f"There is no {what} {name!r}.{did_you_mean(name, known)} There are: {every}.")


def _format(asked: str | None, output: Path | None, endings: Mapping[str, str], default: str) -> str:
    """The format that was asked for, or that the output's ending says."""
    ending = output.suffix.lstrip(".").lower() if output else ""
    said = endings.get(ending)
    if asked and said and asked != said:
        raise UserError(f"--format {asked} and --output {output} do not agree. Leave --format out, or change one.")
    if ending and not (asked or said):
        known = ", ".join(f".{ending}" for ending in endings)
        raise UserError(f"--output {output} does not say which format: end it in {known}, or give --format.")
    return asked or said or default


def _one(folders: Sequence[str]) -> PageRun:
    """The runs as one; what to know about their comparison goes to stderr."""
    from robustlab.reporting.comparison import one_group

    run, notices = one_group(folders)
    for notice in notices:
        print(f"Note: {visible(notice)}", file=sys.stderr)
    return run


def _fitted(folders: Sequence[str], name: str) -> list[PageRun]:
    """The runs, all of them of stickers or patches."""
    from robustlab.reporting.fitted_tables import is_fitted

    return _all_of(folders, name, is_fitted, "a sticker or a patch")


def _backdoors(folders: Sequence[str], name: str) -> list[PageRun]:
    """The runs, all of them of backdoors."""
    from robustlab.reporting.backdoor_tables import is_backdoor

    return _all_of(folders, name, is_backdoor, "a backdoor")


def _all_of(folders: Sequence[str], name: str, fits: Callable[[PageRun], bool], what: str) -> list[PageRun]:
    """The runs, to all of which `fits` says yes."""
    from robustlab.reporting.comparison import read_runs

    runs = read_runs(folders)
    if other := next((run for run in runs if not fits(run)), None):
        raise UserError(f"{other.name} is no run of {what}: there is no {name} in it.")
    return runs
