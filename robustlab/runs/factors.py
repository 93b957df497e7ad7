"""Accuracy by factor: what is known of how each image came about (distance, angle, light ...), in a few bins."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import quantiles
from typing import Any, NamedTuple

from robustlab.base.intervals import share
from robustlab.runs.breakdowns import Answer

Json = dict[str, Any]
MOST = 6  # bins of a factor
WANTED = 5  # bins of a factor that takes many values
ENOUGH = 8  # samples that a bin should have, where the selection allows it
POINT_MASS = 0.2  # share of the samples that makes the lowest value a bin of its own: "none" in most scenes


class Bin(NamedTuple):
    """Values from `low` up to but not including `high`; one single value where the two are equal."""

    low: float
    high: float


def by_factor(
    answers: Sequence[Answer], data_lines: Iterable[Mapping[str, Any]], *, attacked: bool
) -> dict[str, list[Json]]:
    """One model's accuracy in the bins of each factor: {factor: [{low, high, clean, robust}]}, shares of the bin's n.

    The bins follow from the data alone, so that models can be compared; see `bins`. The first has no lower edge and
    the last no upper one (None). Left out: empty bins, factors that do not vary, values that are no finite numbers.
    attacked: was there a suite? robust is None where there was none.
    """
    found = {}
    for name, value_of in varying(data_lines).items():
        here = [(value_of[a.id], a) for a in answers if a.id in value_of]
        edges = bins([value for value, _ in here])
        lows = [one.low for one in edges]
        members: list[list[Answer]] = [[] for _ in edges]
        for value, answer in here:
            members[bisect_right(lows, value) - 1].append(answer)
        found[name] = [
            {
                "low": one.low if one.low > -math.inf else None,
                "high": one.high if one.high < math.inf else None,
                "clean": share(sum(a.right for a in group), len(group)),
                "robust": share(sum(a.robust for a in group), len(group)) if attacked else None,
            }
            for one, group in zip(edges, members, strict=True)
            if group
        ]
    return found


def varying(data_lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """The factors that take more than one value, with the value for each id where it is a finite number.

    >>> varying([{"id": 0, "factors": {"yaw": 5, "fog": 0}}, {"id": 1, "factors": {"yaw": None, "fog": 1}}])
    {'fog': {0: 0.0, 1: 1.0}}
    """
    factors: dict[str, dict[int, float]] = {}
    for line in data_lines:
        for name, value in (line.get("factors") or {}).items():
            if isinstance(value, int | float) and math.isfinite(value):
                factors.setdefault(name, {})[line["id"]] = float(value)
    return {name: values for name, values in factors.items() if len(set(values.values())) > 1}


def bins(values: Sequence[float]) -> list[Bin]:
    """At most 6 bins that hold all of `values`.

    One for each value where there are few; otherwise about equally full ones with round edges, after one for the
    lowest value alone where many samples have it.

    >>> bins([0, 1, 1, 2])
    [Bin(low=0, high=0), Bin(low=1, high=1), Bin(low=2, high=2)]
    >>> bins([k / 10 for k in range(-500, 501)])[:2]
    [Bin(low=-inf, high=-30.0), Bin(low=-30.0, high=-10.0)]
    """
    counts = Counter(values)
    lone = sum(count == 1 and value != int(value) for value, count in counts.items())
    if len(counts) <= MOST and (lone < 2 or len(values) < 2 * ENOUGH):  # lone fractions: draws of something continuous
        return [Bin(value, value) for value in sorted(counts)]
    lowest = min(counts)
    if counts[lowest] < POINT_MASS * len(values):
        return _continuous(values)
    rest = [value for value in values if value != lowest]
    first, *others = _continuous(rest)
    start = min(rest)
    low = _rounded(start, (min(first.high, max(rest)) - start) / 2, math.floor)
    return [Bin(lowest, lowest), Bin(low if low > lowest else start, first.high), *others]


def _continuous(values: Sequence[float]) -> list[Bin]:
    count = max(2, min(WANTED, len(values) // ENOUGH))
    lowest, highest = min(values), max(values)
    inner = sorted({edge for edge in quantiles(values, n=count, method="inclusive") if edge > lowest})
    ends = [lowest, *inner, highest]
    edges = set()
    for before, edge, after in zip(ends, inner, ends[2:], strict=False):
        near = min(edge - before, after - edge) if after > edge else edge - before
        round_edge = _rounded(edge, near / 2)
        edges.add(round_edge if round_edge <= highest else edge)  # the last bin must not be empty
    limits = [-math.inf, *sorted(edges), math.inf]
    return [Bin(low, high) for low, high in zip(limits, limits[1:], strict=False)]


def _rounded(value: float, step: float, to: Callable[[float], int] = round) -> float:
    """`value` to a multiple of the largest of ... 0.1, 0.2, 0.5, 1, 2, 5, 10 ... that is not above `step`."""
    scale = max(math.floor(math.log10(step)), -300) if step > 0 else -300  # 10 to the power of less is 0
    unit = max(digit for digit in (1, 2, 5) if digit == 1 or digit * 10.0**scale <= step) * 10.0**scale
    return round(to(value / unit) * unit, max(0, -scale)) + 0.0  # never -0
