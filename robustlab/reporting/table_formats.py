"""A table as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from robustlab.base.words import cell, interval, percent, visible
from robustlab.reporting.text import quantity

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$&])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\u00a0": "~",
    "–": "--",
    "−": "$-$",
    "ε": r"$\varepsilon$",
    "∞": r"$\infty$",
    "×": r"$\times$",
}


class Column(NamedTuple):
    """kind share: {value, low, high, n}, in CSV four columns. printed: in Markdown and LaTeX too, not only in CSV.

    written: how the value reads in Markdown and LaTeX.
    """

    key: str
    heading: str
    kind: Literal["text", "number", "share"] = "number"
    printed: bool = True
    written: Callable[[Any], str] = quantity

    def cell(self, value: Any) -> str:
        if self.kind == "text":
            return "–" if value is None else str(value)
        if self.kind == "number":
            return self.written(value)
        number = percent(value).removesuffix("\u00a0%")
        one = value and value["n"] == 1 and value["low"] == value["high"]  # of one seed there is no spread
        ends = "" if one else interval(value)
        return f"{number} ({ends})" if ends else number


class Table(NamedTuple):
    """rows: a value for every column's key. caption: of what, how many, and which intervals."""

    name: str
    caption: str
    columns: list[Column]
    rows: list[dict[str, Any]]

    @property
    def printed(self) -> list[Column]:
        return [column for column in self.columns if column.printed]

    def cells(self) -> Iterator[list[str]]:
        for row in self.rows:
            yield [column.cell(row[column.key]) for column in self.printed]


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown, with the caption under it.

    >>> print(markdown(Table("t", "Two.", [Column("a", "A", "text"), Column("b", "B")], [{"a": "x|y", "b": 1200}])))
    | A | B |
    | :--- | ---: |
    | x\\|y | 1,200 |
    <BLANKLINE>
    Two.
    <BLANKLINE>
    """
    rule = [":---" if column.kind == "text" else "---:" for column in table.printed]
    rows = [_headings(table), rule, *table.cells()]
    lines = [f"| {' | '.join(cell if row is rule else escaped(cell) for cell in row)} |" for row in rows]
    return "\n".join([*lines, "", escaped(table.caption)]) + "\n"


def latex(table: Table) -> str:
    """A table environment with the rules of the package booktabs.

    >>> print(latex(Table("t", "In %.", [Column("a", "A", "text"), Column("b", "B")], [{"a": "x_y", "b": 1200}])))
    % needs \\usepackage{booktabs}
    \\begin{table}
    \\centering
    \\caption{In \\%.}
    \\label{tab:t}
    \\begin{tabular}{lr}
    \\toprule
    A & B \\\\
    \\midrule
    x\\_y & 1,200 \\\\
    \\bottomrule
    \\end{tabular}
    \\end{table}
    <BLANKLINE>
    """
    first = table.printed[0].key
    body: list[str] = []
    for at, (row, cells) in enumerate(zip(table.rows, table.cells(), strict=True)):
        if at and row[first] != table.rows[at - 1][first] and len(table.rows) > len({r[first] for r in table.rows}):
            body.append(r"\midrule")  # the next model begins
        body.append(_row(cells))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{''.join('l' if column.kind == 'text' else 'r' for column in table.printed)}}}",
        r"\toprule",
        _row(_headings(table)),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def as_csv(table: Table) -> str:
    """Comma-separated values with a header: fractions as computed, a share as KEY, KEY_low, KEY_high and KEY_n.

    >>> from robustlab.base.intervals import share
    >>> print(as_csv(Table("t", "", [Column("a", "A", "share")], [{"a": share(1, 4)}, {"a": None}])).splitlines()[0])
    a,a_low,a_high,a_n
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_fields(table.columns))
    for row in table.rows:
        writer.writerow(_values(table.columns, row))
    return stream.getvalue()


def _fields(columns: Iterable[Column]) -> Iterator[str]:
    for column in columns:
        yield column.key
        if column.kind == "share":
            yield from (f"{column.key}_{end}" for end in ("low", "high", "n"))


def _values(columns: Iterable[Column], row: Mapping[str, Any]) -> Iterator[Any]:
    for column in columns:
        value = row[column.key]
        if column.kind == "share":
            # no interval without samples
            known = value if value and value["value"] is not None else {"n": value["n"] if value else None}
            yield from (known.get(end) for end in ("value", "low", "high", "n"))
        else:
            yield cell(value) if isinstance(value, str) else value


def _headings(table: Table) -> list[str]:
    return [f"{column.heading} (%)" if column.kind == "share" else column.heading for column in table.printed]


def _row(cells: Iterable[str]) -> str:
    return " & ".join(_tex(cell) for cell in cells) + r" \\"


def escaped(text: str) -> str:
    """A text of a run in Markdown, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(visible(text).split(None)))


def _tex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in re.sub(r"[^\S\u00a0]+", " ", visible(text)))
