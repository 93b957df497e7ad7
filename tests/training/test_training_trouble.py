"""A training that goes wrong says so early, says what to try, and loses nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab.base.errors import RunError
from robustlab.base.files import resumable
from robustlab.data import Data
from robustlab.models import load_model
from robustlab.threat.model import ThreatModel
from robustlab.training import Recipe, train
from robustlab.training.checks import trouble
from robustlab.training.session import Moment, Told

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, shift=0, check_size=2)


def noise(n: int, split: str) -> Data:
    images = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 2
    return Data("noise", split, images, labels, torch.arange(n), ("a", "b"), split, ThreatModel())


DATA = (noise(160, "train"), noise(20, "val"))


def entry(epoch: int, accuracy: float = 0.9, loss: float = 0.4, **more: Any) -> dict[str, Any]:
    values = {
        f"{split}_{what}": value
        for split in ("train", "val")
        for what, value in (("accuracy", accuracy), ("loss", loss))
    }
    return {"epoch": epoch, "train_n": 20, "val_n": 20, **values, **more}


def test_a_loss_that_is_no_number_ends_within_some_batches(tmp_path: Path) -> None:
    seen: list[Moment] = []
    with pytest.raises(
        RunError, match=r"epoch 1, batch \d of 10, at lr = .*Lower lr \(--set lr=1e\+29\), raise warmup .* or clip"
    ):
        train(
            "cnn",
            DATA,
            replace(RECIPE, lr=1e30, warmup=0.0),
            output=tmp_path,
            device="cpu",
            told=Told(batch=seen.append),
        )
    assert len(seen) < 5


def test_the_best_epoch_before_is_kept(tmp_path: Path) -> None:
    class Blow:
        """After an epoch, images that no network can answer."""

        def __call__(self, done: dict[str, Any]) -> None:
            data[0].images.fill_(float("nan"))

    data = (replace(DATA[0], images=DATA[0].images.clone()), DATA[1])
    with pytest.raises(
        RunError, match="The best epoch before, 1, is kept: .*model.toml.*another training.*robustlab train"
    ):
        train("cnn", data, RECIPE, output=tmp_path / "out", device="cpu", on_epoch=Blow())
    assert load_model(str(tmp_path / "out" / "model.toml")).classes == ("a", "b")
    assert (tmp_path / "out" / "last.pt").is_file()


def test_batches_are_told_with_their_speed(tmp_path: Path) -> None:
    seen: list[Moment] = []
    warned: list[str] = []
    told = Told(batch=seen.append, warning=warned.append)
    done = train("cnn", DATA, replace(RECIPE, clip=0.1), output=tmp_path, device="cpu", told=told)
    assert [(m.epoch, m.batch, m.batches) for m in seen] == [(e, b, 10) for e in (1, 2) for b in range(1, 11)]
    assert all(m.rate > 0 for m in seen) and warned == done.warnings
    assert done.card.recipe["clip"] == 0.1  # and a recipe without it is stored as before it was there
    assert "clip" not in RECIPE.record() and RECIPE.record()["lr"] == 0.05


def warnings(*history: dict[str, Any], **changes: Any) -> list[str]:
    return trouble(history, replace(RECIPE, **{"epochs": 12, **changes}), *DATA)


def test_what_is_worth_a_warning() -> None:
    assert warnings(entry(1)) == warnings(entry(1), entry(4)) == []
    (exploded,) = warnings(entry(1), entry(2, loss=300.0))
    assert "The loss exploded: 300 on the validation images after epoch 2" in exploded and "lr=0.005" in exploded
    assert warnings(entry(1, warning=exploded), entry(2, loss=400.0)) == []  # said once
    assert warnings(entry(1, 0.5)) == []  # the rate still rises
    (guesses,) = warnings(entry(3, 0.55), entry(4, 0.5))
    assert "still guesses after epoch 4: 50.0% of 20" in guesses and "12 epochs have 120 steps only" in guesses
    assert "steps only" not in warnings(entry(4, 0.5), epochs=12, batch_size=2)[0]
    assert warnings(entry(3, 0.9), entry(4, 0.5)) == []  # it was better once
    assert len(warnings(entry(1, 0.5), epochs=1)) == 1
    assert len(warnings(entry(2, loss=float("inf")))) == 1


@pytest.mark.parametrize(
    ("images", "batch", "epochs"), [(2, 16, 60), (150, 18, 34), (1000, 125, 38), (10_000, 128, 12)]
)
def test_few_images_get_more_steps(images: int, batch: int, epochs: int) -> None:
    few = Recipe().for_few(images, given=[])
    assert (few.batch_size, few.epochs) == (batch, epochs)
    assert Recipe().for_few(images, given=["epochs", "batch_size", "lr"]) == Recipe()


def test_resume_where_there_is_nothing_says_that_a_new_one_starts(tmp_path: Path) -> None:
    said: list[str] = []
    told = Told(warning=said.append)
    first = train("cnn", DATA, RECIPE, output=tmp_path / "out", device="cpu", told=told, resume=True)
    new = f"There is no training in {tmp_path / 'out'} to go on with: a new one starts."
    assert new in said and new not in first.warnings
    train("cnn", DATA, RECIPE, output=tmp_path / "out", device="cpu", told=told, resume=True)
    assert said.count(new) == 1


@pytest.mark.parametrize("where", ["before the first epoch", "after an epoch", "instead of another"])
def test_an_interrupt_says_that_something_is_kept_only_where_it_is(tmp_path: Path, where: str) -> None:
    def stop(moment: Moment) -> None:
        if moment.epoch == (2 if where == "after an epoch" else 1):
            raise KeyboardInterrupt

    other, folder = where == "instead of another", tmp_path / "out"
    if other:
        train("cnn", DATA, replace(RECIPE, epochs=1), output=folder, device="cpu")
    with pytest.raises(KeyboardInterrupt) as stopped, resumable(folder):
        train("cnn", DATA, RECIPE, output=folder, device="cpu", told=Told(batch=stop), overwrite=other)
    assert str(stopped.value) == (f"output {folder} resume=True" if where == "after an epoch" else "")
    assert folder.exists() == (where != "before the first epoch")
