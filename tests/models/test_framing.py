"""Which part of an image a model's own preprocessing shows: compared with the arithmetic of its rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from robustlab.data.decoding import fit, to_tensor
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.models import Classifier, load_model
from robustlab.models.framing import framing

Show = Callable[[Image.Image], Tensor]


def rule(*steps: nn.Module) -> Show:
    return v2.Compose([*steps, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


@pytest.mark.parametrize(
    ("show", "shape", "said"),
    [
        (rule(v2.Resize(32), v2.CenterCrop(32)), (3, 32, 32), []),
        (lambda image: to_tensor(fit(image, (24, 40)), 1), (1, 24, 40), []),
        (rule(v2.Resize(40), v2.CenterCrop(32)), (3, 32, 32), ["256 x 256 pixels 80 % x 80 % (here 100 % x 100 %)"]),
        (rule(v2.Resize((48, 48))), (3, 48, 48), ["256 x 128 pixels 100 % x 100 % (here 50 % x 100 %)"]),
        (
            rule(v2.Resize((64, 64)), v2.CenterCrop(48)),
            (3, 48, 48),
            ["256 x 256 pixels 75 % x 75 % (here 100", "256 x 128 pixels 75 % x 75 % (here 50 % x 100 %)"],
        ),
        (rule(v2.Resize((24, 48))), (3, 24, 48), ["256 x 256 pixels 100 % x 100 % (here 100 % x 50 %)"]),
    ],
)
def test_rules(show: Show, shape: tuple[int, int, int], said: Sequence[str]) -> None:
    notes = framing(show, shape)
    assert len(notes) == bool(said)
    for text in said:
        assert text in notes[0]
    assert notes == [] or notes[0].count("here ") == len(said)


@pytest.mark.parametrize(
    ("name", "said"),  # cropped to 224 of 256, and to 160 of 168
    [
        ("torchvision:squeezenet1_1", "256 x 256 pixels 88 % x 88 %"),
        ("timm:test_resnet", "256 x 256 pixels 95 % x 95 %"),
    ],
)
def test_models_of_libraries(name: str, said: str) -> None:
    (note,) = load_model(name, weights="random").notes
    assert said in note


def test_notes_stay_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(
        'architecture = "timm:test_resnet"\nweights = "random"\nmean = [0.4]\nstd = [0.2]\n[wrap]\nmethod = "jpeg"\n'
    )
    assert len(load_model(str(tmp_path / "card.toml")).notes) == 1
    (tmp_path / "other.toml").write_text('architecture = "timm:test_resnet"\nweights = "random"\nshape = [3, 32, 32]\n')
    assert load_model(str(tmp_path / "other.toml")).notes == []  # not the images of timm's own pipeline


def test_a_run_says_it_once_for_a_model(tmp_path: Path) -> None:
    net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), shape=(3, 2, 2), name="mine")
    net.notes = ["It sees less."]
    options = {"output": tmp_path / "run", "curve": [], "audit": 0, "listener": Listener(say=lambda text: None)}
    run = evaluate(net, (torch.rand(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64)), "fgsm", **options)  # type: ignore[arg-type]
    assert run.info["warnings"].count("mine: It sees less.") == 1
