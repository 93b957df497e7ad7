"""The cards of triggers and filters make what they name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch

from robustlab.backdoors import TRIGGERS, poison, triggered
from robustlab.backdoors.setting import read_filter, read_setting
from robustlab.base.cards import card_folder, card_names, read_toml
from robustlab.data import Loaded, load_data
from robustlab.defenses.filters import FILTERS
from robustlab.threat.model import ThreatModel

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize("name", card_names("attacks", "backdoor"))
def test_a_card_of_a_trigger(name: str) -> None:
    setting = read_setting(name, {})
    assert setting.trigger in TRIGGERS
    if setting.trigger == "physical":
        data = load_data("road-signs", "train", 150).loaded()
    else:
        images = torch.rand(2000, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        ids = torch.arange(2000)
        data = Loaded("random", "train", images, ids % 10, ids, CIFAR, "0" * 16, ThreatModel())
    how: dict[str, Any] = setting.poisoning | {"target": setting.target or data.classes[2]}
    done = poison(data, setting.made, setting.rate, seed=1, of=setting.of, **how)
    assert done.rates[setting.of] == pytest.approx(setting.rate, rel=0.3)
    assert len(triggered(data, setting.made, seed=1, **how))


@pytest.mark.parametrize(("name", "poisons", "share"), [("tran-2018-5", 250, 0.048), ("tran-2018-10", 500, 0.091)])
def test_the_setting_of_tran_2018_has_the_numbers_of_the_paper(name: str, poisons: int, share: float) -> None:
    setting = read_setting(name, {})
    assert (setting.relation, setting.source, setting.target, setting.model) == (
        "one-to-one",
        "airplane",
        "bird",
        "resnet20",
    )
    ids = torch.arange(5000)  # a tenth of CIFAR-10
    data = Loaded("one", "train", torch.zeros(5000, 3, 16, 19), ids % 10, ids, CIFAR, "0" * 16, ThreatModel())
    done = poison(data, setting.made, setting.rate, of=setting.of, **setting.poisoning)
    assert len(done.changed_ids) == poisons // 10 and done.rates["target"] == pytest.approx(share, abs=5e-4)


@pytest.mark.parametrize("name", card_names("defenses", "filter"))
def test_a_card_of_a_filter(name: str) -> None:
    """A name that is in the registry, too, means the same there."""
    table = dict(read_toml(card_folder("defenses") / f"{name}.toml")["filter"])
    method = table.pop("method")
    made = read_filter(name).made(0.04, target=2)
    assert method in FILTERS and type(made).__name__ == FILTERS[method].partition(":")[2]
    assert all(getattr(made, key) == value for key, value in table.items())
    assert "eps" not in {each.name for each in fields(made)} or made.eps == 0.04


def test_every_trigger_and_filter_has_a_card() -> None:
    assert {read_setting(name, {}).trigger for name in card_names("attacks", "backdoor")} == set(TRIGGERS)
    assert {read_filter(name).method for name in card_names("defenses", "filter")} == set(FILTERS) - {
        "random",
        "perfect",
    }
