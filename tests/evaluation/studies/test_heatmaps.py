"""Heatmaps in a run: what is stored for the kept examples, resume, and models that have none."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import spearmanr

from robustlab.base.pictures import heat_png
from robustlab.cli import main
from robustlab.explain import grad_cam
from robustlab.models import load_model

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    # upright or level stripes, or neither

    watched = False

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(1, 2, 2, bias=False), nn.ReLU(inplace=True), nn.Linear(2, 3)
        with torch.no_grad():
            upright = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])
            self.conv.weight.copy_(torch.stack([upright, upright.T])[:, None])
            self.head.weight.copy_(torch.tensor([[20.0, -20.0], [-20.0, 20.0], [0.0, 0.0]]))
            self.head.bias.copy_(torch.tensor([0.0, 0.0, 2.0]))

    def forward(self, x):
        if self.watched and self.conv._forward_hooks:
            raise RuntimeError("not while I am watched\\nby captum")
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


def net():
    return Net()


def shy():
    made = net()
    made.watched = True
    return made


def linear():
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.py and 40 grey images of stripes and noise, labelled by the answers of `net`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    stripes = np.tile([-1, 1], (8, 4)) * rng.uniform(0, 40, (40, 1, 1))
    stripes[::2] = stripes[::2].transpose(0, 2, 1)
    images = (128 + stripes + rng.normal(0, 12, (40, 8, 8))).round().astype(np.uint8)
    labels = load_model("model.py:net")(torch.from_numpy(images)[:, None] / 255).argmax(1).numpy()
    np.savez("data.npz", test_images=images, test_labels=labels)
    return tmp_path


def arguments(model: str, output: str, *more: str) -> list[str]:
    data = ("--data", "npz:data.npz", "--eps", "3/255", "--no-curve", "--chunk-size", "10", "--batch-size", "10")
    more = ("--attack", "fgsm", "--attack", "pgd:steps=5", "--audit", "0", *more)
    return ["attack", f"model.py:{model}", *data, "--output", output, *more]


def info(folder: str) -> Any:
    return json.loads(Path(folder, "run.json").read_text())


def pictures(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder, "images").iterdir()}


def test_what_is_stored_is_grad_cam_of_the_float_images(place: Path) -> None:
    assert main(arguments("net", "run", "--save-adversarial", "--keep", "2")) == 0
    found = info("run")
    images, record = found["images"], found["heatmaps"]["model.py:net"]
    assert record["layer"] == "relu" and record["reason"] is None and record["maps"] == 3 * len(images) > 20
    assert record["zero"] == sum(len(image["heat_zero"]) for image in images)
    named = {value for image in images for value in image.values() if str(value).startswith("images/")}
    assert named == {f"images/{name}" for name in pictures("run")} and not (place / "run" / "parts").exists()

    model = load_model("model.py:net")
    clean = torch.from_numpy(np.load("data.npz")["test_images"])[:, None] / 255
    floats = {
        (path.name.split("--")[1], int(id)): row
        for path in (place / "run" / "adversarial").iterdir()
        for id, row in zip(*load_file(path).values(), strict=True)
    }
    assert any(image["success"] for image in images) and not all(image["success"] for image in images)
    correlations: list[float] = []
    for image in images:
        x = torch.stack([clean[image["id"]], *[floats[image["attack"], image["id"]]] * 2])
        before, after = image["clean_prediction"], image["prediction"]
        maps = grad_cam(model, x, torch.tensor([before, after, before])).maps
        assert image["heat_scale"] == pytest.approx(float(maps.max()), rel=1e-5)
        if image["success"] and not image["heat_zero"]:
            correlations.append(spearmanr(maps[0].flatten(), maps[2].flatten()).statistic)
        for kind, each in zip(("heat_clean", "heat_adv", "heat_same"), maps, strict=True):
            stored = np.asarray(Image.open(place / "run" / image[kind]))  # numbers of colours
            wanted = np.asarray(Image.open(io.BytesIO(heat_png(each, image["heat_scale"]))))
            assert stored.shape == (8, 8) and np.abs(stored.astype(int) - wanted).max() <= 1
            assert (kind in image["heat_zero"]) == (float(each.max()) == 0)
    if not any(image["success"] and image["heat_zero"] for image in images):
        assert record["shift"]["same"]["n"] == len(correlations) > 1
        assert record["shift"]["same"]["mean"] == pytest.approx(np.mean(correlations), abs=1e-4)
    page = Path("run/report.html").read_text()
    assert record["shift"]["noise"]["mean"] is not None and "with the same change at random places" in page


def test_zero_maps_are_counted(place: Path) -> None:
    """Nothing in the maps of `net` speaks for "neither": its weights are zero."""
    assert main(arguments("net", "run", "--keep", "3")) == 0
    found = info("run")
    for image in found["images"]:
        assert ("heat_clean" in image["heat_zero"]) == ("heat_same" in image["heat_zero"])
        assert ("heat_clean" in image["heat_zero"]) == (image["clean_prediction"] == 2)
        assert ("heat_adv" in image["heat_zero"]) == (image["prediction"] == 2)
    zero = sum(len(image["heat_zero"]) for image in found["images"])
    assert found["heatmaps"]["model.py:net"]["zero"] == zero > 0


DIES = """
import os, sys
import robustlab.cli as cli

name, left = sys.argv[1], int(sys.argv[2])
def hook(event, args):
    global left
    left -= event == "open" and name in str(args[0])
    if not left:
        os._exit(9)

sys.addaudithook(hook)
cli.main(sys.argv[3:])
"""


def test_killed_and_resumed_gives_the_same_heatmaps(place: Path) -> None:
    assert main(arguments("net", "whole")) == 0
    for event in (("--00002.safetensors", "2"), ("-heat_", "5")):  # in the second attack; while drawing
        dying = [sys.executable, "-c", DIES, *event, *arguments("net", "killed", "--resume")]
        done = subprocess.run(dying, capture_output=True, text=True)
        assert done.returncode == 9, done.stderr
        assert not info("killed")["finished"]
    assert any("heat_" in name for name in pictures("killed"))
    assert main(arguments("net", "killed", "--resume")) == 0
    assert pictures("killed") == pictures("whole") and len(pictures("whole")) > 20
    for key in ("images", "heatmaps"):
        assert info("killed")[key] == info("whole")[key]


def test_a_network_without_places_has_none_and_the_run_goes_on(place: Path) -> None:
    code = "import sys, robustlab.cli as c; r = c.main(sys.argv[1:]); print(r, 'captum' in sys.modules)"
    command = [sys.executable, "-c", code, *arguments("linear", "run", "--labels", "predicted")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split()[-2:] == ["0", "False"], done.stderr
    assert "no heatmaps. No layer of the model gives a map of the image" in done.stderr
    found = info("run")
    record = found["heatmaps"]["model.py:linear"]
    assert record["reason"].startswith("No layer") and record["layer"] is None and record["maps"] == 0
    assert found["images"] and not any("heat_clean" in image for image in found["images"])
    assert not any("heat_" in name for name in pictures("run"))


def test_a_model_that_raises_while_it_is_watched_has_none_and_the_run_goes_on(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("shy", "run")) == 0
    assert info("run")["heatmaps"]["model.py:shy"]["reason"] == "RuntimeError: not while I am watched"
    assert "no heatmaps. RuntimeError: not while I am watched" in capsys.readouterr().err
    assert (place / "run" / "report.html").exists()


def test_nothing_kept_is_nothing_drawn(place: Path) -> None:
    assert main(arguments("net", "run", "--keep", "0")) == 0
    assert info("run")["heatmaps"] == {} and info("run")["images"] == []
