"""The one-sided tests against scipy, against counting every table, and at their level."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from robustlab.base.one_sided import below_p, drop_p, holm, score


@pytest.mark.parametrize(("b", "c"), [(7, 1), (30, 12), (5, 0), (3, 2)])
def test_without_a_margin_it_is_scipys_binomial_test(b: int, c: int) -> None:
    assert drop_p(b, c, 100) == pytest.approx(binomtest(b, b + c, 0.5, alternative="greater").pvalue)


@pytest.mark.parametrize(("k", "n", "bound"), [(2, 20, 0.3), (180, 500, 0.4), (0, 7, 0.5)])
def test_against_a_number_it_is_scipys_binomial_test(k: int, n: int, bound: float) -> None:
    assert below_p(k, n, bound) == pytest.approx(binomtest(k, n, bound, alternative="less").pvalue)


@pytest.mark.parametrize("margin", [0.05, -0.08, 0.3])
def test_with_a_margin_p_counts_every_table(margin: float) -> None:
    """p is that of all tables with at least the same score, at the share of differing samples where it is largest."""
    n, b, c = 24, 13, 3
    tables = [(i, j) for i, j in itertools.product(range(n + 1), repeat=2) if i + j <= n]
    extreme = [(i, j) for i, j in tables if score(i, j, n, margin) >= score(b, c, n, margin) - 1e-9]

    def chance(q: float) -> float:
        first, second = (q + margin) / 2, (q - margin) / 2
        ways = ((math.comb(n, i) * math.comb(n - i, j), i, j) for i, j in extreme)
        return sum(many * first**i * second**j * (1 - q) ** (n - i - j) for many, i, j in ways)

    grid = [abs(margin) + (1 - abs(margin)) * k / 1000 for k in range(1001)]
    searched = binomtest(b + c, n).proportion_ci(0.999, "exact")
    inside = max(chance(q) for q in grid if searched.low <= q <= searched.high)
    assert drop_p(b, c, n, margin) == pytest.approx(inside + 0.001, abs=2e-4)


@pytest.mark.parametrize("margin", [0.0, 0.02, -0.02])
def test_a_true_drop_of_the_margin_is_seldom_found(margin: float) -> None:
    """At the edge of the hypothesis, where it is hardest: p < 0.1 in at most a tenth of the tries, and not in none."""
    dice, n, tries = random.Random(5), 150, 120
    hits = 0
    for _ in range(tries):
        draws = [dice.random() for _ in range(n)]
        first = sum(u < (0.1 + margin) / 2 for u in draws)
        differing = sum(u < 0.1 for u in draws)
        hits += drop_p(first, differing - first, n, margin) < 0.1
    assert 1 <= hits <= 0.1 * tries + 3 * math.sqrt(tries * 0.09)


def test_p_falls_with_the_drop_and_rises_with_the_margin() -> None:
    falling = [drop_p(b, 6, 400, 0.01) for b in range(11, 30, 3)]
    rising = [drop_p(30, 6, 400, margin) for margin in (-0.02, -0.01, 0.01, 0.02, 0.04)]
    assert falling == sorted(falling, reverse=True) and rising == sorted(rising) and falling[-1] < 0.02 < falling[0]
    assert drop_p(5, 5, 400, 0.0) == drop_p(0, 0, 0) == drop_p(9, 5, 400, 0.01) == 1.0


def test_models_that_hardly_differ_are_not_better_by_a_margin() -> None:
    assert drop_p(0, 0, 500, -0.1) == 0.001


def test_large_numbers_are_quick() -> None:
    assert 0 < drop_p(900, 700, 10_000, 0.01) < 0.1


def test_holm_keeps_the_order() -> None:
    assert holm([]) == [] and holm([0.2]) == [0.2]
    assert holm([0.5, 0.9, 0.01]) == pytest.approx([1.0, 1.0, 0.03])


def test_holm_refuses_a_test_without_p() -> None:
    with pytest.raises(ValueError, match="needs p of every test"):
        holm([0.04, float("nan"), 0.01])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(values: list[float]) -> None:
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1])
