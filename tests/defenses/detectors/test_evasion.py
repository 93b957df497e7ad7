"""The attack that knows the detector: inside the ball, wrong, unnoticed, and the same in any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.base.errors import UserError
from robustlab.defenses.detectors import DETECTORS, Confidence, Energy, Evasion, make_detector
from robustlab.defenses.detectors.base import scores_of
from robustlab.oracle import NoGradientError
from robustlab.threat.geometry import distance


@pytest.fixture(scope="module")
def case() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network, images and what it says of them."""
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()
    model = nn.Sequential(*parts, nn.Linear(6 * 36, 4)).eval()
    model[4].weight.data *= 10
    x = torch.rand(12, 3, 8, 8)
    with torch.no_grad():
        return model, x, model(x).argmax(1)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.0), ("l1", 10.0)])
def test_stays_wrong_and_inside_with_a_lower_score(case: Any, name: str, norm: str, eps: float) -> None:
    model, x, y = case
    detector = make_detector(name)
    blind = PGD(norm=norm, eps=eps, steps=10).run(model, x, y)  # type: ignore[arg-type]
    found = Evasion(detector, norm=norm, eps=eps, steps=20).run(model, x, y, start=blind.images)  # type: ignore[arg-type]
    with torch.no_grad():
        wrong = model(found.images).argmax(1) != y
    assert bool(blind.success.any()) and torch.equal(wrong & found.success, found.success)
    assert bool((found.success | ~blind.success).all())
    assert bool((distance(found.images - x, norm) <= eps + 1e-6 * max(1, eps)).all())
    assert bool(((found.images >= 0) & (found.images <= 1)).all())
    before, after = (scores_of(detector, model, images, 128) for images in (blind.images, found.images))
    assert torch.allclose(after[found.success], found.score[found.success].cpu(), atol=1e-6)
    s = blind.success
    assert bool((after[s] <= before[s] + 1e-6).all()) and (before - after)[s].mean() > 0.05


def test_reaches_the_lowest_score_where_it_is_known() -> None:
    """Two classes by the sign of one value: the corner of the ball is best, and only one side is wrong."""

    def model(images: Tensor) -> Tensor:
        z = 10 * (images.flatten(1)[:, 0] - 0.5)
        return torch.stack([-z, z], 1)

    x = torch.tensor([0.45, 0.52, 0.3]).view(3, 1, 1, 1)
    found = Evasion(Confidence(), eps=0.1, steps=30).run(model, x, (x > 0.5).long().flatten())
    assert found.images.flatten()[:2].tolist() == pytest.approx([0.55, 0.42])
    assert found.success.tolist() == [True, True, False] and found.score[2].item() == float("inf")


def test_does_not_depend_on_the_batch_or_the_order(case: Any) -> None:
    model, x, y = case
    attack, ids = Evasion(Energy(), eps=0.1, steps=12), torch.arange(12) + 5
    whole = attack.run(model, x, y, ids=ids)
    order = torch.randperm(12)
    again = attack.run(model, x[order], y[order], ids=ids[order], batch_size=5)
    assert torch.allclose(again.images, whole.images[order], atol=1e-5)
    assert torch.allclose(again.score, whole.score[order], atol=1e-4)
    assert not torch.equal(attack.run(model, x, y, ids=ids, seed=1).images, whole.images)


def test_leaves_the_classifier_as_it_was_also_after_an_error(case: Any) -> None:
    model, x, y = case
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Evasion(Energy(), eps=0.1, steps=3).run(model, x, y)
    hook = model[4].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Evasion(Energy(), eps=0.1, steps=3).run(model, x, y)
    hook.remove()
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    model.eval()


def test_without_a_budget_nothing_changes(case: Any) -> None:
    model, x, y = case
    found = Evasion(Confidence(), eps=0, steps=2).run(model, x, y)
    assert torch.equal(found.images, x) and not bool(found.success.any())


@pytest.mark.parametrize(
    ("given", "said"), [({"norm": "l0"}, "knows the norms"), ({"steps": 0}, "at least 1"), ({"eps": 8}, "Did you mean")]
)
def test_bad_parameters(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Evasion(Confidence(), **given)


def test_bad_calls(case: Any) -> None:
    model, x, y = case
    with pytest.raises(UserError, match="start must have the shape"):
        Evasion(Confidence()).run(model, x, y, start=x[:3])
    with pytest.raises(NoGradientError):
        Evasion(Confidence()).run(lambda images: model(images).detach(), x, y)
