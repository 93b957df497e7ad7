"""What a run of `robustlab backdoor` found, as a mean over its seeds: run.json -> rows. Pure functions; no files.

`low` and `high` of a spread are the least and the most over the seeds. They are no confidence interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, TypedDict

Json = dict[str, Any]
KINDS = ("undefended", "control", "filter", "repair")  # of rows, in the order in which they are shown
PUBLISHED = "spectral"  # the row of the filter as it was published
RANDOM, PERFECT, AS_FEW = "random, as many as ", "perfect", "perfect, as few as "
NEAR = 0.02  # a difference that counts as none
TAKES = 0.1  # a backdoor's attack success is above the perfect filter's by more than this
NO_BETTER = 0.1  # a filter must lower the attack success by more than this below the random filter's


class Spread(TypedDict):
    """The mean over n seeds, the least and the most of them: no confidence interval."""

    value: float
    low: float
    high: float
    n: int


class Row(TypedDict):
    """One name over all its seeds; None: not measured for such a row.

    knew: what the defender had to know. asr: attack success. right: triggered images read as their true class.
    removed, left, clean_removed: training images, poisons and clean ones (means). seconds: of the filter and of the
    training after it (mean).
    """

    row: str
    kind: str
    knew: str | None
    clean: Spread | None
    asr: Spread | None
    right: Spread | None
    auroc: Spread | None
    tpr: Spread | None
    fpr: Spread | None
    removed: float | None
    left: float | None
    clean_removed: float | None
    seconds: float | None
    seeds: int


class Within(TypedDict):
    """Differences of means, as fractions: a filter's attack success minus the perfect filter's, and its clean accuracy
    minus that of the perfect filter that keeps as few images (`beside`). None where there is no such row.
    """

    asr: float | None
    clean: float | None
    beside: str | None


def rows_of(info: Mapping[str, Any], name: str) -> list[Json]:
    """The rows of a section of run.json; none where it is missing.

    >>> rows_of({"sections": [{"name": "results", "rows": [{"row": "undefended"}]}]}, "results")
    [{'row': 'undefended'}]
    >>> rows_of({}, "results")
    []
    """
    sections = info.get("sections", [])
    return list(next((section.get("rows", []) for section in sections if section.get("name") == name), []))


def number(value: Any) -> float | None:
    """A number, or the value of a share; None where it is neither.

    >>> number(0.5), number({"value": 0.25, "low": 0, "high": 1, "n": 4}), number("x"), number(None)
    (0.5, 0.25, None, None)
    """
    value = value.get("value") if isinstance(value, dict) else value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def spread(values: Iterable[Any]) -> Spread | None:
    """The mean of numbers or shares, with the least and the most; what was not measured is left out.

    >>> spread([0.25, 0.75, None])
    {'value': 0.5, 'low': 0.25, 'high': 0.75, 'n': 2}
    >>> spread([None]) is None
    True
    """
    found = [value for value in map(number, values) if value is not None]
    return Spread(value=fmean(found), low=min(found), high=max(found), n=len(found)) if found else None


def summary(info: Mapping[str, Any]) -> list[Row]:
    """A row for each name of the section `results`: undefended, controls, filters, repairs; [] where there is none.

    Each number is the mean over the seeds; a `Spread` has the least and the most of them beside it, which is no
    confidence interval. How many images a control removed follows from how many were left to train on. A filter after
    which nothing was trained has a row too.

    >>> share = {"value": 0.9, "low": 0.8, "high": 1.0, "n": 10}
    >>> result = {"row": "undefended", "kind": "undefended", "clean": share, "asr": share}
    >>> [row] = summary({"sections": [{"name": "results", "rows": [{"seed": seed, **result} for seed in (0, 1)]}]})
    >>> row["clean"], row["auroc"], row["seeds"]
    ({'value': 0.9, 'low': 0.9, 'high': 0.9, 'n': 2}, None, 2)
    """
    results, filters = rows_of(info, "results"), rows_of(info, "filters")
    poisons = [number(row.get("poisons")) for row in rows_of(info, "models")]
    whole = {row.get("seed"): number(row.get("trained")) for row in results if row.get("kind") == "undefended"}
    found = []
    for name, kind in _names(results, filters):
        own = [row for row in results if row.get("row") == name]
        scored = [row for row in filters if row.get("filter") == name] if kind == "filter" else []
        removed = [row.get("removed") for row in scored]
        left = [row.get("left") for row in scored]
        if kind in ("undefended", "control"):
            removed = [_less(whole.get(row.get("seed")), number(row.get("trained"))) for row in own]
        if kind == "undefended":
            left = list(poisons)
        found.append(
            Row(
                row=name,
                kind=kind,
                knew=next((str(row["knew"]) for row in scored if row.get("knew")), None),
                clean=spread(row.get("clean") for row in own),
                asr=spread(row.get("asr") for row in own),
                right=spread(row.get("right") for row in own),
                auroc=spread(row.get("auroc") for row in scored),
                tpr=spread(row.get("tpr") for row in scored),
                fpr=spread(row.get("fpr") for row in scored),
                removed=_mean(removed),
                left=_mean(left),
                clean_removed=_mean(row.get("clean_removed") for row in scored),
                seconds=_seconds(own, scored),
                seeds=len({row.get("seed") for row in own or scored}),
            )
        )
    return found


def best(rows: Iterable[Row]) -> Row | None:
    """The filter with the lowest mean attack success, of equal ones the one with the highest clean accuracy."""
    known = [row for row in rows if row["kind"] == "filter" and row["asr"]]
    known = [row for row in known if row["seeds"] == max(each["seeds"] for each in known)]
    return min(known, key=lambda row: (_value(row, "asr"), -_value(row, "clean")), default=None)


def control(rows: Iterable[Row], beginning: str, name: str) -> Row | None:
    """The control of the size of the filter `name`; where it has none, the one that removed nearly as many images.

    >>> control([], RANDOM, "spectral") is None
    True
    """
    rows = list(rows)
    found = [row for row in rows if row["kind"] == "control" and row["row"].startswith(beginning)]
    size = next((row["removed"] or 0.0 for row in rows if (row["row"], row["kind"]) == (name, "filter")), 0.0)

    def distance(row: Row) -> tuple[bool, float]:
        return row["row"] != beginning + name, abs((row["removed"] or 0.0) - size)

    return min(found, key=distance, default=None)


def within(info: Mapping[str, Any], filter: str) -> Within:
    """How far a filter is from the perfect one, in means over the seeds; within `NEAR` counts as the same.

    Attack success beside "perfect"; clean accuracy beside "perfect, as few as X", see `control`.

    >>> within({}, "spectral")
    {'asr': None, 'clean': None, 'beside': None}
    """
    rows = summary(info)
    own = next((row for row in rows if row["row"] == filter and row["kind"] == "filter"), None)
    perfect = next((row for row in rows if row["row"] == PERFECT), None)
    few = control(rows, AS_FEW, filter)
    return Within(
        asr=_difference(own, perfect, "asr"),
        clean=_difference(own, few, "clean"),
        beside=few["row"] if few else None,
    )


def no_better(rows: Iterable[Row], filter: str = PUBLISHED) -> bool | None:
    """Is the filter no better than the random one, its attack success not lower by more than `NO_BETTER`?

    None where either was not run, or no random one removed about as many images (a tenth more or fewer).
    """
    rows = list(rows)
    own = next((row for row in rows if row["row"] == filter and row["kind"] == "filter"), None)
    chance = control(rows, RANDOM, filter)
    if own and chance and abs((own["removed"] or 0) - (chance["removed"] or 0)) > 0.1 * (own["removed"] or 0):
        return None
    difference = _difference(own, chance, "asr")
    return None if difference is None else difference >= -NO_BETTER - 1e-9


def takes(rows: Iterable[Row]) -> bool | None:
    """Does the backdoor work at all: is the attack success above the perfect filter's (or 0) by more than `TAKES`?

    None where it was not measured. Where it does not, the numbers say nothing of the filters.
    """
    rows = list(rows)
    first = next((row for row in rows if row["kind"] == "undefended" and row["asr"]), None)
    perfect = next((row for row in rows if row["row"] == PERFECT), None)
    if first is None:
        return None
    return _value(first, "asr") - (_value(perfect, "asr") if perfect else 0.0) > TAKES


def by_layer(info: Mapping[str, Any]) -> tuple[list[str], list[Json]]:
    """The filters, and a row for each layer: {layer, d, FILTER: the spread of its AUROC over the seeds, or None}.

    >>> by_layer({"sections": [{"name": "by layer", "rows": [{"layer": "fc", "d": 9, "filter": "abl", "auroc": 1.0}]}]})
    (['abl'], [{'layer': 'fc', 'd': 9, 'auroc': {'abl': {'value': 1.0, 'low': 1.0, 'high': 1.0, 'n': 1}}}])
    """
    rows = rows_of(info, "by layer")
    filters = list(dict.fromkeys(str(row.get("filter")) for row in rows))
    found = []
    for layer in dict.fromkeys(str(row.get("layer")) for row in rows):
        own = [row for row in rows if str(row.get("layer")) == layer]
        auroc = {name: spread(row.get("auroc") for row in own if str(row.get("filter")) == name) for name in filters}
        found.append({"layer": layer, "d": next((row.get("d") for row in own), None), "auroc": auroc})
    return filters, found


def _names(results: Iterable[Json], filters: Iterable[Json]) -> list[tuple[str, str]]:
    """Every row's name and kind, sorted by kind and then as they came."""
    named = dict.fromkeys((str(row.get("row")), str(row.get("kind"))) for row in results)
    named |= dict.fromkeys((str(row.get("filter")), "filter") for row in filters)
    return sorted(named, key=lambda each: KINDS.index(each[1]) if each[1] in KINDS else len(KINDS))


def _seconds(results: Iterable[Json], scored: Iterable[Json]) -> float | None:
    parts = [_mean(row.get("seconds") for row in rows) for rows in (results, scored)]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _mean(values: Iterable[Any]) -> float | None:
    found = spread(values)
    return found["value"] if found else None


def _less(whole: float | None, part: float | None) -> float | None:
    return None if whole is None or part is None else whole - part


def _value(row: Row, key: str) -> float:
    found: Spread | None = row[key]  # type: ignore[literal-required]
    return found["value"] if found else 0.0


def _difference(row: Row | None, other: Row | None, key: str) -> float | None:
    first: Spread | None = row[key] if row else None  # type: ignore[literal-required]
    second: Spread | None = other[key] if other else None  # type: ignore[literal-required]
    if not row or not other or not first or not second or first["n"] != second["n"]:  # over the same seeds only
        return None
    return _value(row, key) - _value(other, key)
