"""Intervals against published values and their definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as of_statsmodels

from robustlab.base.intervals import mcnemar, mean_share, paired_difference, share, wilson

cells = st.integers(0, 400)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_solve_the_score_equation(kn: tuple[int, int]) -> None:
    k, n = kn
    z = 1.959963984540054
    for end in wilson(k, n):
        if 0 < end < 1:  # the ends are where |p - k/n| is z standard errors of p
            assert abs(end - k / n) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-6, abs=1e-9)
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_both_are_those_of_scipy(kn: tuple[int, int]) -> None:
    """Here they are computed without it, because importing scipy.stats takes a second."""
    k, n = kn
    there = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((float(there.low), float(there.high)), rel=1e-12, abs=1e-15)
    assert mcnemar(k, n - k) == pytest.approx(float(binomtest(k, n).pvalue), rel=1e-9, abs=1e-300)


@given(cells, cells)
def test_mcnemar_is_that_of_statsmodels(b: int, c: int) -> None:
    assert mcnemar(b, c) == pytest.approx(of_statsmodels([[3, b], [c, 5]], exact=True).pvalue, rel=1e-9, abs=1e-300)


def test_share_of_nothing_has_no_value_and_says_nothing() -> None:
    assert share(0, 0) == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_mcnemar_is_the_two_sided_sign_test() -> None:
    by_hand = 2 * sum(math.comb(8, k) for k in (0, 1)) / 2**8
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(by_hand)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0


def test_paired_difference_gives_the_values_in_the_literature() -> None:
    # airway hyper-responsiveness before and after transplantation (Bentur et al. 2009), the example of Fagerland,
    # Lydersen and Laake (2014): Newcombe's interval -0.507 to -0.026
    found = paired_difference(1, 7, 1, 12)
    assert (round(found["value"] or 0, 3), round(found["low"], 3), round(found["high"], 3)) == (-0.286, -0.507, -0.026)
    assert found["p"] == pytest.approx(0.0703, abs=1e-4)


@given(cells, cells, cells, cells)
def test_paired_difference_is_bounded_and_antisymmetric(a: int, b: int, c: int, d: int) -> None:
    one, other = paired_difference(a, b, c, d), paired_difference(a, c, b, d)
    assert one["n"] == a + b + c + d
    assert -1 - 1e-9 <= one["low"] <= (one["value"] or 0) + 1e-12
    assert (one["value"] or 0) - 1e-12 <= one["high"] <= 1 + 1e-9
    assert (one["low"], one["high"], one["p"]) == pytest.approx((-other["high"], -other["low"], other["p"]), abs=1e-9)


def test_pairing_narrows_the_interval() -> None:
    agreeing, crossing = paired_difference(60, 10, 0, 30), paired_difference(42, 28, 18, 12)
    assert agreeing["value"] == crossing["value"] == -0.1
    assert agreeing["high"] - agreeing["low"] < crossing["high"] - crossing["low"]


def test_the_interval_of_a_mean() -> None:
    found = mean_share([0.1, 0.2, 0.3, 0.4, 0.5])
    assert (found["value"], found["n"]) == (pytest.approx(0.3), 5)
    assert found["low"] == pytest.approx(0.3 - 2.776445 * 0.158114 / 5**0.5, abs=1e-5)  # t with 4 degrees of freedom
    assert found["high"] - 0.3 == pytest.approx(0.3 - found["low"])
    assert mean_share([]) == {"value": None, "low": 0.0, "high": 1.0, "n": 0}
