"""`robustlab compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from robustlab import __version__
from robustlab.base.errors import UserError
from robustlab.cli.app import app
from robustlab.cli.flags import Flag, Words, check_once
from robustlab.cli.streams import print_json


@app.command(usage="Usage: robustlab compare BASE NEW [OPTIONS]")
def compare(
    base: str,
    new: str,
    /,
    *,
    fail_if: Words | None = None,
    level: float = 0.05,
    model: str | None = None,
    allow_other_attacks: Flag = False,
    format: Literal["terminal", "markdown", "json"] = "terminal",
    junit: Path | None = None,
    sarif: Path | None = None,
    overwrite: Flag = False,
) -> int:
    """Compare two runs of the same images, and fail where a model got worse: a gate for continuous integration.

    Exits with 1 if a condition of --fail-if holds, with 2 if the runs cannot be compared. A condition holds where a
    one-sided test says so at --level, paired on the same images and corrected for the number of conditions, so that
    noise alone fails a build with a probability of at most --level.

    Parameters
    ----------
    base
        The run folder to compare with, such as that of the main branch.
    new
        The run folder of the change.
    fail_if
        A condition, such as "robust_accuracy < base - 0.01"; may be given several times. Before the sign stands
        robust_accuracy, clean_accuracy or worst_class (any class, against the same class of the base), after it base,
        base - X, base + X or X, where X is a fraction.
    level
        The probability with which noise alone may fail the build.
    model
        Compare only this model, where the runs have several.
    allow_other_attacks
        Also compare robust accuracies of runs with other attacks or other parameters. A weaker attack makes the new
        model look better, so without this such runs exit with 2.
    format
        terminal, markdown (for a pull request) or json.
    junit
        Also write JUnit XML to this file.
    sarif
        Also write SARIF 2.1.0, for code-scanning pages, to this file.
    overwrite
        Replace files that are there.
    """
    from robustlab.reporting.conditions import parse_condition

    conditions = [parse_condition(text) for text in fail_if or []]
    check_once("--fail-if", [condition.text for condition in conditions])
    if not 0 < level < 1:
        raise UserError(f"--level is a probability between 0 and 1, got {level:g}.")
    for flag, file in (("--junit", junit), ("--sarif", sarif)):
        if file is not None and not conditions:
            raise UserError(f"{flag} tells which conditions hold: give --fail-if, too.")
    if junit is not None and junit == sarif:
        raise UserError(f"--junit and --sarif both name {junit}. Give two files.")

    from robustlab.base.files import check_output, write_output
    from robustlab.reporting import terminal_width
    from robustlab.reporting.gate import as_json, gate
    from robustlab.reporting.gate_files import junit as as_junit
    from robustlab.reporting.gate_files import sarif as as_sarif
    from robustlab.reporting.gate_text import as_markdown, terminal

    for file in (junit, sarif):
        if file is not None:
            check_output(file, replace=overwrite)
    found = gate(base, new, conditions, level=level, model=model, allow_other_attacks=allow_other_attacks)
    if junit is not None:
        write_output(junit, as_junit(found), replace=overwrite)
    if sarif is not None:
        write_output(sarif, as_sarif(found, __version__, Path.cwd()), replace=overwrite)
    if format == "json":
        print_json(as_json(found))
    elif format == "markdown":
        print(as_markdown(found), end="")
    else:
        print(terminal(found, terminal_width(sys.stdout)))
    return 1 if found.failed else 0
