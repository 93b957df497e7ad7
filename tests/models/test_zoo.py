from __future__ import annotations

import pytest
import torch

from robustlab.base.errors import UserError
from robustlab.base.words import percent
from robustlab.data import load_data
from robustlab.models import load_model
from robustlab.models.card import Measured
from robustlab.models.classifier import check
from robustlab.models.zoo import describe, zoo_card, zoo_names, zoo_path, zoo_table

NAMES = zoo_names()


def shares(name: str) -> dict[str, Measured]:
    return {m.metric: m for m in zoo_card(name).measured}


def clean(name: str, n: int) -> float:
    data = load_data("road-signs", "test", n)
    with torch.no_grad():
        return float((load_model(name)(data.images).argmax(1) == data.labels).float().mean())


def robust(name: str, n: int) -> float:
    from robustlab.attacks import PGD

    data, model, card = load_data("road-signs", "test", n), load_model(name), shares(name)["robust accuracy"]
    adversarial = PGD(eps=card.eps, steps=20)(model, data.images, data.labels, ids=data.ids, batch_size=n)
    with torch.no_grad():
        return float((model(adversarial).argmax(1) == data.labels).float().mean())


def test_the_four_are_there() -> None:
    assert NAMES == ["road-signs/cnn", "road-signs/cnn-robust", "road-signs/resnet20", "road-signs/resnet20-robust"]


@pytest.mark.parametrize("name", NAMES)
def test_card_and_checkpoint_agree(name: str) -> None:
    card, model, data = zoo_card(name), load_model(name), load_data("road-signs", "test", 4)
    assert card.hash == model.hash()
    assert card.name == name and tuple(card.classes) == data.classes
    assert (zoo_path(name).parent / card.weights).stat().st_size < 3_000_000
    assert check(model, data.images, data.labels).warnings == []
    assert all(m.low <= m.value <= m.high for m in card.measured)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_are_those_it_was_trained_on(name: str) -> None:
    assert zoo_card(name).data_hash == load_data("road-signs", "train", 1).hash


@pytest.mark.parametrize("name", NAMES)
def test_clean_accuracy_of_a_subset(name: str) -> None:
    # 200 of the card's 2,000 images: within 4 standard errors of its value
    p = shares(name)["clean accuracy"].value
    assert abs(clean(name, 200) - p) <= 4 * (p * (1 - p) / 200) ** 0.5


@pytest.mark.parametrize("name", ["road-signs/cnn", "road-signs/cnn-robust"])
def test_robust_accuracy_of_a_subset(name: str) -> None:
    p = shares(name)["robust accuracy"].value
    assert abs(robust(name, 60) - p) <= 4 * (p * (1 - p) / 60) ** 0.5 + 1 / 60


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_cards_numbers_in_full(name: str) -> None:
    # the same images and the same seed: only a processor's rounding may differ
    for metric, value in (("clean accuracy", clean(name, 2000)), ("robust accuracy", robust(name, 500))):
        m = shares(name)[metric]
        assert m.low <= value <= m.high and abs(value - m.value) <= 3 / m.n


@pytest.mark.parametrize("plain", ["road-signs/cnn", "road-signs/resnet20"])
def test_adversarial_training_helps(plain: str) -> None:
    a, b = shares(plain)["robust accuracy"], shares(f"{plain}-robust")["robust accuracy"]
    assert a.high < b.low and a.eps == b.eps == "8/255"
    assert shares(plain)["clean accuracy"].value > 0.95


def test_table_and_text() -> None:
    rows = {row["name"]: row for row in zoo_table()}
    assert list(rows) == NAMES and rows["road-signs/cnn-robust"]["defense"] == "n-fgsm"
    text = describe()
    share = rows["road-signs/cnn"]["clean"]
    assert all(name in text for name in NAMES) and percent(share) in text and "n = 2,000" in text
    one = describe("road-signs/resnet20")
    assert zoo_card("road-signs/resnet20").hash in one and "PGD-20" in one
    with pytest.raises(UserError, match="Did you mean 'road-signs/cnn-robust'"):
        describe("road-signs/cnn-robsut")
