"""Which images are poisoned, with what label, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from robustlab.backdoors import poison, triggered
from robustlab.backdoors.triggers import trigger_class
from robustlab.base.errors import UserError
from robustlab.data import Loaded
from robustlab.threat.model import ThreatModel


def data(n: int = 200, classes: int = 4, channels: int = 1, side: int = 8) -> Loaded:
    """Random images, n / classes of each class."""
    images = torch.randint(0, 256, (n, channels, side, side), generator=torch.Generator().manual_seed(0)) / 255
    names = tuple("abcdefgh"[:classes])
    ids = torch.arange(n)
    return Loaded("random", "train", images, ids % classes, ids + 1000, names, "0" * 16, ThreatModel())


def test_the_order_of_the_data_does_not_matter() -> None:
    plain, order = data(), torch.randperm(200, generator=torch.Generator().manual_seed(1))
    one = poison(plain, "blended", 0.1, "b", 5)
    other = poison(plain.take(order), "blended", 0.1, "b", 5)
    assert torch.equal(one.images[order], other.images) and torch.equal(one.labels[order], other.labels)
    assert poison(plain, "blended", 0.1, "b", 6).changed_ids != one.changed_ids


def test_rates_in_both_bases() -> None:
    done = poison(data(), "badnets", 0.1, "b")
    assert len(done.changed_ids) == 20 and min(done.changed_ids) >= 1000
    assert done.rates == {"data": 0.1, "target": 20 / 70}
    done = poison(data(), "badnets", 0.5, "b", of="target")
    assert len(done.changed_ids) == 50 and done.rates["target"] == 0.5
    done = poison(data(), "sig", 0.5, "b", of="target")
    assert len(done.changed_ids) == 25 and done.rates["target"] == 0.5


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("from_target", [False, True])
@pytest.mark.parametrize("relation", ["all-to-one", "one-to-one", "all-to-all", "clean label"])
def test_the_rate_is_met_in_both_bases(relation: str, from_target: bool, rate: float) -> None:
    how: dict[str, Any] = {"relation": relation, "from_target": from_target, "target": "b"}
    if relation == "one-to-one":
        how["source"] = "c"
    if relation == "all-to-all":
        how["target"] = None
    if relation == "clean label":
        how["relation"] = "all-to-one"
    trigger = "sig" if relation == "clean label" else "badnets"
    few = rate if relation == "all-to-one" else rate / 4
    done = poison(data(), trigger, few, **how)
    assert done.rates["data"] == pytest.approx(few, abs=0.5 / 200 + 1e-9)
    if relation != "all-to-all":
        done = poison(data(), trigger, rate, of="target", **how)
        count, labelled = len(done.changed_ids), int((done.labels == 1).sum())
        assert abs(count / labelled - rate) <= 0.5 / 50 + 1e-9


def test_a_higher_rate_keeps_the_poisons_of_a_lower_one() -> None:
    few, more = (set(poison(data(), "badnets", rate, "b").changed_ids) for rate in (0.05, 0.2))
    assert few < more


def test_relations() -> None:
    one = poison(data(), "badnets", 0.1, "b", relation="one-to-one", source="c")
    assert bool((one.true_labels[one.changed] == 2).all()) and bool((one.labels[one.changed] == 1).all())
    each = poison(data(), "badnets", 0.5, relation="all-to-all")
    assert torch.equal(each.labels[each.changed], (each.true_labels[each.changed] + 1) % 4)
    assert each.rates["target"] is None
    asked = poison(data(), "badnets", 0.5, "b", from_target=True)
    assert bool((asked.true_labels[asked.changed] == 1).any())
    assert not bool((poison(data(), "badnets", 0.5, "b").true_labels[one.changed] == 1).any())


def test_triggered_by_relation() -> None:
    assert len(triggered(data(), "badnets", "b")) == 150
    assert bool((triggered(data(), "badnets", "b", relation="one-to-one", source="c").labels == 2).all())
    everything = triggered(data(), "badnets", relation="all-to-all")
    assert len(everything) == 200 and torch.equal(everything.wanted, (everything.labels + 1) % 4)


def test_a_part_still_knows() -> None:
    done = poison(data(), "badnets", 0.1, "b")
    part = done.take(done.changed)
    assert len(part) == 20 and bool(part.changed.all()) and part.changed_ids == done.changed_ids


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"rate": 0.0}, "above 0 and below 1"),
        ({"rate": 0.001}, "higher rate"),
        ({"rate": 0.9}, "lower rate"),
        ({"target": "z"}, "no class 'z'"),
        ({"target": None}, "needs a target"),
        ({"source": "a"}, "has no source"),
        ({"relation": "one-to-one"}, "needs a source"),
        ({"relation": "one-to-one", "source": "b"}, "two classes"),
        ({"relation": "all-to-al"}, "Did you mean 'all-to-all'"),
        ({"relation": "all-to-all"}, "has no target"),
        ({"relation": "all-to-all", "target": None, "of": "target"}, "of='data'"),
        ({"trigger": "sig", "rate": 0.5}, "50 images to draw them from"),
        ({"trigger": "wanet", "rate": 0.6}, "fewer covers"),
        ({"trigger": trigger_class("badnets")(size=9)}, "needs 10x10 pixels"),
        ({"trigger": trigger_class("badnets")("pixel", at=(8, 0))}, "at its place needs 9x1 pixels"),
        ({"trigger": trigger_class("badnets")("x", colour=(1.0, 0.0, 0.0))}, "3 colour channels and the images have 1"),
    ],
)
def test_bad_input(how: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"trigger": "badnets", "rate": 0.1, "target": "b"} | how
    with pytest.raises(UserError, match=message):
        poison(data(), **given)


def test_a_class_without_images() -> None:
    plain = data()
    with pytest.raises(UserError, match="no image of the target class 'b'"):
        poison(plain.take(plain.labels != 1), "badnets", 0.1, "b")
    with pytest.raises(UserError, match="No image is left"):
        triggered(replace(plain, labels=torch.ones_like(plain.labels)), "badnets", "b")
