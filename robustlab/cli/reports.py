"""Commands that read run folders: `robustlab report`."""

from __future__ import annotations

from pathlib import Path

from robustlab.cli.app import app
from robustlab.errors import UserError


@app.command
def report(*runs: str, output: Path | None = None) -> int:
    """Build the page of a run again, from its folder alone.

    Parameters
    ----------
    runs
        A run folder.
    output
        The page to write (default report.html in the run folder).
    """
    from robustlab.reporting import report

    if len(runs) != 1:
        raise UserError(f"Give one run folder, such as reports/demo; got {len(runs)}.")
    target = output or Path(runs[0]) / "report.html"
    report([Path(run) for run in runs], target)
    print(target)
    return 0
