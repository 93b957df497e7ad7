"""The table of a run of `robustlab backdoor` as the command prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustlab.base.words import duration, interval, visible
from robustlab.runs.backdoors import Row, Spread, summary, takes

WORDS = ("clean", "attack success", "right", "AUROC", "TPR", "FPR", "removed", "left", "time")


def in_words(info: Mapping[str, Any]) -> list[str]:
    """The table that the command prints, line by line: means over the seeds, least and most behind two of them.

    >>> share = {"value": 0.9, "low": 0.8, "high": 1.0, "n": 10}
    >>> rows = [{"seed": 0, "row": "undefended", "kind": "undefended", "clean": share, "asr": share, "seconds": 3.0}]
    >>> print("\\n".join(line[:40].rstrip() for line in in_words({"sections": [{"name": "results", "rows": rows}]})))
                clean  attack success  right
    undefended   90.0            90.0      –
    1 seed. Shares are in %.
    """
    rows = summary(info)
    if not rows:
        return []
    table = [["", *WORDS], *([_called(row, rows), *_cells(row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    form = "  ".join(f"{{:{'>' if at else '<'}{width}}}" for at, width in enumerate(widths))
    lines = [form.format(*row).rstrip() for row in table]
    seeds = max(row["seeds"] for row in rows)
    told = f"Means of {seeds} seeds; in brackets the least and the most of them." if seeds > 1 else "1 seed."
    told += " Shares are in %."
    if takes(rows) is False:
        told += " The backdoor itself does not work: the numbers say nothing of the filters."
    return [*lines, told]


def _called(row: Row, rows: Sequence[Row]) -> str:
    most = max(each["seeds"] for each in rows)
    return visible(row["row"]) + (f" ({row['seeds']} of {most} seeds)" if row["seeds"] < most else "")


def _cells(row: Row) -> Iterator[str]:
    for key in ("clean", "asr"):
        found: Spread | None = row[key]
        ends = f" ({interval(found)})" if found and found["n"] > 1 else ""
        yield f"{100 * found['value']:.1f}{ends}" if found else "–"
    yield _written(row["right"], ".1f", 100)
    yield _written(row["auroc"], ".3f")
    yield _written(row["tpr"], ".1f", 100)
    yield _written(row["fpr"], ".1f", 100)
    for count in (row["removed"], row["left"]):
        yield "–" if count is None else f"{count:,.0f}"
    yield duration(row["seconds"])


def _written(found: Spread | None, form: str, times: int = 1) -> str:
    return format(times * found["value"], form) if found else "–"
