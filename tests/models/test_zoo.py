from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from robustlab.base.errors import UserError, flags_spelled
from robustlab.base.words import percent
from robustlab.data import Data, load_data
from robustlab.models import load_model
from robustlab.models.card import Measured
from robustlab.models.classifier import check
from robustlab.models.zoo import describe, zoo_card, zoo_names, zoo_path, zoo_table
from robustlab.threat.model import parse_eps
from robustlab.training.recipe import recipe_for

NAMES = zoo_names()
SIGNS = [name for name in NAMES if zoo_card(name).data == "road-signs"]
PLAIN = ["road-signs/cnn", "road-signs/resnet20"]
DEFENDED = [name for name in NAMES if zoo_card(name).recipe.get("defense")]


def shares(name: str, attack: str = "") -> Measured:
    """The clean accuracy in a card, or that under an attack."""
    return next(m for m in zoo_card(name).measured if m.attack == attack)


@cache
def data_of(name: str, split: str, n: int, root: Path | None) -> Data:
    kind, _, file = zoo_card(name).data.partition(":")
    return load_data(f"{kind}:{root}/{file}" if file else kind, split, n, data_root=root)


@pytest.fixture
def data(name: str, request: pytest.FixtureRequest) -> Data:
    """The first 200 test images for a network; skips where its data are files that are not there."""
    return data_of(name, "test", 200, None if name in SIGNS else request.getfixturevalue("data_root"))


def robust(name: str, data: Data) -> float:
    from robustlab.attacks import PGD

    model, eps = load_model(name), parse_eps(shares(name, zoo_card(name).measured[-1].attack).eps)
    adversarial = PGD(eps=eps, steps=20)(model, data.images, data.labels, ids=data.ids, batch_size=len(data))
    with torch.no_grad():
        return float((model(adversarial).argmax(1) == data.labels).float().mean())


def test_the_networks_that_other_tests_and_the_documents_name() -> None:
    assert {f"road-signs/{net}{kind}" for net in ("cnn", "resnet20") for kind in ("", "-robust")} <= set(NAMES)


def test_the_checkpoints_are_small() -> None:
    sizes = [(zoo_path(name).parent / zoo_card(name).weights).stat().st_size for name in NAMES]
    assert max(sizes) <= 3_000_000 and sum(sizes) <= 15_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_complete(name: str) -> None:
    card = zoo_card(name)
    assert card.name == name and card.summary and card.data and card.data_hash and card.recipe
    assert card.seconds > 0 and card.hardware and card.command.startswith(f"robustlab train {name}")
    assert card.recipe.get("init", name) in NAMES  # no path of a machine
    assert recipe_for(name).recipe.epochs == card.recipe["epochs"]
    for attack in ("", "linf-standard", "linf-strong"):
        m = shares(name, attack)
        assert m.low <= m.value <= m.high and m.split == "test" and m.n >= (624 if "x-rays" in name else 1000)
    assert shares(name, "linf-strong").value <= shares(name, "linf-standard").value + 3 / 1000


@pytest.mark.parametrize("name", NAMES)
def test_card_and_checkpoint_agree(name: str) -> None:
    card, model = zoo_card(name), load_model(name)
    assert card.hash == model.hash()
    assert card.parameters == sum(p.numel() for p in model.parameters())
    assert card.shape is not None
    images = torch.rand(4, *card.shape, generator=torch.Generator().manual_seed(0))
    assert check(model, images, torch.zeros(4, dtype=torch.long)).warnings == []


@pytest.mark.parametrize("name", NAMES)
def test_the_data_are_those_it_was_trained_on(name: str, data: Data, request: pytest.FixtureRequest) -> None:
    root = None if name in SIGNS else request.getfixturevalue("data_root")
    assert zoo_card(name).data_hash == data_of(name, "train", 1, root).hash
    assert zoo_card(name).names == list(data.classes)


@pytest.mark.parametrize("name", NAMES)
def test_clean_accuracy_of_a_subset(name: str, data: Data) -> None:
    # 200 of the card's images: within 4 standard errors of its value
    p, n = shares(name).value, len(data)
    with torch.no_grad():
        found = float((load_model(name)(data.images).argmax(1) == data.labels).float().mean())
    assert abs(found - p) <= 4 * (p * (1 - p) / n) ** 0.5 + 1 / n


@pytest.mark.parametrize("name", ["road-signs/cnn", "road-signs/cnn-robust"])
def test_robust_accuracy_of_a_subset(name: str, data: Data) -> None:
    # PGD-20 on 60 images: no lower than the suites, but for chance, and at most some points higher
    p, n = shares(name, "linf-strong").value, 60
    error = 4 * (p * (1 - p) / n) ** 0.5 + 1 / n
    assert p - error <= robust(name, data.take(torch.arange(n))) <= p + error + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENDED)
def test_robust_accuracy_of_more(name: str, data: Data) -> None:
    p, n = shares(name, "linf-strong").value, len(data)
    error = 4 * (p * (1 - p) / n) ** 0.5 + 1 / n
    assert p - error <= robust(name, data) <= p + error + 0.05


@pytest.mark.parametrize("name", DEFENDED)
def test_adversarial_training_helps(name: str) -> None:
    plain = str(zoo_card(name).recipe.get("init", name.rpartition("-")[0]))
    plain = plain if plain in NAMES else "mnist/cnn"
    a, b = shares(plain, "linf-strong"), shares(name, "linf-strong")
    assert a.high < b.low and a.eps == b.eps


def test_the_undefended_are_accurate() -> None:
    assert all(shares(name).value > 0.95 for name in PLAIN)


def test_table_and_text() -> None:
    rows = {row["name"]: row for row in zoo_table()}
    assert list(rows) == NAMES and rows["road-signs/cnn-robust"]["defense"] == "n-fgsm"
    strong = shares("road-signs/cnn", "linf-strong")
    assert rows["road-signs/cnn"]["robust"]["value"] == strong.value and rows["road-signs/cnn"]["parameters"] == 172_528
    text = describe()
    share = rows["road-signs/cnn"]["clean"]
    assert all(name in text for name in NAMES) and percent(share) in text and "n = 2,000" in text
    assert "linf-strong 8/255" in text and max(map(len, text.splitlines())) < 170
    one = describe("road-signs/cnn")
    assert zoo_card("road-signs/cnn").hash in one and "linf-standard" in one and "172,528" in one
    with pytest.raises(UserError, match="Did you mean 'road-signs/cnn-robust'"):
        describe("road-signs/cnn-robsut")


def test_a_file_that_is_not_there_says_what_to_do() -> None:
    with flags_spelled(), pytest.raises(UserError, match=r"say so: --data npz:FOLDER/gone32\.npz"):
        load_data("npz:gone32.npz")
