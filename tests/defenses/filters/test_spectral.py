"""Spectral signatures, and the singular vectors and measures that they stand on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.defenses.filters import FILTERS, Seen, Spectral, filter_class, measure_filter
from robustlab.defenses.filters.directions import top_directions
from robustlab.defenses.representations import representations


def mixture(n: int = 2000, eps: float = 0.1, shift: float = 3.0, d: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Standard normal vectors, of which a share eps is shifted along the first axis."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=draws)
    poisoned = torch.rand(n, generator=draws) < eps
    x[poisoned, 0] += shift
    return x, poisoned


@pytest.mark.parametrize("shape", [(300, 40), (40, 300), (900, 700), (700, 900)])
def test_the_directions_agree_with_numpy(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * torch.linspace(2, 0.1, shape[1])
    values, vectors = top_directions(x, 3)
    _, s, vt = np.linalg.svd(x.double().numpy(), full_matrices=False)
    assert np.allclose(values, s[:3], rtol=1e-5)
    assert np.abs(np.sum(vectors.numpy() * vt[:3].T, 0)) == pytest.approx(np.ones(3), abs=1e-3)


def test_scores_are_those_of_the_paper() -> None:
    x, _ = mixture()
    labels = torch.arange(len(x)) % 2
    found = Spectral()(Seen(labels, representations=x))
    for label in (0, 1):
        own = x[labels == label].double().numpy()
        own = own - own.mean(0)
        v = np.linalg.svd(own, full_matrices=False)[2][0]
        assert np.allclose(found.scores[labels == label], (own @ v) ** 2, rtol=1e-3, atol=1e-3)
        assert int(found.removed[labels == label].sum()) == round(0.075 * len(own))
        assert bool((found.scores[labels == label] >= found.thresholds[label]).eq(found.removed[labels == label]).all())


@pytest.mark.parametrize("shape", [(400, 30), (1300, 600)])
def test_the_order_of_samples_does_not_matter(shape: tuple[int, int]) -> None:
    x, _ = mixture(shape[0], d=shape[1], shift=8)
    ids, labels = torch.arange(len(x)), torch.arange(len(x)) % 2
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    first = Spectral()(Seen(labels, representations=x, ids=ids))
    second = Spectral()(Seen(labels[order], representations=x[order], ids=ids[order]))
    assert torch.allclose(first.scores[order], second.scores, rtol=1e-3, atol=1e-4)
    assert torch.equal(first.removed[order], second.removed)


def test_the_auroc_is_what_theory_predicts() -> None:
    """Along the direction of the shift, the squared distance from the class mean: two noncentral chi squares."""
    from scipy.stats import norm

    shift, eps, n = 3.0, 0.1, 20_000
    x, poisoned = mixture(n, eps, shift, d=5)
    found = Spectral(eps=eps)(Seen(torch.zeros(n, dtype=torch.int64), representations=x))
    area = measure_filter(found.scores, found.removed, poisoned)["auroc"]
    grid = np.linspace(-8, 12, 20_001)
    mean = eps * shift
    below = norm.cdf(mean + np.abs(grid - mean)) - norm.cdf(mean - np.abs(grid - mean))  # clean, with a lower score
    expected = float(np.sum(norm.pdf(grid - shift) * below) * (grid[1] - grid[0]))
    assert area["value"] == pytest.approx(expected, abs=3 * np.sqrt(expected * (1 - expected) / area["poisoned"]))


def test_the_original_code_ranks_poisons_last_where_the_paper_ranks_them_first() -> None:
    """Poisons near the origin, the clean class far from it: with the mean left in, the clean ones score higher."""
    x, poisoned = mixture(2000, 0.05, shift=-10.0)
    x[:, 0] += 10
    labels = torch.zeros(len(x), dtype=torch.int64)
    paper = Spectral()(Seen(labels, representations=x))
    code = Spectral(variant="original-code", target=0)(Seen(labels, representations=x))
    areas = [measure_filter(found.scores, found.removed, poisoned)["auroc"]["value"] for found in (paper, code)]
    assert areas == [pytest.approx(1, abs=0.01), pytest.approx(0, abs=0.01)]
    assert int(code.removed.sum()) == 300 and (paper.knows, code.knows) == ("eps", "the target class")


def test_the_original_code_looks_at_the_target_class_only() -> None:
    x, _ = mixture()
    labels = torch.arange(len(x)) % 4
    found = Spectral(variant="original-code", target=2)(Seen(labels, representations=x))
    assert bool(found.scores[labels != 2].isnan().all()) and not bool(found.scores[labels == 2].isnan().any())
    assert int(found.removed.sum()) == int(found.removed[labels == 2].sum()) == 75


def test_permuted_labels_give_half() -> None:
    x, poisoned = mixture(4000)
    found = Spectral(eps=0.1)(Seen(torch.zeros(4000, dtype=torch.int64), representations=x))
    mixed = poisoned[torch.randperm(4000, generator=torch.Generator().manual_seed(5))]
    area = measure_filter(found.scores, found.removed, mixed)["auroc"]
    error = ((4000 + 1) / (12 * area["poisoned"] * area["clean"])) ** 0.5
    assert abs((area["value"] or 0) - 0.5) < 3 * error


def test_equal_scores_count_half_and_samples_not_looked_at_do_not_count() -> None:
    poisoned = torch.tensor([True, False, False, True])
    nothing = torch.zeros(4, dtype=torch.bool)
    assert measure_filter(torch.ones(4), nothing, poisoned)["auroc"]["value"] == 0.5
    area = measure_filter(torch.tensor([2.0, 1.0, torch.nan, torch.nan]), nothing, poisoned)["auroc"]
    assert area == {"value": 1.0, "poisoned": 1, "clean": 1}
    assert measure_filter(torch.ones(4), nothing, nothing)["auroc"]["value"] is None


def test_representations_leave_the_classifier_alone_and_do_not_depend_on_batches() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(108, 4))
    images = torch.rand(10, 1, 8, 8)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = representations(net, images, batch_size=3)
    assert net.training and all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.allclose(found, representations(net, images), atol=1e-6)
    assert bool((found == representations(net, images, "2")).all())
    assert float(representations(net, images, "1").min()) < 0  # before the ReLU that writes in place


def test_bad_input() -> None:
    x, labels = torch.rand(10, 3), torch.arange(10) % 2
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(UserError, match="no layer 'flat'.*Its layers: 0, 1"):
        representations(net, torch.rand(2, 1, 2, 2), "flat")
    with pytest.raises(UserError, match="no filter 'spectra'. Did you mean 'spectral'"):
        filter_class("spectra")
    with pytest.raises(UserError, match="Class 7 has 1 image,"):
        Spectral()(Seen(torch.tensor([0] * 9 + [7]), representations=x))
    with pytest.raises(UserError, match="would remove all 2 images of class 0"):
        Spectral(eps=0.6)(Seen(torch.tensor([0, 0] + [1] * 8), representations=x))
    with pytest.raises(UserError, match="target must be a class"):
        Spectral(target=4)(Seen(labels, representations=x))
    with pytest.raises(UserError, match="give target"):
        Spectral(variant="original-code")
    with pytest.raises(UserError, match="eps is the share"):
        Spectral(eps=0)
    with pytest.raises(UserError, match="needs representations"):
        Spectral()(Seen(labels))
    with pytest.raises(UserError, match="10 labels and 9 representations"):
        Seen(labels, representations=x[:9])
    with pytest.raises(UserError, match="NaN or infinite"):
        Seen(labels, representations=x / 0)
    with pytest.raises(UserError, match="one shape"):
        measure_filter(torch.ones(3), torch.ones(2) > 0, torch.ones(3) > 0)


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_is_a_frozen_dataclass_that_says_what_it_needs(name: str) -> None:
    made = filter_class(name)()
    with pytest.raises(AttributeError):
        made.eps = 3
    assert made.knows and set(made.needs) <= set(Seen.__dataclass_fields__)
    if made.needs:
        with pytest.raises(UserError, match=f"needs {made.needs[0]}"):
            made(Seen(torch.zeros(4, dtype=torch.int64)))
