from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustlab.base.errors import UserError
from robustlab.data import DATA, Data, load_data
from robustlab.threat.model import ThreatModel


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("road-sings", "unknown data 'road-sings'; known are road-signs, mnist,.*Did you mean 'road-signs'"),
        ("signs.npz", "Did you mean 'npz:signs.npz'"),
        ("npz", "npz:PATH"),
        ("mnist:there", "unknown data 'mnist:there'"),
    ],
)
def test_unknown_data(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_data(name)


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_is_positive(limit: int) -> None:
    with pytest.raises(UserError, match=f"at least 1 .*got {limit}"):
        load_data("road-signs", limit=limit)


def test_unknown_split() -> None:
    with pytest.raises(UserError, match="'tset'. Did you mean 'test'"):
        load_data("road-signs", "tset")


def test_size_belongs_to_sets_that_can_change_it() -> None:
    with pytest.raises(UserError, match="'mnist' comes in the size of its files"):
        load_data("mnist", size=32)
    with pytest.raises(UserError, match="at least 1; got 0"):
        load_data("road-signs", size=0)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_road_signs(split: str) -> None:
    data = load_data("road-signs", split, limit=6, size=24)
    assert data.images.shape == (6, 3, 24, 24) and data.images.dtype == torch.float32
    assert 0 <= data.images.min() and data.images.max() <= 1
    assert data.ids.tolist() == [0, 1, 2, 3, 4, 5] and len(data.classes) == 16
    assert all(len(values) == 6 for values in data.factors.values()) and "distance" in data.factors
    assert data.threat == ThreatModel("linf", 8 / 255)
    assert load_data("road-signs", split, limit=2, size=24).hash == data.hash
    assert load_data("road-signs", split, limit=2, size=24, seed=1).hash != data.hash


def test_take_keeps_everything_together() -> None:
    count = torch.arange(5)
    data = Data(
        name="made",
        split="test",
        images=count[:, None, None, None] / 5,
        labels=count % 2,
        ids=count + 100,
        classes=("even", "odd"),
        hash="0" * 32,
        threat=ThreatModel(),
        factors={"distance": count / 10},
    )
    some = data.take(torch.tensor([4, 1]))
    assert len(some) == 2 and some.ids.tolist() == [104, 101] and some.labels.tolist() == [0, 1]
    assert some.images.flatten().tolist() == pytest.approx([0.8, 0.2])
    assert some.factors["distance"].tolist() == pytest.approx([0.4, 0.1])
    assert data.take(data.labels == 1).ids.tolist() == [101, 103]
    assert (some.name, some.classes, some.hash) == (data.name, data.classes, data.hash)


def test_the_registry_costs_no_torch() -> None:
    code = "import sys, robustlab.data; print('torch' in sys.modules, len(robustlab.data.DATA))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", str(len(DATA))]


def test_registry_points_to_functions() -> None:
    root = Path(__file__).resolve().parents[2]
    for target in DATA.values():
        module, _, function = target.partition(":")
        path = root.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert f"def {function}(" in source.read_text() or f"import {function}" in source.read_text(), target
