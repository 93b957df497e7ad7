"""A loss of one's own, all in this file: the answers near an image are to be those to the image."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from robustlab.base.draws import uniform
from robustlab.data import Data
from robustlab.defenses import DEFENSES
from robustlab.defenses.base import Defense
from robustlab.defenses.batch import Batch
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.training import train
from tests.defenses.conftest import SMALL


@dataclass(frozen=True)
class ToyNoise(Defense):
    """As TRADES is made up: cross-entropy, and `beta` times how far the answers near the image are from those to it."""

    eps: float = 0.1
    beta: float = 1.0

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        return (batch.x + (2 * uniform(batch.key, batch.x.shape[1:]) - 1) * self.eps).clamp(0, 1)

    def loss(self, model: nn.Module, batch: Batch, near: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(batch.x)
        apart = (model(near).softmax(1) - logits.softmax(1)).square().sum(1).mean()
        return logits, batch.cross_entropy(logits) + self.beta * apart


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEFENSES, "toy-noise", f"{__name__}:ToyNoise")


def test_it_is_trained_chosen_by_robustness_and_attacked(tmp_path: Path, data: tuple[Data, Data]) -> None:
    recipe = replace(SMALL, defense={"method": "toy-noise", "beta": 2.0})
    done = train("cnn", data, recipe, output=tmp_path / "out", device="cpu")
    best = done.history[done.best_epoch - 1]
    assert best["val_robust_accuracy"] == max(entry["val_robust_accuracy"] for entry in done.history)
    # the budget of the data, as nobody said another
    assert done.card.recipe["defense"] == {"eps": 0.05, "method": "toy-noise", "beta": 2.0}
    assert done.card.measured[1].eps == "0.05" and done.card.wrap == {}
    assert not (tmp_path / "out" / "prepared.json").exists()
    plain = train("cnn", data, SMALL, output=tmp_path / "plain", device="cpu")
    assert done.card.hash != plain.card.hash

    quiet = Listener(say=lambda text: None)
    evaluate(str(tmp_path / "out"), data[1], "fgsm", output=tmp_path / "run", listener=quiet, device="cpu", audit=0)
    found = json.loads((tmp_path / "run" / "run.json").read_text())["aggregates"]["models"][0]
    assert found["clean_accuracy"]["value"] == best["val_accuracy"]
