"""The directions of large variance: centred on the fly, few steps, little memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from robustlab.defenses.filters import Seen
from robustlab.defenses.filters.directions import Rows, top_directions
from robustlab.defenses.filters.robust import projected
from robustlab.defenses.filters.robust_z import RobustZ

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(2500, 700, generator=DRAWS) * torch.arange(1, 701) ** -0.25 + 20 * torch.rand(700, generator=DRAWS)
GROUPS = torch.arange(2500) % 3


def centred() -> np.ndarray:
    x = X.double().numpy().copy()
    for group in range(3):
        x[GROUPS == group] -= x[GROUPS == group].mean(0)
    return x


def test_groups_have_means_of_their_own() -> None:
    values, vectors = top_directions(Rows(X + GROUPS[:, None] * 5, GROUPS), 3)
    s, vt = np.linalg.svd(centred(), full_matrices=False)[1:]
    assert np.allclose(values, s[:3], rtol=1e-5)
    assert np.abs(np.sum(vectors.numpy() * vt[:3].T, 0)) == pytest.approx(np.ones(3), abs=1e-3)
    assert np.allclose(Rows(X, GROUPS).times(vectors, exactly=True), centred() @ vectors.numpy(), atol=1e-4)


def test_few_steps_find_the_variance_of_a_flat_spectrum() -> None:
    exact = np.linalg.svd(centred(), compute_uv=False)[:64]
    found = projected(X, 64, GROUPS).square().sum(0).sqrt().numpy()
    assert np.allclose(found, exact, rtol=0.01)


def test_scores_agree_with_those_of_the_exact_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(GROUPS, representations=X)
    found = RobustZ()(seen).scores
    monkeypatch.setattr("robustlab.defenses.filters.directions._EXACT", 10_000)
    exact = RobustZ()(seen).scores
    for group in range(3):
        assert spearmanr(found[GROUPS == group], exact[GROUPS == group])[0] > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["robust-z", "spectre", "activation-clustering"])
def test_memory_is_less_than_a_copy_of_the_representations(name: str) -> None:
    """Of 24,000 x 4,096, which are 375 MiB; what else is needed is read off at 4,096 rows before."""
    code = f"""
import resource, torch
from robustlab.defenses.filters import Seen, filter_class
torch.set_num_threads(1)
x = torch.empty(24_000, 4096)
for part in x.split(2000):
    part.normal_()
labels = torch.arange(len(x)) % 10
judge = filter_class({name!r})()
judge(Seen(labels[:4096], representations=x[:4096]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
judge(Seen(labels, representations=x))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    more = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert more < 250, f"{more:.0f} MiB more"
