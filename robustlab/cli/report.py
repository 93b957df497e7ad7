"""`robustlab report`."""

from __future__ import annotations

from pathlib import Path

from robustlab.base.errors import UserError
from robustlab.base.words import visible
from robustlab.cli.app import app
from robustlab.cli.flags import Flag


@app.command(usage="Usage: robustlab report RUN [RUN ...] [OPTIONS]")
def report(*runs: str, output: Path | None = None, overwrite: Flag = False) -> int:
    """Build the page of a run again, from its folder alone, or one page for several runs.

    Runs of the same samples, labels and threat share tables and charts; others are said not to be comparable and stand
    apart.

    Parameters
    ----------
    runs
        One or several run folders.
    output
        The page to write, .html (default: report.html in the run folder; needed for several runs).
    overwrite
        Replace a file that is there; the run's own report.html is replaced anyway.
    """
    if not runs:
        raise UserError("Give at least one run folder, such as reports/demo.")
    if len(runs) > 1 and output is None:
        raise UserError(f"--output is needed for a page of several runs ({len(runs)} were given): --output page.html.")
    from robustlab.reporting import report

    target = output or Path(runs[0]) / "report.html"
    target = target if target.suffix or target.exists() else target.with_suffix(".html")
    print(visible(report(runs, target, overwrite=overwrite)))
    return 0
