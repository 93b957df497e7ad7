"""The table that the command prints: what `--json` says, for eyes."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustlab.reporting.text import NORMS, budget, duration, interval, percent, quantity


def terminal_table(results: Mapping[str, Any], width: int | None = None) -> str:
    """The object of `robustlab.runs.results.results` as plain text, with n and 95 % Wilson intervals.

    width: columns to fill at most; default: the terminal's, at least 100.
    """
    stream = io.StringIO()
    console = Console(file=stream, width=width or max(100, shutil.get_terminal_size().columns), highlight=False)
    for result in results["results"]:
        norm = NORMS[result["norm"]]
        clean = result["clean_accuracy"]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", show_edge=False)
        table.title = Text(f"{result['model']}: {norm} ε = {budget(result['eps'], result['norm'])}, n = {clean['n']:,}")
        table.add_column("")
        for heading in ("left", "95 %", "broken / tried", f"median {norm}", "forward / backward", "time"):
            table.add_column(heading, justify="right")
        table.add_row("clean", percent(clean), interval(clean))
        for attack in result["attacks"]:
            table.add_row(
                Text(attack["name"]),
                percent(attack["left"]),
                interval(attack["left"]),
                f"{attack['broken']:,} / {attack['attempted']:,}",
                quantity(attack["median_distance"]),
                f"{quantity(attack['forwards'])} / {quantity(attack['backwards'])}",
                duration(attack["seconds"]),
            )
        if result["robust_accuracy"]:
            table.add_section()
            table.add_row("robust", percent(result["robust_accuracy"]), interval(result["robust_accuracy"]))
            if result["robust_accuracy_8bit"]:
                rounded = result["robust_accuracy_8bit"]
                table.add_row("robust, 8 bits", percent(rounded), interval(rounded))
        console.print(table)
        console.print()
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())
