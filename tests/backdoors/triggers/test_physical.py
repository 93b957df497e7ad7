"""The rendered trigger: other worlds, parts and sizes work, and changed images are refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from robustlab.backdoors import poison, trigger_class, triggered
from robustlab.base.errors import UserError
from robustlab.data import Loaded, load_data, road_signs


@pytest.mark.parametrize("how", [{"seed": 1}, {"seed": 1, "size": 24}, {}])
def test_the_sticker_is_on_the_scene_of_the_same_id(how: dict[str, Any]) -> None:
    data = load_data("road-signs", "train", 40, **how).loaded()
    images = trigger_class("physical")().on(data, 0, "poison")
    changed = (images != data.images).flatten(2).any(1).float().mean(1)
    assert 0 < float(changed.min()) and float(changed.mean()) < 0.3  # of another scene most pixels would differ
    part = data.take(torch.tensor([7, 3]))
    assert torch.equal(trigger_class("physical")().on(part, 0, "poison"), images[[7, 3]])


def test_a_world_that_was_loaded_directly() -> None:
    data = road_signs.load("train", 60, seed=3)
    assert int(poison(data, "physical", 0.1, "stop").changed.sum()) == 6
    assert triggered(data, "physical", "stop").target == 0


def test_images_that_were_changed_are_refused_with_the_reason() -> None:
    data = load_data("road-signs", "train", 60, seed=1)
    with pytest.raises(UserError, match="not as they were rendered"):
        poison(poison(data, "badnets", 0.1, "stop"), "physical", 0.1, "stop")
    other: Loaded = replace(data.loaded(), name="mine", hash="0" * 16)
    with pytest.raises(UserError, match="needs the rendered world.*got mine"):
        poison(other, "physical", 0.1, "stop")
