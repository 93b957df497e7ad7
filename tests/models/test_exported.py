"""An exported program says what the module said that it was made of, in logits and in gradients."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from robustlab.base.errors import UserError
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.models import load_model


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(144, 5))
        return nn.Sequential(*layers).eval()


def export(model: nn.Module, path: Path, batch: int = 4, **how: Any) -> str:
    torch.export.save(torch.export.export(model, (torch.rand(batch, 3, 8, 8),), **how), path)
    return str(path)


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_(True)
    return torch.autograd.grad(model(leaf).square().sum(), leaf)[0]


@pytest.mark.parametrize(
    ("batch", "dynamic"),
    [(1, None), (4, None), (4, Dim("n")), (4, Dim("n", min=3, max=6))],
    ids=["one at a time", "four at a time", "any number", "three to six"],
)
def test_any_number_of_images_goes_through(tmp_path: Path, batch: int, dynamic: Any) -> None:
    original = net()
    shapes = None if dynamic is None else ({0: dynamic},)
    model = load_model(export(original, tmp_path / "m.pt2", batch, dynamic_shapes=shapes))
    assert model.shape == (3, 8, 8) and not model.training
    for n in (1, 2, 4, 7, 13):
        x = torch.rand(n, 3, 8, 8)
        assert torch.allclose(model(x), original(x), atol=1e-6)
        assert torch.allclose(gradient(model, x), gradient(original, x), atol=1e-6)
    model.train()
    assert torch.allclose(model(x), original(x), atol=1e-6)


def test_free_sides_are_no_shape(tmp_path: Path) -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    free = ({0: Dim("n"), 2: Dim("h", min=4, max=64), 3: Dim("w", min=4, max=64)},)
    model = load_model(export(pooled, tmp_path / "m.pt2", dynamic_shapes=free))
    assert model.shape is None and model(torch.rand(2, 3, 9, 17)).shape == (2, 4)


def test_it_is_attacked_like_the_original(tmp_path: Path) -> None:
    original, images = net(), torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = original(images).argmax(1)
    exported = load_model(export(original, tmp_path / "m.pt2"))
    quiet = Listener(say=lambda text: None)
    models = {"original": original, "exported": exported}
    run = evaluate(models, (images, labels), "pgd", output=tmp_path / "run", search_copy=False, listener=quiet)
    first, second = run.info["aggregates"]["models"]
    for one in (first, second):
        del one["attacks"][0]["seconds"]
    assert first["attacks"] == second["attacks"] and 0 < first["robust_accuracy"]["value"] < 1


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).flatten(1)


def test_programs_that_are_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exported in training mode"):
        load_model(export(net().train(), tmp_path / "train.pt2"))
    two = torch.export.export(Two(), (torch.rand(2, 3, 8, 8),) * 2)
    torch.export.save(two, tmp_path / "two.pt2")
    with pytest.raises(UserError, match=r"takes 2 inputs \(x, y\)"):
        load_model(str(tmp_path / "two.pt2"))
    flat = torch.export.export(nn.Linear(3, 2), (torch.rand(2, 3),))
    torch.export.save(flat, tmp_path / "flat.pt2")
    with pytest.raises(UserError, match="inputs of 2 dimensions"):
        load_model(str(tmp_path / "flat.pt2"))


def test_files_that_are_no_program(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = export(net(), tmp_path / "m.pt2")
    with pytest.raises(UserError, match="holds its own weights"):
        load_model(name, weights="w.pth")
    whole = Path(name).read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "text": b"weights", "spoilt": whole.replace(b"graph", b"grXph")}
    torch.save(net().state_dict(), tmp_path / "state.pt2")
    for key, content in contents.items():
        (tmp_path / f"{key}.pt2").write_bytes(content)
    capfd.readouterr()
    for key in (*contents, "state"):
        with pytest.raises(
            UserError, match=f"{key}.pt2 cannot be read as an exported program .* Export the model again"
        ):
            load_model(str(tmp_path / f"{key}.pt2"))
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UserError, match="no exported program"):
        load_model(str(tmp_path / "none.pt2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(net(), torch.rand(1, 3, 8, 8)), str(tmp_path / "script.pt2"))
    with pytest.raises(UserError, match="TorchScript module, which is not supported"):
        load_model(str(tmp_path / "script.pt2"))
