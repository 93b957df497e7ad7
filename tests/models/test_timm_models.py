"""timm's classifiers, without a download: the same logits as timm's own pipeline, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import timm.data.loader
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.models import load_model
from robustlab.models.timm_models import load_timm
from robustlab.runs.stored import read_run


def made(name: str, **options: Any) -> nn.Module:
    """timm's own module, with random weights everywhere: several of its layers begin as zeros."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model(name, pretrained=False, **options).eval()
        for p in net.parameters():
            nn.init.kaiming_normal_(p) if p.ndim > 1 else nn.init.uniform_(p, 0.5, 1.5)
    return net


def through_timm(net: nn.Module) -> tuple[Tensor, Tensor]:
    """The pixels in [0, 1] that timm makes of an image, and the logits of its whole pipeline."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    *before, to_tensor, normalise = timm.data.create_transform(
        **timm.data.resolve_model_data_config(net), is_training=False
    ).transforms
    image: Any = Image.fromarray(pixels)
    for step in before:
        image = step(image)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        return x, net(normalise(to_tensor(image))[None])


def same(model: nn.Module, net: nn.Module) -> bool:
    """Are the model's logits those of timm's whole pipeline?"""
    return agree(model, *through_timm(net))


def agree(model: nn.Module, x: Tensor, logits: Tensor) -> bool:
    """Are these the model's logits for x, and those of darker pixels others?"""
    near = 1e-4 * logits.abs().max().item()
    with torch.no_grad():
        changed = (model(x / 4) - logits).abs().max()
        return bool(changed > 100 * near) and torch.allclose(model(x), logits, rtol=0, atol=near)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face's."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("name", "shape", "mean"),
    [
        ("test_resnet", (3, 160, 160), 0.5),
        ("test_vit", (3, 160, 160), 0.5),
        ("test_efficientnet.r160_in1k", (3, 160, 160), 0.485),
    ],
)
def test_logits_are_those_of_timms_pipeline(tmp_path: Path, name: str, shape: Any, mean: float) -> None:
    net = made(name)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    model = load_model(f"timm:{name}", weights=tmp_path / "w.pth")
    assert same(model, net) and model.shape == shape and model.mean.flatten()[0] == pytest.approx(mean)
    assert model.classes is not None and model.classes[:2] == ("tench", "goldfish") and len(model.classes) == 1000
    assert not model.training and "state_dict" not in model.module.pretrained_cfg


def test_random_weights_are_a_function_of_the_name() -> None:
    state = torch.random.get_rng_state()
    one, two = (load_model("timm:test_resnet", weights="random") for _ in range(2))
    assert one.hash() == two.hash() and torch.equal(torch.random.get_rng_state(), state)
    assert one.source == {"name": "timm:test_resnet", "weights": "random", "mean": None, "std": None}


def test_own_weights_come_from_the_cache(cache: Path) -> None:
    message = "timm/test_resnet.r160_in1k of timm:test_resnet are not on this machine.*download=True.*weights='random'"
    with pytest.raises(UserError, match=message):
        load_model("timm:test_resnet")
    assert not cache.exists()
    there = cache / "models--timm--test_resnet.r160_in1k"
    (there / "snapshots" / "abc").mkdir(parents=True)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text("abc")
    net = made("test_resnet")
    save_file(net.state_dict(), there / "snapshots" / "abc" / "model.safetensors")
    for name in ("test_resnet", "test_resnet.r160_in1k"):
        assert same(load_model(f"timm:{name}"), net)


def test_a_download_that_fails(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(repository: str, file: str, **options: Any) -> str:
        asked.append((repository, file, options))
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    with pytest.raises(UserError, match=r"could not be downloaded \(no route to host\).*weights='random'"):
        load_model("timm:test_resnet", download=True)
    assert asked[0] == (
        "timm/test_resnet.r160_in1k",
        "model.safetensors",
        {"revision": None, "local_files_only": False},
    )


def test_another_number_of_classes_and_another_size(tmp_path: Path) -> None:
    net = made("test_vit", num_classes=7, img_size=64)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "m.toml").write_text(
        'architecture = "timm:test_vit"\nweights = "w.safetensors"\nmean = [0.1]\nstd = [0.2]\n'
        'classes = ["a", "b", "c", "d", "e", "f", "g"]\nshape = [3, 64, 64]\n'
    )
    model = load_model(str(tmp_path / "m.toml"))
    x = torch.rand(2, 3, 64, 64)
    assert agree(model, x, net((x - 0.1) / 0.2))
    assert model.shape == (3, 64, 64) and model.classes == tuple("abcdefg")
    other = made("test_resnet", num_classes=7)
    torch.save({"state_dict": other.state_dict(), "epoch": 3}, tmp_path / "w.pth")
    seven = load_model("timm:test_resnet", weights=tmp_path / "w.pth")
    assert same(seven, other) and seven.classes is None
    both = {"model": other.state_dict(), "ema": {k: v + 1 for k, v in other.state_dict().items()}}
    torch.save(both, tmp_path / "both.pth")
    assert same(load_model("timm:test_resnet", weights=f"{tmp_path / 'both.pth'}#model"), other)
    with pytest.raises(UserError, match="holds 2 sets of weights"):
        load_model("timm:test_resnet", weights=tmp_path / "both.pth")


def saved(folder: Path, *, safe: bool = True) -> nn.Module:
    """A folder of timm's own for 43 classes of images 32 x 32, with another mean than the name has."""
    net = made(
        "test_resnet", num_classes=43, pretrained_cfg_overlay={"input_size": (3, 32, 32), "mean": (0.1, 0.2, 0.3)}
    )
    names = {str(k): f"sign {k}" for k in range(43)}
    save_for_hf(net, str(folder), model_config={"label_names": names}, safe_serialization=safe)
    return net


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder(tmp_path: Path, safe: bool) -> None:
    net = saved(tmp_path / "net", safe=safe)
    again = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    model = load_model(f"timm:{tmp_path / 'net'}")
    assert same(model, net) and same(model, again) and model.shape == (3, 32, 32)
    assert model.classes is not None and model.classes[42] == "sign 42"
    (tmp_path / "card.toml").write_text('architecture = "timm:./net"\n')
    assert load_model(str(tmp_path / "card.toml")).hash() == model.hash()


def test_a_folder_of_a_model_of_gray_images(tmp_path: Path) -> None:
    net = made("test_resnet", in_chans=1, num_classes=3)
    save_for_hf(net, str(tmp_path / "net"), safe_serialization=True)
    model, x = (
        load_model(f"timm:{tmp_path / 'net'}"),
        torch.rand(2, 1, 160, 160, generator=torch.Generator().manual_seed(0)),
    )
    mean, std = (timm.data.resolve_model_data_config(net)[key][0] for key in ("mean", "std"))
    assert model.shape == (1, 160, 160) and agree(model, x, net((x - mean) / std))
    (tmp_path / "m.toml").write_text(
        'architecture = "timm:test_resnet"\nweights = "net/model.safetensors"\nclasses = 3\nshape = [1, 28, 28]\n'
    )
    few = x[..., :28, :28]  # the name alone has three means
    assert agree(load_model(str(tmp_path / "m.toml")), few, net((few - 0.5) / 0.5))


def test_a_gray_model_with_three_means_is_normalised_as_in_timms_loader(tmp_path: Path) -> None:
    told = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "input_size": (3, 32, 32)}
    net = made("test_resnet", in_chans=1, num_classes=3, pretrained_cfg_overlay=told)
    save_for_hf(net, str(tmp_path / "net"), model_config={"model_args": {"in_chans": 1}}, safe_serialization=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), dtype=np.uint8)
    images = torch.utils.data.TensorDataset(torch.from_numpy(pixels), torch.zeros(2, dtype=torch.int64))
    config = timm.data.resolve_model_data_config(net)
    file = tmp_path / "net" / "config.json"  # newer releases of timm write the average
    content = json.loads(file.read_text())
    content["pretrained_cfg"] |= {key: told[key] for key in ("mean", "std")}
    file.write_text(json.dumps(content))
    loader = timm.data.loader.PrefetchLoader(
        torch.utils.data.DataLoader(images, 2), config["mean"], config["std"], 1, torch.device("cpu")
    )
    (normalised, _), x = next(iter(loader)), torch.from_numpy(pixels) / 255
    model = load_model(f"timm:{tmp_path / 'net'}")
    assert model.shape == (1, 32, 32) and agree(model, x, net(normalised))
    by_options = load_timm("test_resnet", "random", options={"in_chans": 1})
    assert by_options.shape == (1, 160, 160) and by_options.mean.flatten().tolist() == [0.5]


def test_real_signs_from_the_command_line(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "net")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net" / "code.py").write_text("raise SystemExit('this must not run')")
    words = (
        f"attack timm:./net --data npz:{data_root / 'gtsrb32.npz'} --labels predicted --limit 8 --attack pgd:steps=2"
    )
    assert (
        main([*words.split(), "--save-adversarial", "--audit", "0", "--keep", "0", "--output", "run", "--quiet"]) == 0
    )
    run = read_run(tmp_path / "run")
    assert run.info["aggregates"]["models"][0]["clean_accuracy"]["value"] == 1
    assert run.info["models"][0]["source"]["name"] == "timm:./net"
    assert main(["verify", "run"]) == 0
    (tmp_path / "net" / "model.safetensors").unlink()
    assert main(["verify", "run"]) != 0


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("test_resnt", None, r"timm has no model 'test_resnt'. Did you mean 'test_resnet'\?"),
        ("test_resnet.r160", None, r"no weights 'r160' for test_resnet. Did you mean 'r160_in1k'\?"),
        ("test_resnet", "gone.pth", "There is no weights file"),
        ("test_resnet", "{folder}/other.pth", r"other.pth does not fit the model .*missing: conv1.0.weight"),
        ("test_resnet", "{folder}/code.pth", "could run code, so it was not read"),
        ("vit_small_patch14_dinov2", "random", "gives features and has no classes"),
        ("gcvit_base", None, "timm offers no weights for gcvit_base: give a file"),
        ("{folder}", None, "has no config.json"),
        ("{folder}/gone", None, "is no folder"),
        ("{folder}/hf", None, "is not a description that timm wrote.*give hf:"),
        ("{folder}/unknown", None, "names the architecture 'nonet'"),
        ("{folder}/empty", None, "holds no weights"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, weights: str | None, message: str) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "code.pth")
    for folder, config in (
        ("hf", {"architectures": ["ViT"], "model_type": "vit"}),
        ("unknown", {"architecture": "nonet"}),
        ("empty", {"architecture": "test_resnet"}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        load_model(f"timm:{name.format(folder=tmp_path)}", weights=weights and weights.format(folder=tmp_path))


def test_a_first_layer_of_other_channels_is_not_made_to_fit(tmp_path: Path) -> None:
    torch.save(made("test_resnet", num_classes=3).state_dict(), tmp_path / "w.pth")
    (tmp_path / "m.toml").write_text('architecture = "timm:test_resnet"\nweights = "w.pth"\nshape = [1, 28, 28]\n')
    with pytest.raises(UserError, match=r"other shape: conv1.0.weight \(file \(16, 3, 3, 3\), model \(16, 1"):
        load_model(str(tmp_path / "m.toml"))
    (tmp_path / "o.toml").write_text('architecture = "timm:test_resnet"\nweights = "random"\noptions = {wide = 2}\n')
    with pytest.raises(UserError, match="timm cannot build 'test_resnet' .*wide"):
        load_model(str(tmp_path / "o.toml"))


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        UserError, match=r'needs the package timm, which is not installed: pip install "robustlab\[timm\]"'
    ):
        load_model("timm:resnet18")
