"""A filter, all in this file: it takes images out before training, and tells which and why."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.defenses import DEFENSES
from robustlab.defenses.base import Defense, Prepared
from robustlab.evaluation.evaluate import Listener, evaluate
from robustlab.training import recipe_for, train
from robustlab.training.session import Told
from tests.defenses.conftest import SMALL

RECIPE = replace(SMALL, defense={"method": "toy-filter", "threshold": 0.7})


@dataclass(frozen=True)
class ToyFilter(Defense):
    """Too bright images go. threshold: the largest mean that stays."""

    threshold: float = 0.5

    def prepare(self, data: Data) -> Prepared:
        return Prepared.without(data, data.loaded().images.mean((1, 2, 3)), self.threshold, "mean brightness")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEFENSES, "toy-filter", f"{__name__}:ToyFilter")


@pytest.fixture
def poisoned(data: tuple[Data, Data]) -> tuple[Data, Data]:
    """Every tenth training image is white and has the other label."""
    images, labels = data[0].images[:], data[0].labels.clone()
    images[::10], labels[::10] = 1.0, 1 - labels[::10]
    return replace(data[0], images=images, labels=labels), data[1]


def test_it_takes_images_out_and_says_which(tmp_path: Path, poisoned: tuple[Data, Data]) -> None:
    batches: list[int] = []
    told = Told(batch=lambda moment: batches.append(moment.batches))
    done = train("cnn", poisoned, replace(RECIPE, batch_size=30), output=tmp_path / "out", device="cpu", told=told)
    assert set(batches) == {3}  # of 86 images; 96 have 4
    record = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert record["removed"] == list(range(0, 96, 10)) and record["threshold"] == 0.7
    assert record["ids"] == list(range(96)) and record["why"] == "mean brightness"
    assert [k for k, score in enumerate(record["scores"]) if score > 0.7] == record["removed"]
    assert done.warnings[0] == "The defense took out 10 of 96 training images (mean brightness above 0.7)."
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "prepared.json" in run["files"] and run["config"]["n"] == [96, 30] and run["warnings"] == done.warnings
    # it is not for robustness: the epoch is chosen by clean accuracy, as without a defense
    best = done.history[done.best_epoch - 1]
    assert best["val_accuracy"] == max(entry["val_accuracy"] for entry in done.history)
    assert done.card.wrap == {} and done.card.measured[1].eps == "0.05"
    quiet = Listener(say=lambda text: None)
    run = evaluate(str(tmp_path / "out"), poisoned[1], "fgsm", output=tmp_path / "run", listener=quiet, audit=0)
    assert run.info["aggregates"]["models"][0]["clean_accuracy"]["value"] == best["val_accuracy"]


def test_resumed_it_gives_the_same(tmp_path: Path, poisoned: tuple[Data, Data]) -> None:
    class Stop(Exception):
        pass

    def stop(entry: dict[str, Any]) -> None:
        raise Stop

    whole = train("cnn", poisoned, RECIPE, output=tmp_path / "whole", device="cpu")
    with pytest.raises(Stop):
        train("cnn", poisoned, RECIPE, output=tmp_path / "parts", device="cpu", on_epoch=stop)
    parts = train("cnn", poisoned, RECIPE, output=tmp_path / "parts", device="cpu", resume=True)
    assert parts.card.hash == whole.card.hash and parts.warnings == whole.warnings
    assert (tmp_path / "parts" / "prepared.json").read_bytes() == (tmp_path / "whole" / "prepared.json").read_bytes()
    assert train("cnn", poisoned, RECIPE, output=tmp_path / "parts", device="cpu", resume=True) == parts


def test_one_that_takes_all_out_is_refused(tmp_path: Path, data: tuple[Data, Data]) -> None:
    nothing = replace(SMALL, defense={"method": "toy-filter", "threshold": 0.0})
    with pytest.raises(UserError, match="at least 2 images, got 0. The defense took out 96 of 96 .*above 0"):
        train("cnn", data, nothing, output=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_it_has_no_budget(tmp_path: Path) -> None:
    card = tmp_path / "filter.toml"
    card.write_text('name = "f"\nsummary = "f"\nsource = "f"\n[recipe.defense]\nmethod = "toy-filter"\n')
    assert recipe_for("cnn", recipe=str(card), overrides={"threshold": 0.4}).recipe.defense["threshold"] == 0.4
    with pytest.raises(UserError, match=r"eps is the budget of a defense, and the defense toy-filter has threshold\."):
        recipe_for("cnn", recipe=str(card), overrides={"eps": "4/255"})
