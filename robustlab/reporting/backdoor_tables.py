"""Tables of runs of `robustlab backdoor`: defenses, by layer, by seed; several runs in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from robustlab.base.errors import UserError
from robustlab.base.words import counted, duration
from robustlab.reporting.source import PageRun
from robustlab.reporting.table_formats import Column, Table
from robustlab.reporting.tables import FORMATS, INTERVALS
from robustlab.runs.backdoor_schema import KIND
from robustlab.runs.backdoors import by_layer, rows_of, summary

Json = dict[str, Any]
SPREADS = "In brackets: the least and the most of the seeds, no confidence interval."
RATES = {"tpr": "TPR (%)", "fpr": "FPR (%)"}
ENDS = ("low", "high", "n")


def is_backdoor(run: PageRun) -> bool:
    """Is it the run of a backdoor?"""
    return run.info.get("kind") == KIND


def backdoor_table(runs: Sequence[PageRun], name: str, format: str) -> str:
    """The table `name` of BACKDOOR_TABLES, the rows of one run after those of another, in one of `tables.FORMATS`.

    UserError where a run has nothing for it.
    """
    caption, columns, rows_in = BACKDOOR_TABLES[name]
    rows = []
    for run in runs:
        if not (own := rows_in(run.info)):
            known = [other for other, (_, _, rows_of_it) in BACKDOOR_TABLES.items() if rows_of_it(run.info)]
            raise UserError(f"{run.name} has nothing for {name}. It has: {', '.join(known) or 'nothing yet'}.")
        rows += [{"run": run.name, **row} for row in own]
    several = [Column("run", "Run", "text")] * (len(runs) > 1)
    about = "; ".join(f"{run.name}: {what_was_done(run.info)}" if several else what_was_done(run.info) for run in runs)
    return FORMATS[format](Table(name, f"{caption} {about}.", [*several, *columns], rows))


def what_was_done(info: Json) -> str:
    """Trigger, rate, target, architecture and how many seeds in one phrase."""
    config = info["config"]
    target = "all to all" if config.get("target") is None else f"target {config['target']}"
    rate = f"{100 * config['rate']:.3g} % of the {'data' if config['of'] == 'data' else 'target class'}"
    seeds = counted(len({row["seed"] for row in rows_of(info, "models")}), "seed")
    return f"trigger {config['trigger']['name']}, {rate}, {target}, {config.get('architecture', '?')}, {seeds}"


def _defenses(info: Json) -> list[Json]:
    return [{**row, **_ends(row, ("auroc", *RATES))} for row in summary(info)]


def _layers(info: Json) -> list[Json]:
    filters, rows = by_layer(info)
    return [
        {"layer": row["layer"], "d": row["d"], "filter": name, **_ends({"auroc": row["auroc"][name]}, ("auroc",))}
        for row in rows
        for name in filters
    ]


def _seeds(info: Json) -> list[Json]:
    keys = [column.key for column in BY_SEED]
    return [{key: row.get(key) for key in keys} for row in rows_of(info, "results")]


def _ends(row: Any, keys: Sequence[str]) -> Json:
    """A spread as four numbers of the table: KEY, KEY_low, KEY_high, KEY_n."""
    found = {key: row[key] or {} for key in keys}
    return {key: spread.get("value") for key, spread in found.items()} | {
        f"{key}_{end}": spread.get(end) for key, spread in found.items() for end in ENDS
    }


def _with_ends(key: str, heading: str, written: Callable[[Any], str]) -> list[Column]:
    """A column, and its ends in CSV."""
    return [Column(key, heading, written=written), *(Column(f"{key}_{end}", "", printed=False) for end in ENDS)]


def _dashed(form: str, times: int = 1) -> Callable[[Any], str]:
    return lambda value: "–" if value is None else format(times * value, form)


OUTCOME = [
    Column("clean", "Clean accuracy", "share"),
    Column("asr", "Attack success", "share"),
    Column("right", "Right with the trigger", "share"),
]
AUROC = _with_ends("auroc", "AUROC", _dashed(".3f"))
DEFENSES = [
    Column("row", "Defense", "text"),
    Column("kind", "Kind", "text", printed=False),
    *OUTCOME,
    *AUROC,
    *(column for key, heading in RATES.items() for column in _with_ends(key, heading, _dashed(".1f", 100))),
    Column("removed", "Removed", written=_dashed(",.0f")),
    Column("left", "Poisons left", written=_dashed(",.0f")),
    Column("clean_removed", "Clean removed", printed=False),
    Column("seconds", "Time", written=duration),
    Column("seeds", "Seeds", printed=False),
    Column("knew", "What the defender knew", "text"),
]
BY_LAYER = [
    Column("layer", "Layer", "text"),
    Column("d", "Length"),
    Column("filter", "Filter", "text"),
    *AUROC,
]
BY_SEED = [
    Column("seed", "Seed"),
    Column("row", "Defense", "text"),
    Column("kind", "Kind", "text", printed=False),
    Column("trained", "Trained on"),
    *OUTCOME,
    Column("seconds", "Time", written=duration),
]
# the caption, the columns, and the rows of a run.json
BACKDOOR_TABLES: dict[str, tuple[str, list[Column], Callable[[Json], list[Json]]]] = {
    "defenses": (f"Means over the seeds. {SPREADS}", DEFENSES, _defenses),
    "by-layer": ("AUROC of each filter's scores, mean over the seeds.", BY_LAYER, _layers),
    "by-seed": (f"Each seed. {INTERVALS}", BY_SEED, _seeds),
}
