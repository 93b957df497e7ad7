"""Beatrix beside its definition, and what it sees that a direction of variance does not show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.defenses.filters import Beatrix, Seen, Spectral, measure_filter

N = 400


def maps(shared: float) -> tuple[Seen, Tensor]:
    """8 channels of 4 places; in poisons the first two channels are large together at one place, not each by itself."""
    draws = torch.Generator().manual_seed(0)
    x = 1 + 0.2 * torch.rand(N, 8, 4, generator=draws)
    poisoned = torch.arange(N) < N // 20
    rows = torch.arange(N)
    first, second = torch.randint(0, 4, (N,), generator=draws), torch.randint(1, 4, (N,), generator=draws)
    x[rows, 0, first] += shared
    x[rows, 1, (first + torch.where(poisoned, 0, second)) % 4] += shared
    return Seen(torch.zeros(N, dtype=torch.int64), representations=x.flatten(1), poisoned=poisoned), poisoned


def test_scores_are_those_of_the_definition() -> None:
    seen, _ = maps(3.0)
    assert seen.representations is not None
    x = seen.representations.double().numpy().reshape(N, 8, 4)
    expected = np.zeros(N)
    for p in (1, 2, 3):
        gram = np.einsum("nap,nbp->nab", x**p, x**p)
        features = (np.sign(gram) * np.abs(gram) ** (1 / p))[:, *np.triu_indices(8)]
        middle = np.sort(features, 0)[(N - 1) // 2]
        mad = np.sort(np.abs(features - middle), 0)[(N - 1) // 2]
        low, high = middle - 10 * mad, middle + 10 * mad
        expected += np.mean(np.maximum(low - features, 0) / np.abs(low + 1e-6), 1) / 3
        expected += np.mean(np.maximum(features - high, 0) / np.abs(high + 1e-6), 1) / 3
    found = Beatrix(channels=8, orders=3)(seen)
    assert expected.max() > 0 and np.allclose(found.scores, expected, rtol=1e-4, atol=1e-7)
    assert int(found.removed.sum()) == 30 and found.knows == "eps"


def test_it_sees_channels_that_are_active_together() -> None:
    seen, poisoned = maps(3.0)
    areas = [
        measure_filter(found.scores, found.removed, poisoned)["auroc"]["value"]
        for found in (Beatrix(channels=8)(seen), Spectral()(seen))
    ]
    assert areas[0] is not None and areas[1] is not None and areas[0] > 0.99 > 0.8 > areas[1]


def test_channels_left_out_and_wrong() -> None:
    seen, _ = maps(3.0)
    assert torch.equal(Beatrix()(seen).scores, Beatrix(channels=32, orders=1)(seen).scores)
    with pytest.raises(UserError, match="channels must divide the 32 numbers"):
        Beatrix(channels=5)(seen)
    with pytest.raises(UserError, match="eps is the share"):
        Beatrix(eps=1)
