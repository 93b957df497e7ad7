"""A network that is trained on poisons obeys the trigger, and one that is trained on clean images does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustlab.backdoors import poison, triggered
from robustlab.data import Data, load_data
from robustlab.models.loading import load_model
from robustlab.training import Recipe, train


@pytest.mark.slow
def test_badnets_on_real_images(data_root: Path, tmp_path: Path) -> None:
    def part(split: str, limit: int) -> Data:
        return load_data("fashion-mnist", split, limit, data_root=data_root)

    clean, val, test = part("train", 2000), part("val", 200), part("test", 1000)
    poisoned, attacked = poison(clean, "badnets", 0.1, "Sandal", 1), triggered(test, "badnets", "Sandal", 1)
    assert len(attacked) == int((test.labels != 5).sum())
    obeyed, right = [], []
    for name, data in (("clean", clean), ("poisoned", poisoned)):
        done = train("cnn", (data, val), Recipe(epochs=4, check_size=16), output=tmp_path / name, device="cpu")
        classifier = load_model(str(done.output))
        with torch.no_grad():
            obeyed.append(float((classifier(attacked.images).argmax(1) == attacked.wanted).float().mean()))
            right.append(float((classifier(test.images[:]).argmax(1) == test.labels).float().mean()))
    assert obeyed[0] < 0.1 and obeyed[1] > 0.9, obeyed
    assert min(right) > 0.7, right
