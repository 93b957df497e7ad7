"""A comparison of two runs for eyes: the terminal, and Markdown for a pull request."""

from __future__ import annotations

import io

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from robustlab.base.words import counted, percent, visible
from robustlab.reporting.conditions import METRICS
from robustlab.reporting.gate import Change, Gate, Verdict
from robustlab.reporting.table_formats import Column, Table, escaped, markdown
from robustlab.reporting.text import p_value, points

TESTED = (
    "p is one-sided, of the hypothesis that the model is no worse than the condition allows: against the base an exact"
    " test paired on the same images (without a margin McNemar's), against a number the exact binomial test;"
    " worst_class: times the number of classes. All p are Holm-corrected over the conditions."
)
INTERVALS = "In brackets: 95 % intervals, of the changes Newcombe's for paired shares, in percentage points."


def tables(gate: Gate) -> list[Table]:
    """What changed, and, where conditions were given, which of them hold."""
    changes = [_row(change) | {"model": model} for model, change in gate.changes]
    found = [Table("changes", f"{gate.about}. {INTERVALS}", [_MODEL, *_SAME[:1], *_NUMBERS], changes)]
    if gate.verdicts:
        rows = [
            _row(one.change)
            | {"condition": one.condition.text, "model": one.model, "class": one.class_name}
            | {"p": p_value(one.p).removeprefix("= "), "result": "FAILED" if one.holds else "passed"}
            for one in gate.verdicts
        ]
        classed = [Column("class", "Class", "text")] if any(one.class_name for one in gate.verdicts) else []
        columns = [Column("result", "Result", "text"), Column("condition", "Fails if", "text"), _MODEL, *classed]
        said = f"A condition holds where p < {gate.level:g}. {TESTED}"
        found.append(Table("conditions", said, [*columns, *_NUMBERS, Column("p", "p", "text")], rows))
    return found


_MODEL = Column("model", "Model", "text")
_SAME = (Column("metric", "Metric", "text"),)
_NUMBERS = (
    Column("base", "Base", "share"),
    Column("new", "New", "share"),
    Column("change", "Change", "text"),
    Column("n", "n"),
)


def _row(change: Change) -> dict[str, object]:
    difference = change.difference
    return {
        "metric": METRICS[change.metric],
        "base": change.base,
        "new": change.new,
        "change": "not run" if difference["value"] is None else with_interval(change),
        "n": difference["n"],
    }


def with_interval(change: Change) -> str:
    """The paired change in percentage points with its 95 % interval."""
    difference = change.difference
    if difference["value"] is None:
        return "no image"
    return f"{points(difference['value'])} ({points(difference['low'])} to {points(difference['high'])})"


def sentence(verdict: Verdict) -> str:
    """One verdict in words, for a message."""
    change = verdict.change
    of_class = f" of {verdict.class_name}" if verdict.class_name is not None else ""
    metric = METRICS[change.metric].removesuffix(" of a class")
    return (
        f"{verdict.model}: {metric}{of_class} was {_plain(percent(change.base))} and is {_plain(percent(change.new))},"
        f" change {with_interval(change)} points on the same {counted(change.difference['n'])}, p {p_value(verdict.p)}."
        f" The condition {verdict.condition.text} {'holds' if verdict.holds else 'does not hold'}."
    )


def summary(gate: Gate) -> str:
    """The outcome in one line."""
    if not gate.verdicts:
        return "No condition was given: nothing can fail."
    failed = len(gate.failed)
    if not failed:
        return f"Passed: none of {counted(len(gate.verdicts), 'condition')} holds."
    return f"FAILED: {failed} of {counted(len(gate.verdicts), 'condition')} {'holds' if failed == 1 else 'hold'}."


def terminal(gate: Gate, width: int) -> str:
    """The comparison as plain text: what changed as a table, then one sentence for each condition."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False)
    changes, *conditions = tables(gate)
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in changes.printed:
        text = column.key in ("model", "metric")
        heading = f"{column.heading} (%)" if column.kind == "share" else column.heading
        grid.add_column(heading, overflow="fold", no_wrap=not text, justify="left" if text else "right")
    for cells in changes.cells():
        grid.add_row(*(Text(visible(cell)) for cell in cells))
    console.print(Text(visible(f"{gate.base} -> {gate.new}")))
    console.print()
    console.print(grid)
    console.print(Text(visible(changes.caption)))
    console.print()
    for verdict in gate.verdicts:
        console.print(Text(f"{'FAILED' if verdict.holds else 'passed'}  {visible(sentence(verdict))}"))
    for table in conditions:
        console.print(Text(table.caption))
    for _, doubt in gate.doubts:
        console.print(Text(f"Audit: {visible(doubt)}"))
    for note in gate.notes:
        console.print(Text(f"Note: {visible(note)}"))
    console.print(Text(summary(gate)))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def as_markdown(gate: Gate) -> str:
    """The comparison for a pull request; the explanations are folded away."""
    parts = [f"### robustlab: {summary(gate)}", ""]
    for table in reversed(tables(gate)):  # the conditions first
        text = markdown(table)
        body, _, caption = text.rstrip("\n").rpartition("\n\n")
        parts += [body, "", f"<details><summary>How to read this</summary>\n\n{caption}\n\n</details>", ""]
    parts += [f"> **Audit**: {escaped(doubt)}\n" for _, doubt in gate.doubts]
    parts += [f"> {escaped(note)}\n" for note in gate.notes]
    return "\n".join(parts).rstrip("\n") + "\n"


def _plain(text: str) -> str:
    return text.replace("\u00a0", " ")
