"""What holds of every trigger in the registry."""

from __future__ import annotations

import pytest
import torch

from robustlab.backdoors import TRIGGERS, poison, trigger_class, triggered
from robustlab.base.errors import UserError
from robustlab.data import Loaded, load_data


def signs(limit: int = 120, split: str = "train") -> Loaded:
    return load_data("road-signs", split, limit).loaded()


@pytest.mark.parametrize("name", TRIGGERS)
@pytest.mark.parametrize("role", ["poison", "cover", "test"])
def test_changes_each_image_stays_on_the_grid_and_does_not_depend_on_the_batch(name: str, role: str) -> None:
    data, trigger = signs(24), trigger_class(name)()
    before = data.images.clone()
    images = trigger.on(data, 3, role)
    assert images.shape == before.shape and images.dtype == torch.float32
    assert torch.equal(images, (images * 255).round() / 255)
    assert 0 <= float(images.min()) and float(images.max()) <= 1
    assert bool((images != before).flatten(1).any(1).all())
    assert torch.equal(data.images, before)
    order = torch.tensor([5, 2, 17])
    assert torch.equal(trigger.on(data.take(order), 3, role), images[order])


@pytest.mark.parametrize("name", TRIGGERS)
def test_poison_knows_what_it_did(name: str) -> None:
    data, trigger = signs(), trigger_class(name)()
    done = poison(
        data, trigger, 0.5 if trigger.clean_label else 0.04, "stop", 1, of="target" if trigger.clean_label else "data"
    )
    changed, covers = done.changed, done.covers
    different = (done.images != data.images).flatten(1).any(1)
    assert torch.equal(different, changed | covers) and not bool((changed & covers).any())
    assert int(covers.sum()) == round(trigger.covers * int(changed.sum()))
    assert bool((done.labels[changed] == 0).all())
    assert torch.equal(done.labels[~changed], data.labels[~changed])
    assert torch.equal(done.true_labels, data.labels)
    assert bool((data.labels[changed] == 0).all()) == trigger.clean_label
    assert done.hash != data.hash


@pytest.mark.parametrize("name", TRIGGERS)
def test_triggered_leaves_the_target_class_out(name: str) -> None:
    data = signs(40, "test")
    test = triggered(data, name, "stop")
    assert len(test) == int((data.labels != 0).sum())
    assert torch.equal(test.labels, data.labels[data.labels != 0]) and bool((test.wanted == 0).all())


def test_an_unknown_trigger_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'badnets'"):
        poison(signs(20), "badnet", 0.1, 0)
