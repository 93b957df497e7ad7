"""torchvision's classifiers, without a download: names, normalisation, sizes, files of every age."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from robustlab.base.errors import UserError
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.models import load_model
from robustlab.models.torchvision_models import modern, torchvision_names

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
SMALL = "shufflenet_v2_x0_5"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules are the same function, in eval mode; b is torchvision's and wants normalised images."""
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        return torch.equal(a(x), b.eval()((x - MEAN) / STD))


def test_random_weights_bring_everything_else_along() -> None:
    state = torch.random.get_rng_state()
    model, again = (load_model("torchvision:squeezenet1_1", weights="random") for _ in range(2))
    assert model.hash() == again.hash() and torch.equal(torch.random.get_rng_state(), state)
    assert model.shape == (3, 224, 224) and model.name == "torchvision:squeezenet1_1" and not model.training
    assert model.classes is not None and len(model.classes) == 1000 and model.classes[0] == "tench"
    assert torch.allclose(model.mean.flatten(), MEAN.flatten()) and torch.allclose(model.std.flatten(), STD.flatten())
    assert model.source == {"name": model.name, "weights": "random", "mean": None, "std": None}


def test_size_and_normalisation_are_those_of_the_weights() -> None:
    model = load_model("torchvision:efficientnet_b1", weights="random")
    assert model.shape == (3, 240, 240)
    assert load_model("torchvision:inception_v3", weights="random").shape == (3, 299, 299)


def test_default_weights_come_from_the_cache(cache: Path) -> None:
    with pytest.raises(UserError, match="not on this machine .*download=True.*give a file .weights.*weights='random'"):
        load_model(f"torchvision:{SMALL}")
    assert not cache.exists()
    theirs = torchvision.models.get_model(SMALL)
    cache.mkdir(parents=True)
    url = torchvision.models.get_model_weights(SMALL).DEFAULT.url
    torch.save(theirs.state_dict(), cache / url.rpartition("/")[2])
    for weights in (None, "DEFAULT", "IMAGENET1K_V1"):
        assert same(load_model(f"torchvision:{SMALL}", weights=weights), theirs)


def test_a_download_that_fails(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match="could not be downloaded .*weights='random'"):
        load_model(f"torchvision:{SMALL}", download=True)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("googlenet", {}),
        ("mnasnet0_5", {}),
        ("densenet121", {r"(denselayer\d+\.(?:norm|conv))([12])\.": r"\1.\2."}),
    ],
)
def test_files_of_every_age(tmp_path: Path, name: str, old: dict[str, str]) -> None:
    """Auxiliary heads, modules that ask for the version of their names, and names of long ago."""
    special = {"aux_logits": True, "init_weights": False, "transform_input": True} if name == "googlenet" else {}
    theirs = torchvision.models.get_model(name, **special)
    state = dict(theirs.state_dict())
    for pattern, written in old.items():
        renamed = {re.sub(pattern, written, key): value for key, value in state.items()}
        assert renamed.keys() != state.keys()
        state = renamed
    torch.save(state, tmp_path / "w.pth")
    assert same(load_model(f"torchvision:{name}", weights=tmp_path / "w.pth"), theirs)


def test_names_of_long_ago_in_a_vision_transformer() -> None:
    """The real ones are too large for a test: their names, on a small one."""
    names = list(torchvision.models.VisionTransformer(64, 32, 2, 2, 12, 8).state_dict())
    old = [name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.") for name in names]
    assert old != names and [modern(name) for name in old] == names == [modern(name) for name in names]


def test_another_number_of_classes(tmp_path: Path) -> None:
    theirs = torchvision.models.get_model(SMALL, num_classes=7)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "w.pth")
    model = load_model(f"torchvision:{SMALL}", weights=tmp_path / "w.pth")
    assert same(model, theirs) and model.classes is None and model.shape == (3, 224, 224)
    (tmp_path / "m.toml").write_text(
        f'architecture = "torchvision:{SMALL}"\nweights = "w.pth"\nmean = [0.0]\nstd = [1.0]\n'
        'classes = ["a", "b", "c", "d", "e", "f", "g"]\nshape = [3, 64, 64]\n'
    )
    card = load_model(str(tmp_path / "m.toml"))
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(card(x), theirs.eval()(x)) and card.shape == (3, 64, 64) and card.classes == tuple("abcdefg")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet81", None, r"no classifier 'resnet81'. Did you mean 'resnet\d+'\?"),
        (SMALL, "IMAGENET1K_V9", r"no weights of that name. Did you mean 'IMAGENET1K_V1'\?"),
        (SMALL, "radnom", r"Did you mean 'random'\?"),
        (SMALL, "{folder}/none.pth", "There is no weights file"),
        (SMALL, "{folder}/other.pth", "does not fit the model"),
    ],
)
def test_what_torchvision_does_not_have(tmp_path: Path, name: str, weights: str | None, message: str) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=message):
        load_model(f"torchvision:{name}", weights=weights and weights.format(folder=tmp_path))


def test_cards_that_torchvision_cannot_build(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(f'architecture = "torchvision:{SMALL}"\nweights = "random"\nshape = [1, 28, 28]\n')
    with pytest.raises(UserError, match="3 channels, not 1"):
        load_model(str(tmp_path / "m.toml"))
    (tmp_path / "m.toml").write_text(
        f'architecture = "torchvision:{SMALL}"\nweights = "random"\noptions = {{wide = 2}}\n'
    )
    with pytest.raises(UserError, match="cannot build 'shufflenet_v2_x0_5' for images of 224 x 224 .*'wide'"):
        load_model(str(tmp_path / "m.toml"))


def test_every_name_has_a_size_and_a_normalisation() -> None:
    assert "resnet18" in torchvision_names() and "fcos_resnet50_fpn" not in torchvision_names()
    for name in torchvision_names():
        for member in torchvision.models.get_model_weights(name):
            preset = member.transforms()
            assert len(preset.crop_size) == 1 and len(preset.mean) == len(preset.std) == 3


@pytest.mark.slow
def test_images_of_imagenet_size_through_the_main_job(tmp_path: Path) -> None:
    model = load_model(f"torchvision:{SMALL}", weights="random")
    images = torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(images).argmax(1)
    options = {"output": tmp_path / "run", "curve": [], "listener": Listener(say=lambda text: None)}
    run = evaluate(model, (images, labels), "fgsm", **options)
    assert run.info["models"][0]["search_copy"]["folded"] and run.info["models"][0]["search_copy"]["used"]
    assert run.info["aggregates"]["models"][0]["clean_accuracy"]["value"] == 1
