"""AUROC, its interval, and the threshold, against direct counts and other people's formulas."""

from __future__ import annotations

import math
import random

import pytest
import torch
from scipy.stats import mannwhitneyu

from robustlab.base.errors import UserError
from robustlab.base.intervals import auroc_interval
from robustlab.defenses.detectors.measure import auroc, threshold


def test_auroc_counts_pairs() -> None:
    draw = random.Random(0)
    bad, good = ([draw.randrange(12) for _ in range(size)] for size in (37, 53))
    pairs = sum((b > g) + (b == g) / 2 for b in bad for g in good) / (37 * 53)
    found = auroc(torch.tensor(bad), torch.tensor(good))
    assert found["value"] == pytest.approx(pairs)
    assert found["value"] == pytest.approx(mannwhitneyu(bad, good).statistic / (37 * 53))
    assert found["low"] < pairs < found["high"] and found["n"] == 37


def test_auroc_at_its_ends_and_without_pairs() -> None:
    low, high = torch.zeros(20), torch.ones(30)
    perfect, inverted = auroc(high, low), auroc(low, high)
    assert (perfect["value"], perfect["high"]) == (1.0, 1.0) and 0.8 < perfect["low"] < 1
    assert (inverted["value"], inverted["low"]) == (0.0, 0.0) and inverted["high"] == pytest.approx(1 - perfect["low"])
    assert auroc(high, low[:0])["value"] is None
    with pytest.raises(UserError, match="NaN"):
        auroc(torch.tensor([math.nan]), low)


def test_the_interval_solves_hanley_and_mcneils_equation() -> None:
    for value, m, n in ((0.7, 30, 80), (0.95, 12, 15), (0.2, 200, 100)):
        for end in auroc_interval(value, m, n):
            q1, q2, most = end / (2 - end), 2 * end**2 / (1 + end), (m + n) / 2 - 1
            variance = (end * (1 - end) + most * (q1 - end**2) + most * (q2 - end**2)) / (m * n)
            assert abs(value - end) == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-4)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    draws = torch.Generator().manual_seed(0)
    truth, inside = 0.5 * (1 + math.erf(1 / 2)), 0  # of normal scores one standard deviation apart
    for _ in range(400):
        found = auroc(torch.randn(40, generator=draws) + 1, torch.randn(40, generator=draws))
        inside += found["low"] <= truth <= found["high"]
    assert 0.92 <= inside / 400 <= 0.985


def test_threshold_lets_at_most_the_share_through() -> None:
    scores = torch.arange(1.0, 41.0)[torch.randperm(40)]
    assert threshold(scores, 0.05) == 38.0 and int((scores > 38).sum()) == 2
    assert threshold(scores[:0]) == math.inf
    tied = torch.tensor([0.0] * 90 + [1.0] * 10)
    assert threshold(tied, 0.05) == 1.0  # 0 would flag 10 %
    assert threshold(torch.tensor([3.0, 1.0]), 0.05) == 3.0
