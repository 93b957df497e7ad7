from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from robustlab.base.errors import UserError
from robustlab.models.weights import load_state, load_weights, packed_weights, read_weights


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_safetensors_round_trip(tmp_path: Path) -> None:
    model, other = net(0), net(1)
    (tmp_path / "w.safetensors").write_bytes(packed_weights(model))
    load_weights(other, tmp_path / "w.safetensors")
    assert same(model, other)


def test_half_rounds_floats_and_nothing_else(tmp_path: Path) -> None:
    model, other = net(0), net(1)
    model[1].num_batches_tracked += 70_000  # beyond float16
    (tmp_path / "w.safetensors").write_bytes(packed_weights(model, half=True))
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other[0].weight, model[0].weight.half().float()) and other[0].weight.dtype == torch.float32
    assert int(other[1].num_batches_tracked) == 70_000


WRAPPED = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"lr": 0.1}},
    "data-parallel": lambda s: {f"module.{key}": value for key, value in s.items()},
    "compiled and parallel": lambda s: {"model": {f"_orig_mod.module.{key}": value for key, value in s.items()}},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_pth_wrappers(tmp_path: Path, wrapper: str) -> None:
    model, other = net(0), net(1)
    torch.save(WRAPPED[wrapper](dict(model.state_dict())), tmp_path / "w.pth")
    load_weights(other, tmp_path / "w.pth")
    assert same(model, other)


def test_all_that_does_not_fit_is_named_at_once(tmp_path: Path) -> None:
    state = dict(net().state_dict())
    state["extra.weight"] = torch.zeros(1)
    del state["3.bias"]
    state["0.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError) as error:
        load_weights(net(), tmp_path / "w.pth")
    text = str(error.value)
    assert "1 missing: 3.bias" in text and "1 unexpected: extra.weight" in text
    assert "0.bias (file (7,), model (4,))" in text


def test_a_misfit_changes_nothing(tmp_path: Path) -> None:
    state = dict(net(1).state_dict())
    del state["3.bias"]
    torch.save(state, tmp_path / "w.pth")
    model = net(0)
    with pytest.raises(UserError):
        load_weights(model, tmp_path / "w.pth")
    assert same(model, net(0))


class Touch:
    """A pickle that creates a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Touch(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="could run code"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_not_read(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "whole.pth")
    with pytest.raises(UserError, match="state_dict"):
        read_weights(tmp_path / "whole.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_and_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no weights file"):
        read_weights(tmp_path / name)
    if name == "w.pth":
        torch.save(net().state_dict(), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(packed_weights(net()))
    whole = (tmp_path / name).read_bytes()
    for content in (b"\xff" * 100, b"", b"<html>", whole[: len(whole) // 2], whole[:-100]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} (is not a whole safetensors file|cannot be read as weights)"):
            read_weights(tmp_path / name)


def test_a_state_without_versions_fills_modules_that_ask_for_one() -> None:
    with torch.random.fork_rng():
        model, other = (torchvision.models.mnasnet0_5(num_classes=2) for _ in range(2))
    load_state(other, dict(model.state_dict()), "here")
    assert same(model, other)


def test_a_file_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="found the keys epoch"):
        read_weights(tmp_path / "w.pth")
    torch.save([torch.zeros(3)], tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds a list"):
        read_weights(tmp_path / "w.pth")
