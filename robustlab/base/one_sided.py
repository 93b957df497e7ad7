"""One-sided tests of a counted share: did it fall, against another on the same samples or against a number?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from robustlab.base.intervals import mcnemar

SURE = 0.001  # how often the share of samples on which two models differ may lie outside the range that is searched
STEPS = 200  # places in that range


def drop_p(only_first: int, only_second: int, n: int, margin: float = 0.0) -> float:
    """p of the hypothesis that the second of two models is at most `margin` worse than the first.

    only_first, only_second: how many of the n samples only one of them gets right. margin: in (-1, 1), negative where
    the second has to be better. Returns 1 where the counted drop is not larger than the margin.

    With margin 0 it is the one-sided exact test of McNemar (1947): of the samples on which the two differ, each is
    right in the first with probability 1/2. With another margin the statistic is Tango's score (1998, "Equivalence
    test and confidence interval for the difference in proportions for the paired-sample design", Statistics in
    Medicine 17), and p is exact: the largest over all shares of differing samples in their 99.9 % interval of Clopper
    and Pearson, plus 0.001 (Berger and Boos 1994). So p is below x with a probability of at most x, for every n.

    >>> drop_p(7, 1, 100), drop_p(7, 1, 100, margin=0.06)
    (0.03515625, 1.0)
    >>> [round(drop_p(only_first, 5, 500, margin=0.01), 3) for only_first in (15, 20, 25)]
    [0.134, 0.028, 0.003]
    """
    b, c = only_first, only_second
    if n == 0 or b - c <= n * margin:
        return 1.0
    if margin == 0:
        return mcnemar(b, c) / 2
    import numpy as np
    from scipy.special import bdtrc, betaincinv, gammaln, xlog1py, xlogy  # late: as long to import as some runs take

    differing = b + c
    low = float(betaincinv(differing, n - differing + 1, SURE / 2)) if differing else 0.0
    high = float(betaincinv(differing + 1, n - differing, 1 - SURE / 2)) if differing < n else 1.0
    low = max(low, abs(margin))
    if low > high:  # models that differ on so few samples are not so far apart
        return SURE
    reach = 4 * math.sqrt(n) + 1  # 8 standard deviations of a count, or more
    sums = np.arange(max(0, math.floor(n * low - reach)), min(n, math.ceil(n * high + reach)) + 1)
    least = _least(sums, float(score(b, c, n, margin)), n, margin)
    q = np.linspace(low, high, STEPS)[:, None]
    ways = gammaln(n + 1) - gammaln(sums + 1) - gammaln(n - sums + 1)
    weight = np.exp(ways + xlogy(sums, q) + xlog1py(n - sums, -q))
    beyond = bdtrc(least - 1, sums, np.clip((q + margin) / (2 * q), 0.0, 1.0))
    worst = float((weight * beyond).sum(axis=1).max())
    return min(1.0, worst + SURE)


def score(only_first: Any, only_second: Any, n: int, margin: float) -> Any:
    """Tango's statistic: how many standard errors the drop is beyond the margin, were the margin the truth.

    Numbers, or arrays of them.

    >>> round(float(score(7, 1, 100, 0.0)), 4)  # without a margin that of McNemar: (b - c) / sqrt(b + c)
    2.1213
    """
    import numpy as np

    b, c = np.asarray(only_first, float), np.asarray(only_second, float)
    linear = (2 * n - b + c) * margin - b - c
    constant = -c * margin * (1 - margin)
    share = (np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = np.maximum(n * (2 * share + margin * (1 - margin)), 0.0)
    beyond = b - c - n * margin
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 1e-12, beyond / np.sqrt(variance), np.sign(beyond) * np.inf)


def _least(sums: Any, seen: float, n: int, margin: float) -> Any:
    """For each number of differing samples, how many only the first must get right for a score of at least `seen`.

    One more than there are, where none is enough: the score grows with it.
    """
    import numpy as np

    low, high = np.zeros_like(sums), sums + 1
    while (low < high).any():
        middle = (low + high) // 2
        enough = (middle > sums) | (score(middle, sums - middle, n, margin) >= seen - 1e-9)
        low, high = np.where(enough | (low >= high), low, middle + 1), np.where(enough, middle, high)
    return low


def below_p(k: int, n: int, bound: float) -> float:
    """p of the hypothesis that a share, of which k of n were counted, is at least `bound`: the exact binomial test.

    1 where the counted share is not below it.

    >>> round(below_p(2, 20, 0.3), 4), below_p(8, 20, 0.3)
    (0.0355, 1.0)
    """
    if n == 0 or k >= n * bound:
        return 1.0
    from scipy.special import bdtr

    return float(bdtr(k, n, min(bound, 1.0)))


def holm(values: Sequence[float]) -> list[float]:
    """p of several tests, so that one of them falls below x by chance with a probability of at most x (Holm 1979).

    ValueError: a NaN among them; a test without p leaves those of the others unknown.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    if any(map(math.isnan, values)):
        raise ValueError(f"Holm's correction needs p of every test, got {list(values)}. Leave out a test without one.")
    order = sorted(range(len(values)), key=lambda at: values[at])
    found, largest = list(values), 0.0
    for place, at in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - place) * values[at]))
        found[at] = largest
    return found
