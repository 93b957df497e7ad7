"""The filters beside spectral signatures, and the controls: what they find in mixtures whose poisons are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.defenses.filters import (
    ABL,
    ActivationClustering,
    Beatrix,
    Filter,
    Perfect,
    Random,
    RobustZ,
    Seen,
    Spectral,
    Spectre,
    Strip,
    measure_filter,
)
from robustlab.defenses.filters.robust import que, whitened

N = 600


def hidden(seed: int = 0, shift: float = 7.0) -> tuple[Seen, Tensor]:
    """Two classes of wide and narrow directions; 5 % of class 0 lie shifted along a narrow one."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 12, generator=draws) * torch.tensor([20.0, 15.0, 10.0] + [1.0] * 9)
    labels, poisoned = torch.arange(N) % 2, torch.zeros(N, dtype=torch.bool)
    poisoned[torch.arange(0, 40, 2)[:15]] = True
    x[poisoned, 5] += shift
    return Seen(labels, representations=x, poisoned=poisoned), poisoned


def area(found: Filter, seen: Seen, poisoned: Tensor) -> float:
    scores, own = found(seen), seen.labels == 0
    value = measure_filter(scores.scores[own], scores.removed[own], poisoned[own])["auroc"]["value"]
    assert value is not None
    return value


def test_robust_whitening_finds_what_hides_in_a_narrow_direction() -> None:
    """Where variance is large elsewhere, spectral signatures and clusters look there, and see nothing."""
    seen, poisoned = hidden()
    assert area(Spectral(), seen, poisoned) < 0.8 and area(ActivationClustering(), seen, poisoned) < 0.8
    assert area(Spectre(k=12), seen, poisoned) > 0.99
    assert area(RobustZ(), seen, poisoned) > 0.99 and area(RobustZ(covariance="class"), seen, poisoned) > 0.99


def test_spectre_takes_the_k_with_the_largest_mean_score() -> None:
    seen, poisoned = hidden()
    found = Spectre()(seen)
    assert found.about["k"][0] in (4, 9, 12)  # not 1: three wide directions come first
    assert area(Spectre(), seen, poisoned) > 0.99


def test_que_is_the_matrix_exponential() -> None:
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(2)).double()
    x[:20] += 2
    moment = x.T @ x / 200
    m = torch.matrix_exp(4 * (moment - torch.eye(5)) / (torch.linalg.matrix_norm(moment, 2) - 1))
    expected = (x @ m * x).sum(1) / m.trace()
    assert torch.allclose(que(x)[0], expected, rtol=1e-8)
    elementwise = (x @ (4 * (moment - torch.eye(5)) / (torch.linalg.matrix_norm(moment, 2) - 1)).exp() * x).sum(1)
    assert not torch.allclose(que(x)[0] / que(x)[1], elementwise / elementwise.mean(), rtol=0.05)


def test_whitening_leaves_directions_without_variance_out() -> None:
    z = torch.randn(100, 4, generator=torch.Generator().manual_seed(3)).double()
    z[:, 3] = z[:, 0]
    assert whitened(z, torch.ones(100, dtype=torch.bool)).shape == (100, 3)


def test_without_poisons_robust_z_removes_little_and_clusters_of_half_remove_always() -> None:
    x = torch.randn(2000, 12, generator=torch.Generator().manual_seed(4))
    seen = Seen(torch.zeros(2000, dtype=torch.int64), representations=x)
    assert int(RobustZ(k=12)(seen).removed.sum()) < 40
    assert int(ActivationClustering()(seen).removed.sum()) == 0
    assert int(ActivationClustering(largest=0.5)(seen).removed.sum()) > 200


@pytest.mark.parametrize(
    "found",
    [Spectre(), RobustZ(), RobustZ(covariance="class"), ActivationClustering(), Beatrix(), Random(), Perfect()],
    ids=repr,
)
def test_the_order_of_samples_does_not_matter(found: Filter) -> None:
    seen, poisoned = hidden()
    assert seen.representations is not None
    order = torch.randperm(N, generator=torch.Generator().manual_seed(6))
    mixed = Seen(seen.labels[order], seen.representations[order], seen.ids[order], poisoned=poisoned[order])
    first, second = found(seen), found(mixed)
    assert torch.allclose(first.scores[order], second.scores, rtol=1e-2, atol=1e-3)
    assert torch.equal(first.removed[order], second.removed)


def test_the_order_of_samples_does_not_matter_to_filters_that_see_losses_or_images() -> None:
    draws = torch.Generator().manual_seed(9)
    images, clean = torch.rand(60, 1, 4, 4, generator=draws), torch.rand(40, 1, 4, 4, generator=draws)
    seen = Seen(torch.arange(60) % 2, losses=torch.rand(3, 60, generator=draws), images=images)
    order = torch.randperm(60, generator=draws)
    mixed = Seen(seen.labels[order], ids=seen.ids[order], losses=seen.losses[:, order], images=images[order])  # type: ignore[index]
    for found in (ABL(isolated=0.1), Strip(overlays=8, batch_size=24)):
        first, second = (found(replace(each, classifier=Stamped(), clean_images=clean)) for each in (seen, mixed))
        assert torch.allclose(first.scores[order], second.scores, rtol=1e-4, atol=1e-5)
        assert torch.equal(first.removed[order], second.removed)


@pytest.mark.parametrize("found", [Spectral(), Spectre(), RobustZ(), ActivationClustering(), Beatrix()], ids=repr)
def test_permuted_labels_give_half(found: Filter) -> None:
    """The poisons are drawn again at random: no score knows them."""
    seen, poisoned = hidden()
    scores, own = found(seen).scores, seen.labels == 0
    areas = []
    for seed in range(20):
        mixed = poisoned[own][torch.randperm(int(own.sum()), generator=torch.Generator().manual_seed(seed))]
        areas.append(measure_filter(scores[own], mixed, mixed)["auroc"]["value"] or 0.0)
    assert abs(sum(areas) / 20 - 0.5) < 4 * 0.0757 / 20**0.5  # 0.0757: the standard error of one, of 15 and 285


def test_the_controls() -> None:
    seen, poisoned = hidden()
    assert torch.equal(Perfect()(seen).removed, poisoned)
    removed = Random(eps=0.1)(seen).removed
    assert int(removed.sum()) == int(Spectral(eps=0.1)(seen).removed.sum()) == 90
    assert not torch.equal(removed, Random(eps=0.1, seed=1)(seen).removed)
    assert abs(sum(area(Random(seed=s), seen, poisoned) for s in range(30)) / 30 - 0.5) < 4 * 0.0757 / 30**0.5


def test_loss_isolation_takes_the_lowest_losses_of_the_epoch() -> None:
    losses = torch.stack([torch.arange(10.0), torch.arange(10.0).flip(0)])
    seen = Seen(torch.arange(10) % 2, losses=losses)
    assert ABL(isolated=0.2, epoch=1)(seen).removed.nonzero()[:, 0].tolist() == [0, 1]
    assert ABL(isolated=0.2, epoch=2)(seen).removed.nonzero()[:, 0].tolist() == [8, 9]


class Stamped(nn.Module):
    """Class 1 where the first pixel is full, else the class of the brighter half."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.flatten(1).unflatten(1, (2, -1)).mean(2) * 20
        return half + (x[:, 0, 0, :1] > 0.99).float() * torch.tensor([-99.0, 99.0])


def test_strip_finds_what_keeps_its_class_under_other_images() -> None:
    images = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(7)) * 0.4
    clean = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(8)) * 0.4
    images[:6, 0, 0, 0] = 1
    poisoned = torch.arange(60) < 6
    seen = Seen(torch.ones(60).long(), classifier=Stamped(), images=images, clean_images=clean)
    found = Strip(overlays=16, fpr=0.05)(seen)
    assert measure_filter(found.scores, found.removed, poisoned)["auroc"]["value"] == 1.0
    assert bool(found.removed[:6].all()) and int(found.removed[6:].sum()) < 15
    small = Strip(overlays=16, fpr=0.05, batch_size=16)(seen)
    assert torch.allclose(small.scores, found.scores, atol=1e-5)


def test_bad_input() -> None:
    seen, _ = hidden()
    x = seen.representations
    assert x is not None
    for found in (Spectre(), RobustZ(), ActivationClustering()):
        with pytest.raises(UserError, match="Class 1 has 3 images"):
            found(Seen(torch.tensor([0] * (N - 3) + [1] * 3), representations=x))
    for found in (Spectre(), RobustZ()):
        with pytest.raises(UserError, match="All representations of class 0 are equal"):
            found(Seen(seen.labels, representations=torch.ones(N, 4)))
    with pytest.raises(UserError, match="would remove all 1 images of class 1"):
        Perfect()(Seen(torch.tensor([0, 1]), poisoned=torch.tensor([False, True])))
    with pytest.raises(UserError, match="most is a share"):
        RobustZ(most=0.5)
    with pytest.raises(UserError, match="covariance must be one of pooled, class"):
        RobustZ(covariance="all")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="largest is the share"):
        ActivationClustering(largest=0.6)
    with pytest.raises(UserError, match="epoch must be at most 1"):
        ABL(epoch=2)(Seen(seen.labels, losses=torch.ones(1, N)))
    with pytest.raises(UserError, match="isolated is a share"):
        ABL(isolated=1)
    images = torch.rand(4, 1, 4, 4)
    with pytest.raises(UserError, match="20 clean images"):
        Strip()(Seen(torch.zeros(4).long(), classifier=Stamped(), images=images, clean_images=images))
    with pytest.raises(UserError, match="losses must have the shape"):
        Seen(seen.labels, losses=torch.ones(N))
