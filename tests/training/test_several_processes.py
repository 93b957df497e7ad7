"""`torchrun -m robustlab train`: two processes end where one ends; a killed one ends the job, which goes on.

How near two trainings are: they add the same numbers in another order. Mostly that stays at the size of rounding
(SMOOTH: largest difference of a weight or statistic after a few steps). But linf attacks take the sign of a gradient,
and where it is almost 0 the sign may turn, which moves a pixel by whole steps; and TRADES starts where its gradient is
almost 0 (TURNED). Reversing the images in the batches of one process changes its weights as much.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustlab.base.errors import UserError
from robustlab.base.processes import World
from robustlab.cli.train import parse_settings
from robustlab.models import load_model
from robustlab.models.card import read_model_card
from robustlab.training import Recipe, recipe_for, train
from robustlab.training.loop import _enough_for
from tests.training.test_training import HERE, SMALL, Stop, is_finished, stop_at, stripes

SMOOTH, TURNED = 1e-5, 0.05
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**HERE, "OMP_NUM_THREADS": "1"}
DATA = (stripes(187, "train"), stripes(61, "val"))
FEW = replace(SMALL, epochs=1, batch_size=33, lr=0.01, dropout=0.0)  # batches of 31 and 32: no equal shares
TWICE = {"method": "mart", "norm": "l2", "eps": 0.3, "steps": 2}  # two forward passes a step, as TRADES
EXTRAS: dict[str, Any] = {"ema": 0.9, "awp": 0.01, "clip": 0.5, "mixup": 1.0, "smoothing": 0.1, "cutout": 3}
RECIPES = {
    "plain": (FEW, SMOOTH),
    "n-fgsm": (replace(FEW, defense={"method": "n-fgsm"}), TURNED),
    "trades": (replace(FEW, defense={"method": "trades", "steps": 2}), TURNED),
    "mart": (replace(FEW, defense=TWICE), SMOOTH),
    "extras": (replace(FEW, defense={**TWICE, "method": "pgd-at"}, **EXTRAS), SMOOTH),
    "epochs": (replace(FEW, epochs=6, check_size=61, defense={"method": "n-fgsm", "eps": 0.1}), None),
}
SCRIPT = """
import sys
from pathlib import Path
from tests.training.test_several_processes import DATA, RECIPES
from robustlab.training import train
for name, (recipe, _) in RECIPES.items():
    done = train("cnn", DATA, recipe, output=Path(sys.argv[1]) / name, device="cpu", drawn=False)
    assert done.card.hash and len(done.history) == recipe.epochs  # in each process
"""


def apart(a: Path, b: Path) -> float:
    """The largest difference between two trained models in a weight or a statistic."""
    first, second = (load_model(str(path)).state_dict() for path in (a, b))
    assert first.keys() == second.keys()
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


def epochs(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "history.json").read_text())["epochs"]
    return found


@pytest.mark.slow
def test_two_processes_end_within_rounding_of_one(tmp_path: Path) -> None:
    command = [*TORCHRUN[1:], "--no-python", sys.executable, "-c", SCRIPT, str(tmp_path / "two")]
    done = subprocess.run([sys.executable, *command], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr
    for name, (recipe, tolerance) in RECIPES.items():
        train("cnn", DATA, recipe, output=tmp_path / "one" / name, device="cpu", drawn=False)
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        if tolerance is not None:
            assert apart(one, two) < tolerance, name
            for key in ("batch_loss", "val_loss", "val_robust_loss"):
                assert epochs(one)[0][key] == pytest.approx(epochs(two)[0][key], abs=tolerance), (name, key)
        cards = [read_model_card(folder / "model.toml").measured for folder in (one, two)]
        for measured, other in zip(*cards, strict=True):
            assert measured.low <= other.value <= measured.high and measured.n == other.n, (name, measured, other)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the images as stripes.npz."""
    content = {}
    for split, n in (("train", 187), ("val", 61), ("test", 10)):
        data = stripes(n, "val" if split == "test" else split)
        content[f"{split}_images"] = (data.images[:, 0] * 255).round().byte().numpy()
        content[f"{split}_labels"] = data.labels.numpy()
    np.savez(tmp_path / "stripes.npz", **content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORDS = ["-m", "robustlab", "train", "cnn", "--data", "npz:stripes.npz", "--recipe", "mart", "--epochs", "4"]
VALUES = ["batch_size=33", "lr=0.01", "check_size=20", "schedule=cosine", "norm=l2", "steps=2"]
WORDS += ["--eps", "0.3", *(word for value in VALUES for word in ("--set", value)), "--output"]


def finish(command: list[str], folder: str) -> None:
    done = subprocess.run([*command, *WORDS, folder, "--resume"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("Training cnn") == 1 and done.stderr.count("Best epoch") == 1


def ranks(agent: int) -> dict[str, int]:
    """The processes that a torchrun has started, by their number."""
    found = {}
    for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found |= {word[5:].decode(): int(pid) for word in words if word.startswith(b"RANK=")}
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="needs Linux")
def test_a_killed_process_ends_the_job_which_goes_on_with_any_number(place: Path) -> None:
    finish([sys.executable], "whole")
    for rank, others in (("1", [sys.executable]), ("0", TORCHRUN)):
        folder = place / f"killed-{rank}"
        run = subprocess.Popen([*TORCHRUN, *WORDS, folder.name], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        end = time.time() + 300
        while not (folder / "last.pt").is_file() and time.time() < end:
            time.sleep(0.02)
        os.kill(ranks(run.pid)[rank], signal.SIGKILL)
        said = run.communicate(timeout=300)[1]
        assert run.returncode != 0 and not is_finished(folder), said
        finish(others, folder.name)
        assert apart(folder, place / "whole") < 10 * SMOOTH
        assert [e["epoch"] for e in epochs(folder)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_one_process_began_and_two_go_on(place: Path) -> None:
    finish([sys.executable], "whole")
    values = {**parse_settings(VALUES), "epochs": 4, "eps": "0.3"}
    plan = recipe_for("cnn", data="npz:stripes.npz", recipe="mart", overrides=values)
    with pytest.raises(Stop):
        train("cnn", plan.data, plan.recipe, output="parts", device="cpu", on_epoch=stop_at(2))
    finish(TORCHRUN, "parts")
    assert apart(place / "parts", place / "whole") < 10 * SMOOTH


@pytest.mark.slow
def test_all_processes_stop_where_the_loss_explodes(place: Path) -> None:
    words = [*TORCHRUN, *WORDS, "bad", "--set", "warmup=0.1"]
    words[words.index("lr=0.01")] = "lr=1e30"
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.count("became NaN or infinite in epoch 1, batch 6 of 6") == 1


def test_every_process_has_a_share_of_every_batch() -> None:
    with pytest.raises(UserError, match="4 processes share each batch, and a batch has 3 images.*batch_size=32"):
        _enough_for(World(1, 4), DATA[0], Recipe(batch_size=4))
