"""Image classifiers of transformers, saved to folders: the same logits as its own pipeline, and what is refused."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.models import load_model, two_classes
from robustlab.models.processors import preprocessing
from robustlab.runs.stored import read_run

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 3,
}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
SMALL = {"size": {"height": 32, "width": 32}}


@pytest.fixture(scope="session")
def hub() -> Any:
    """The package itself, imported late: that takes seconds."""
    transformers = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    return transformers


def saved(
    hub: Any, folder: Path, model: str, config: dict[str, Any], processor: str = "", how: Any = None
) -> nn.Module:
    """A model with random weights everywhere, saved with its processor."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = getattr(hub, model)(getattr(hub, model.partition("For")[0].removesuffix("Model") + "Config")(**config))
        for p in net.parameters():
            nn.init.kaiming_normal_(p) if p.ndim > 1 else nn.init.uniform_(p, 0.5, 1.5)
    net.save_pretrained(folder)
    getattr(hub, processor or "ViTImageProcessor")(**(how or SMALL)).save_pretrained(folder)
    made: nn.Module = net.eval()
    return made


def through_transformers(hub: Any, folder: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Pixels of that size in [0, 1], and the logits of transformers' whole pipeline for them."""
    pixels = torch.randint(0, 256, (1, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    net = hub.AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = hub.AutoImageProcessor.from_pretrained(folder)
    there = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_first"}
    with torch.no_grad():
        return pixels / 255, net(**processor(images=pixels[0], return_tensors="pt", **there))[0]


@pytest.mark.parametrize(
    ("model", "config", "processor", "how", "shape", "mean"),
    [
        ("ViTForImageClassification", VIT, "ViTImageProcessor", SMALL | CLIP, (3, 32, 32), 0.4814547),
        (
            "ViTForImageClassification",
            VIT | {"num_channels": 1, "image_size": 28, "patch_size": 7},
            "ViTImageProcessor",
            {"size": {"height": 28, "width": 28}, "image_mean": [0.13], "image_std": [0.3]},
            (1, 28, 28),
            0.13,
        ),
        (
            "ResNetForImageClassification",
            {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 4},
            "ConvNextImageProcessor",
            {"size": {"shortest_edge": 48}, "crop_pct": 0.875},
            (3, 48, 48),
            0.5,
        ),
        (  # blue, green, red, and no mean
            "MobileViTForImageClassification",
            {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32]},
            "MobileViTImageProcessor",
            {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}},
            (3, 64, 64),
            0.0,
        ),
        (  # divides by the standard deviation twice
            "EfficientNetForImageClassification",
            {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
            "EfficientNetImageProcessor",
            SMALL,
            (3, 32, 32),
            0.5,
        ),
        (  # blue, green, red, without a setting for it; its output does not call them logits
            "PPLCNetForImageClassification",
            {"scale": 0.25, "class_expand": 32},
            "PPLCNetImageProcessor",
            SMALL | {"crop_size": {"height": 32, "width": 32}},
            (3, 32, 32),
            0.406,
        ),
    ],
)
def test_logits_are_those_of_transformers_pipeline(
    hub: Any, tmp_path: Path, model: str, config: Any, processor: str, how: Any, shape: Any, mean: float
) -> None:
    saved(hub, tmp_path, model, config, processor, how)
    ours = load_model(f"hf:{tmp_path}")
    x, logits = through_transformers(hub, tmp_path, shape)
    with torch.no_grad():
        assert torch.allclose(ours(x), logits, rtol=1e-4, atol=1e-5) and logits.std() > 0.05
        assert shape[0] == 1 or not torch.allclose(ours(x.flip(1)), logits, rtol=1e-3, atol=1e-3)
    assert ours.shape == shape and ours.mean.flatten()[0].item() == pytest.approx(mean, abs=1e-7)
    assert ours.classes is None and not ours.training


def test_class_names_source_and_generator(hub: Any, tmp_path: Path) -> None:
    saved(hub, tmp_path, "ViTForImageClassification", VIT | {"id2label": {0: "cat", 1: "dog", 2: "cow"}})
    assert load_model(f"hf:{tmp_path}", classes=["a", "b", "a"]).classes == ("a (0)", "b", "a (2)")
    state, level = torch.random.get_rng_state(), hub.utils.logging.get_verbosity()
    model = load_model(f"hf:{tmp_path}")
    assert model.classes == ("cat", "dog", "cow")
    assert model.source == {"name": f"hf:{tmp_path}", "weights": None, "mean": None, "std": None}
    random = [load_model(f"hf:{tmp_path}", weights="random") for _ in range(2)]
    assert random[0].hash() == random[1].hash() != model.hash()
    assert torch.equal(torch.random.get_rng_state(), state) and hub.utils.logging.get_verbosity() == level
    (tmp_path / "card.toml").write_text(
        'architecture = "hf:./"\nweights = "model.safetensors"\nclasses = ["a", "b", "c"]\n'
    )
    assert load_model(f"hf:{tmp_path}", weights=tmp_path / "model.safetensors").hash() == model.hash()
    torch.save(model.module.state_dict(), tmp_path / "w.pth")  # under the names of today
    assert load_model(f"hf:{tmp_path}", weights=tmp_path / "w.pth").hash() == model.hash()
    card = load_model(str(tmp_path / "card.toml"))
    assert card.hash() == model.hash() and card.classes == ("a", "b", "c")


def test_half_precision_is_attacked_in_float32(hub: Any, tmp_path: Path) -> None:
    net = saved(hub, tmp_path, "ViTForImageClassification", VIT)
    net.half().save_pretrained(tmp_path)  # type: ignore[operator]
    assert {p.dtype for p in load_model(f"hf:{tmp_path}").parameters()} == {torch.float32}


def test_a_single_output_is_refused_until_it_is_said_what_it_is(hub: Any, tmp_path: Path) -> None:
    saved(hub, tmp_path, "ViTForImageClassification", VIT | {"num_labels": 1})
    model = load_model(f"hf:{tmp_path}")
    x = torch.rand(4, 3, 32, 32)
    quiet = {"output": tmp_path / "run", "curve": [], "listener": Listener(say=lambda text: None)}
    with pytest.raises(UserError, match=r"one number an image .*two_classes"):
        evaluate(model, (x, torch.zeros(4, dtype=torch.int64)), "fgsm", **quiet)
    two = two_classes(model)
    assert torch.equal(two(x)[:, 1:], model.module((x - model.mean) / model.std).logits)
    config = json.loads((tmp_path / "config.json").read_text())  # as one that was trained with BCEWithLogitsLoss
    (tmp_path / "config.json").write_text(json.dumps(config | {"problem_type": "multi_label_classification"}))
    (tmp_path / "card.toml").write_text('architecture = "hf:./"\nclasses = ["no", "yes"]\nsingle_output = "logit"\n')
    card = load_model(str(tmp_path / "card.toml"))
    assert torch.equal(card(x), two(x)) and card.classes == ("no", "yes")


def test_real_signs_from_the_command_line(
    hub: Any, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(hub, tmp_path / "net", "ViTForImageClassification", VIT | {"num_labels": 43})
    monkeypatch.chdir(tmp_path)
    words = f"attack hf:net --data npz:{data_root / 'gtsrb32.npz'} --labels predicted --limit 8 --attack pgd:steps=2"
    assert (
        main([*words.split(), "--save-adversarial", "--audit", "0", "--keep", "0", "--output", "run", "--quiet"]) == 0
    )
    run = read_run(tmp_path / "run")
    assert run.info["aggregates"]["models"][0]["clean_accuracy"]["value"] == 1
    assert run.info["models"][0]["source"]["name"] == "hf:net"
    assert main(["verify", "run"]) == 0


CONFIGS: dict[str, dict[str, Any]] = {
    "text": {"model_type": "bert", "architectures": ["BertForSequenceClassification"]},
    "regression": {"model_type": "vit", "problem_type": "regression", "num_labels": 1},
    "several": {"model_type": "vit", "problem_type": "multi_label_classification"},
    "quantised": {"model_type": "vit", "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "kernel": {"model_type": "vit", "attn_implementation": "somebody/attention"},
    "code": {"model_type": "mine", "auto_map": {"AutoConfig": "code.MyConfig"}},
    "unnamed": {"architecture": "resnet18"},
}


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("none", r"is a folder without config.json. Give one that save_pretrained"),
        ("gone", r"there is no folder .*gone, .*download=True"),
        ("text", "is no image classifier of transformers but BertForSequenceClassification"),
        ("regression", "is trained for regression, and one class an image is expected"),
        ("several", "is trained for multi_label_classification"),
        ("quantised", "is quantised, so that it has no gradient"),
        ("kernel", r"names code on the hub for its attention \(somebody/attention\), which is never run"),
        ("code", "The configuration of hf:.*cannot be loaded"),
        ("unnamed", "The configuration of hf:.*cannot be loaded"),
    ],
)
def test_folders_of_something_else(hub: Any, tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "code.py").write_text("raise SystemExit('this must not run')")
    if folder in CONFIGS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(CONFIGS[folder]))
        (tmp_path / folder / "code.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(UserError, match=message):
        load_model(f"hf:{tmp_path / folder}")


def test_weights_of_another_network_are_not_filled_up_at_random(hub: Any, tmp_path: Path) -> None:
    saved(hub, tmp_path, "ViTModel", VIT)
    with pytest.raises(
        UserError, match=r"2 tensors are missing .*: classifier.bias, classifier.weight.*is of ViTModel"
    ):
        load_model(f"hf:{tmp_path}")
    saved(hub, tmp_path, "ViTForImageClassification", VIT)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"id2label": dict(enumerate("abcde")), "hidden_size": 36})
    )
    with pytest.raises(UserError, match="hf:"):
        load_model(f"hf:{tmp_path}")


def test_pickles_that_hold_code_are_not_read(hub: Any, tmp_path: Path) -> None:
    net = saved(hub, tmp_path, "ViTForImageClassification", VIT)
    hash = load_model(f"hf:{tmp_path}").hash()
    (tmp_path / "model.safetensors").unlink()
    torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
    assert load_model(f"hf:{tmp_path}").hash() == hash
    torch.save({**net.state_dict(), "more": nn.Linear(2, 2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="The model of hf:.*cannot be loaded"):
        load_model(f"hf:{tmp_path}")
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="The model of hf:.*cannot be loaded"):
        load_model(f"hf:{tmp_path}")


def test_a_folder_without_a_processor(hub: Any, tmp_path: Path) -> None:
    saved(hub, tmp_path, "ViTForImageClassification", VIT)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"image processor \(preprocessor_config.json\) of hf:.* cannot be loaded"):
        load_model(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("processor", "how", "message"),
    [
        ("MobileViTImageProcessor", {"size": {"shortest_edge": 24}, "crop_size": {"height": 32, "width": 32}}, "frame"),
        ("Siglip2ImageProcessor", {}, "makes no image"),
        ("ImageGPTImageProcessor", {"clusters": [[0.0] * 3, [1.0] * 3]}, "cannot take|makes no image"),
    ],
)
def test_processors_that_do_more_than_scale(hub: Any, processor: str, how: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preprocessing(getattr(hub, processor)(**how), 3, "hf:net")


def test_a_processor_that_does_not_divide_by_255(hub: Any) -> None:
    found = preprocessing(hub.ViTImageProcessor(do_rescale=False, do_normalize=False), 3, "hf:net")
    assert found.mean == [0.0] * 3 and found.std == pytest.approx([1 / 255] * 3, rel=1e-6)


def test_a_classifier_of_timm_inside_transformers(hub: Any, tmp_path: Path) -> None:
    config = hub.TimmWrapperConfig(architecture="test_resnet", num_labels=5)
    hub.TimmWrapperForImageClassification(config).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    told = {"input_size": [3, 64, 64], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "num_classes": 5}
    (tmp_path / "config.json").write_text(json.dumps(content | {"pretrained_cfg": told}))
    model, x = load_model(f"hf:{tmp_path}"), torch.rand(2, 3, 64, 64)
    assert model.shape == (3, 64, 64)
    shifted = (x - torch.tensor(told["mean"]).view(3, 1, 1)) / torch.tensor(told["std"]).view(3, 1, 1)
    assert torch.allclose(model(x), model.module.timm_model(shifted), atol=1e-5)


@pytest.mark.parametrize(
    ("processor", "how", "said"),
    [
        ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": 32}, ""),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": 32}, "256 x 256 pixels 80 % x 80 % (here"),
        ("ViTImageProcessor", SMALL, "256 x 128 pixels 100 % x 100 % (here 50 % x 100 %)"),
    ],
)
def test_a_processor_that_crops_or_stretches_is_told(
    hub: Any, tmp_path: Path, processor: str, how: Any, said: str
) -> None:
    saved(hub, tmp_path, "ViTForImageClassification", VIT, processor, how)
    notes = load_model(f"hf:{tmp_path}").notes
    assert said in notes[0] if said else notes == []


def test_a_processor_that_leaves_the_size_alone(hub: Any) -> None:
    assert preprocessing(hub.ViTImageProcessor(do_resize=False), 3, "hf:net").shape is None


def test_cards_that_do_not_fit(hub: Any, tmp_path: Path) -> None:
    saved(hub, tmp_path, "ViTForImageClassification", VIT)
    for more, message in (("options = {wide = 2}", "takes no options"), ("classes = 5", "has 3 classes, and 5")):
        (tmp_path / "card.toml").write_text(f'architecture = "hf:{tmp_path}"\n{more}\n')
        with pytest.raises(UserError, match=message):
            load_model(str(tmp_path / "card.toml"))


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'transformers, which is not installed: pip install "robustlab\[hf\]"'):
        load_model("hf:net")


def test_names_of_the_hub_are_looked_up_in_the_cache(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="no folder me/net, and the configuration of no such model is on this machine"):
        load_model("hf:me/net")
    there = tmp_path / "models--me--net"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text("abc")
    saved(hub, there / "snapshots" / "abc", "ViTForImageClassification", VIT)
    assert load_model("hf:me/net").hash() == load_model(f"hf:{there / 'snapshots' / 'abc'}").hash()

    def fetch(name: str, **options: Any) -> None:
        assert options == {"trust_remote_code": False, "local_files_only": False}
        raise OSError("no route to host")

    monkeypatch.setattr(hub.AutoConfig, "from_pretrained", fetch)
    with pytest.raises(UserError, match="configuration of hf:me/other could not be downloaded: no route to host"):
        load_model("hf:me/other", download=True)
