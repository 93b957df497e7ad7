"""The measures of heatmap shift against scipy and loops, and the control that keeps every norm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from robustlab.explain.shifts import centre_shift, means, same_size_noise, shift, spearman, ssim, top_k


def maps(seed: int, n: int = 3, h: int = 14, w: int = 17) -> torch.Tensor:
    """With many zeros that tie, as ReLU leaves them."""
    return (torch.rand(n, h, w, generator=torch.Generator().manual_seed(seed)) - 0.6).clamp_min(0)


def test_spearman_is_scipys_also_with_ties() -> None:
    a, b = maps(0), maps(1)
    b[2] = a[2] + 0.2 * b[2]
    wanted = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    assert torch.allclose(spearman(a, b), torch.tensor(wanted, dtype=torch.float64), atol=1e-9)
    assert bool(spearman(a, torch.zeros_like(a)).isnan().all())


def test_top_k_by_hand_and_the_order_of_equal_values_decides_nothing() -> None:
    a, b = torch.rand(1, 10, 10), torch.rand(1, 10, 10)
    best = [set(x.flatten().argsort(descending=True)[:10].tolist()) for x in (a, b)]
    assert top_k(a, b).item() == pytest.approx(len(best[0] & best[1]) / 10)
    flat = torch.zeros(1, 10, 10)
    flat[0, 0, 0] = 1  # the other 9 places are shared by 99 pixels
    assert top_k(flat, flat.flip(1)).item() == pytest.approx((2 * 9 / 99 + 98 * 9 / 99) / 10)


def test_ssim_is_that_of_loops() -> None:
    a, b = maps(2)[:1], maps(3)[:1]
    scale = max(float(a.max()), float(b.max()))
    x, y = (each[0].double().numpy() / scale for each in (a, b))
    weight = np.array([[math.exp(-(i * i + j * j) / 4.5) for i in range(-5, 6)] for j in range(-5, 6)])
    weight /= weight.sum()
    values = []
    for top in range(14 - 10):
        for left in range(17 - 10):
            p, q = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            mp, mq = (weight * p).sum(), (weight * q).sum()
            vp, vq = (weight * (p - mp) ** 2).sum(), (weight * (q - mq) ** 2).sum()
            pq = (weight * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + 1e-4) * (2 * pq + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    assert ssim(a, b).item() == pytest.approx(np.mean(values), abs=1e-9)


def test_centres() -> None:
    a = torch.zeros(1, 6, 8)
    b = a.clone()
    a[0, 1, 2], b[0, 1, 4], b[0, 1, 6] = 2.0, 1.0, 1.0
    assert centre_shift(a, b).item() == pytest.approx(3 / 10)


def test_zero_maps_are_left_out_and_the_mean_has_its_n() -> None:
    a, b = maps(4), maps(5)
    b[1] = 0
    found = means(shift(a, b))
    assert [each["n"] for each in found.values()] == [2, 2, 2, 2]
    assert found["spearman"]["mean"] == pytest.approx(float(spearman(a[[0, 2]], b[[0, 2]]).mean()))
    assert means(shift(a, b * 0))["ssim"] == {"mean": None, "low": None, "high": None, "n": 0}


def test_the_control_keeps_every_norm_and_goes_elsewhere() -> None:
    x = torch.full((2, 3, 8, 8), 0.5)
    change = torch.zeros_like(x)
    change[:, :, :2, :3] = torch.rand(2, 3, 2, 3) / 4
    noise = same_size_noise(x, x + change, 0, torch.tensor([3, 4])) - x
    for p in (0, 1, 2, math.inf):
        norms = [torch.linalg.vector_norm(each.flatten(1), p, 1) for each in (change, (noise.abs() > 1e-6) * noise)]
        assert torch.allclose(*norms, atol=1e-5)
    places = noise.abs().amax(1) > 1e-6
    assert not torch.equal(places[0], places[1]) and int(places[0, :2, :3].sum()) < 6
    alone = same_size_noise(x[1:], (x + change)[1:], 0, torch.tensor([4])) - x[1:]
    assert torch.equal(alone, noise[1:])  # keyed by id: the batch decides nothing
