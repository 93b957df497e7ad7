"""How sure a counted share is: intervals and a test for one model, and for two models on the same samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean, stdev
from typing import TypedDict

NORMAL = 1.959963984540054  # 97.5 % of a normal distribution lie below


class Share(TypedDict):
    """k of n as a fraction, with its 95 % Wilson interval; `value` is None where n is 0."""

    value: float | None
    low: float
    high: float
    n: int


class PairedDifference(TypedDict):
    """Second minus first, for two models judged on the same samples (fractions; p of McNemar's exact test)."""

    value: float | None
    low: float
    high: float
    n: int
    only_first: int
    only_second: int
    p: float


class Mean(TypedDict):
    """The mean of n values with its 95 % t interval: no mean where n is 0, no interval where n is less than 2."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


@lru_cache(maxsize=65536)
def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of Wilson (1927) for k successes in n trials; (0, 1) where n is 0.

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if n == 0:
        return 0.0, 1.0
    p, square = k / n, NORMAL**2
    whole = 2 * (n + square)
    center, reach = (2 * n * p + square) / whole, NORMAL / whole * math.sqrt(4 * n * p * (1 - p) + square)
    return 0.0 if k == 0 else center - reach, 1.0 if k == n else center + reach


def share(k: int, n: int) -> Share:
    """k of n as every number of a run is stored.

    >>> share(0, 0)["value"] is None
    True
    """
    low, high = wilson(k, n)
    return Share(value=k / n if n else None, low=low, high=high, n=n)


def mean_share(values: Sequence[float]) -> Share:
    """The mean of n shares, with its 95 % t interval, cut to [0, 1]; `value` is None where n is 0.

    >>> found = mean_share([0.2, 0.4])
    >>> round(found["value"], 2), found["low"], found["n"]
    (0.3, 0.0, 2)
    """
    found = mean_interval(values)
    low, high = found["low"], found["high"]
    low, high = 0.0 if low is None else max(low, 0.0), 1.0 if high is None else min(high, 1.0)
    return Share(value=found["mean"], low=low, high=high, n=found["n"])


def mean_interval(values: Sequence[float]) -> Mean:
    """The mean of n values, with its 95 % t interval.

    >>> found = mean_interval([0.5, 0.25])
    >>> found["mean"], round(found["low"], 2), found["n"]
    (0.375, -1.21, 2)
    """
    n = len(values)
    if n < 2:
        return Mean(mean=values[0] if n else None, low=None, high=None, n=n)
    from scipy.special import stdtrit  # late: scipy takes as long to import as some runs

    mean, reach = fmean(values), float(stdtrit(n - 1, 0.975)) * stdev(values) / math.sqrt(n)
    return Mean(mean=mean, low=mean - reach, high=mean + reach, n=n)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test: is the split of the samples on which two models disagree a fair coin's?

    >>> mcnemar(1, 7)
    0.0703125
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    term = total = 1  # of n coins, the ways in which `fewer` or less show heads: exact, however large
    for i in range(fewer):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, 2 * total / (1 << n))


def paired_difference(both: int, only_first: int, only_second: int, neither: int) -> PairedDifference:
    """Difference of two shares counted on the same samples (second minus first), with a 95 % interval.

    The arguments are the four cells of the table "first right" by "second right". Method 10 of Newcombe (1998),
    "Improved confidence intervals for the difference between binomial proportions based on paired data", Statistics
    in Medicine 17: the two Wilson intervals are squared and added, less the share that the pairing explains.

    >>> d = paired_difference(36, 12, 2, 0)
    >>> [round(d[key], 4) for key in ("value", "low", "high")]
    [-0.2, -0.3404, -0.0569]
    """
    a, b, c, d = both, only_first, only_second, neither
    n = a + b + c + d
    p = mcnemar(b, c)
    if n == 0:
        return PairedDifference(value=None, low=-1.0, high=1.0, n=0, only_first=0, only_second=0, p=p)
    first, second = (a + b) / n, (a + c) / n
    low1, high1 = wilson(a + b, n)
    low2, high2 = wilson(a + c, n)
    margins = math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    excess = float(a * d - b * c)
    if excess > 0:  # the paper's continuity correction: only positive correlation is shrunk
        excess = max(excess - n / 2, 0.0)
    phi = excess / margins if margins else 0.0

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    value = (c - b) / n
    return PairedDifference(
        value=value,
        low=value - reach(second - low2, high1 - first),
        high=value + reach(high2 - second, first - low1),
        n=n,
        only_first=b,
        only_second=c,
        p=p,
    )


def auroc_interval(value: float, suspicious: int, normal: int) -> tuple[float, float]:
    """The 95 % interval of an area under the ROC curve of so many suspicious and normal images, all independent.

    Method 5 of Newcombe (2006), "Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
    part 2", Statistics in Medicine 25: all areas whose own variance after Hanley and McNeil (1982), with the mean of
    both numbers, puts `value` within 1.96 standard errors. It never has the length 0, as a plain one has at 1.

    >>> [round(end, 3) for end in auroc_interval(0.9, 50, 50)]
    [0.816, 0.946]
    """
    mean = (suspicious + normal) / 2 - 1

    def away(area: float) -> float:
        spread = area * (1 - area) * (1 + mean * ((1 - area) / (2 - area) + area / (1 + area)))
        return abs(value - area) - NORMAL * math.sqrt(spread / (suspicious * normal))

    def end(out: float) -> float:
        """Between the value and 0 or 1, where the distance reaches 1.96 standard errors."""
        inside, outside = value, out
        for _ in range(60):
            half = (inside + outside) / 2
            inside, outside = (half, outside) if away(half) <= 0 else (inside, half)
        return inside

    return (0.0 if value == 0 else end(0.0)), (1.0 if value == 1 else end(1.0))
