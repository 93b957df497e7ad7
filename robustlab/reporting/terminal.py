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

from robustlab.reporting.text import NORMS, budget, duration, interval, percent, quantity, shown_names
from robustlab.runs.audits import in_one_line


def terminal_table(results: Mapping[str, Any], width: int | None = None) -> str:
    """The object of `robustlab.runs.results.results` as plain text, with n and 95 % Wilson intervals.

    width: columns to fill at most; default: the terminal's, at least 100.
    """
    stream = io.StringIO()
    console = Console(file=stream, width=width or max(100, shutil.get_terminal_size().columns), highlight=False)
    tables, board = results["results"], results.get("transfer", {"rows": []})
    names = shown_names(
        [
            *(result["model"] for result in tables),
            *(name for result in tables for name in result.get("surrogates", [])),
            *(row["source"] for row in board["rows"]),
        ]
    )
    for result in tables:
        norm = NORMS[result["norm"]]
        clean = result["clean_accuracy"]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", show_edge=False)
        crafted = f", crafted on {', '.join(names[s] for s in result['surrogates'])}" if "surrogates" in result else ""
        eps = budget(result["eps"], result["norm"])
        table.title = Text(f"{names[result['model']]}: {norm} ε = {eps}, n = {clean['n']:,}{crafted}")
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
                quantity(attack["median_distance"]) + _of_found(attack),
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
        console.print(Text(f"audit of the attack: {in_one_line(result['audit'])}"))
        console.print()
    if "transfer" in results:
        attack = board["attack"]
        console.print(
            Text(f"Turned by {attack}, crafted on the model of the row, shown to that of the column (%, 95 %):")
        )
        console.print(_matrix(board, names))
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def _of_found(attack: Mapping[str, Any]) -> str:
    """Of how many a median is, where these are others than the successes."""
    return f" of {attack['found']:,}" if attack.get("found", attack["broken"]) != attack["broken"] else ""


def _matrix(transfer: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """The transfer matrix: a row for each model that images were crafted on."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rows: dict[str, list[str]] = {}
    for row in transfer["rows"]:
        number = percent(row["turned"]).removesuffix("\u00a0%")
        cell = "–" if row["turned"] is None else f"{number} ({interval(row['turned'])})"
        rows.setdefault(row["source"], []).append(cell)
    table.add_column("")
    for at in range(len({row["target"] for row in transfer["rows"]})):
        table.add_column(str(at + 1), justify="right")
    for at, (source, cells) in enumerate(rows.items(), 1):  # the models that are shown the images come first
        table.add_row(Text(f"{at} {names[source]}"), *cells)
    return table
