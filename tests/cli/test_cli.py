"""The command as a person uses it: a model file and a data file of their own, exit codes, resume, kill -9."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustlab.attacks import ATTACKS
from robustlab.base.cards import card_names
from robustlab.cli import main
from robustlab.cli.attack import DEFAULT_MODELS
from robustlab.data import DATA
from robustlab.models import ARCHITECTURES
from robustlab.reporting.plots import FIGURES
from robustlab.reporting.tables import TABLES

MODEL = """
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(54, 3))


def other():
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def slow():
    import time

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = other()

        def forward(self, x):
            time.sleep(0.005)
            return self.inner(x)

    return Slow()


def breaks():
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = other()

        def forward(self, x):
            if x.requires_grad:
                raise RuntimeError("no gradients here")
            return self.inner(x)

    return Breaks()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.py and data.npz: 60 grey images, labelled by the answers of `other`, some of them wrongly."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    from robustlab.models import load_model

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    import torch

    x = torch.from_numpy(images).float().div(255)[:, None]
    labels = load_model("model.py:other")(x).argmax(1).numpy()
    labels[::10] = (labels[::10] + 1) % 3
    np.savez("data.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return tmp_path


ARGS = ["attack", "model.py:other", "--data", "npz:data.npz", "--eps", "4/255", "--audit", "3"]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def without_times(folder: Path) -> bytes:
    return (folder / "samples.jsonl").read_bytes()


def test_attack_writes_a_run_and_a_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGS, "model.py:net", "--output", "run", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [r["model"] for r in found["results"]] == ["model.py:other", "model.py:net"]
    assert [r["audit"]["n"] for r in found["results"]] == [3, 3] and "audit of the attack: " in err
    first = found["results"][0]
    assert first["clean_accuracy"] == {**first["clean_accuracy"], "value": 0.9, "n": 60}
    assert first["robust_accuracy"]["low"] <= first["robust_accuracy"]["value"] <= first["robust_accuracy"]["high"]
    assert [a["name"] for a in first["attacks"]] == ["fgsm", "short-tries"]
    assert "Page: run/report.html" in err and "A guess: up to about" in err
    page = (place / "run" / "report.html").read_text()
    assert "model.py:other" in page and "http://" not in page.replace("http://www.w3.org", "")
    info = json.loads((place / "run" / "run.json").read_text())
    assert info["config"]["threat"] == {"norm": "linf", "eps": 4 / 255} and info["eps_typed"] == "4/255"
    assert info["models"][0]["search_copy"]["used"] is True
    assert str(place) not in json.dumps(info["config"])


def test_the_lines_are_consistent(place: Path) -> None:
    assert main([*ARGS, "--output", "run"]) == 0
    rows = lines(place / "run")
    clean = {r["id"]: r for r in rows if r["attack"] == "clean"}
    assert len(clean) == 60 and sum(r["clean"] == r["label"] for r in clean.values()) == 54
    info = json.loads((place / "run" / "run.json").read_text())
    fallen: set[int] = set()
    for attack in ("fgsm", "short-tries"):
        tried = [r for r in rows if r["attack"] == attack and r["eps"] == 4 / 255]
        assert {r["id"] for r in tried} == {i for i, r in clean.items() if r["clean"] == r["label"]} - fallen
        fallen |= {r["id"] for r in tried if r["success"]}
        assert all(r["linf"] <= 4 / 255 + 1e-6 and r["forwards"] >= 2 for r in tried)
        assert all((r["adv"] != r["label"]) == r["success"] == (r["verified"] is True) for r in tried)
    robust = info["aggregates"]["models"][0]["robust_accuracy"]
    assert round(robust["value"] * 60) == 54 - len(fallen) and robust["n"] == 60
    curve = [p["share"]["value"] for p in info["aggregates"]["models"][0]["curve"]]
    assert len(curve) >= 5 and curve == sorted(curve, reverse=True)


@pytest.mark.parametrize("batch", [pytest.param("1", marks=pytest.mark.slow), "7"])
def test_batch_size_decides_nothing(place: Path, batch: str) -> None:
    assert main([*ARGS, "--output", "a", "--batch-size", "256", "--chunk-size", "20"]) == 0
    assert main([*ARGS, "--output", "b", "--batch-size", batch, "--chunk-size", "20"]) == 0
    exact = (
        "model",
        "attack",
        "eps",
        "id",
        "success",
        "verified",
        "rank",
        "forwards",
        "backwards",
        "adv",
        "success_8bit",
    )
    a, b = ([{k: r[k] for k in exact} for r in lines(place / run)] for run in ("a", "b"))
    assert a == b


def test_full_runs_every_attack_on_every_right_sample(place: Path) -> None:
    assert main([*ARGS, "--output", "run", "--full", "--no-curve"]) == 0
    rows = lines(place / "run")
    assert [sum(r["attack"] == a for r in rows) for a in ("clean", "fgsm", "short-tries")] == [60, 54, 54]


def test_killed_and_resumed_gives_the_same_bytes(place: Path) -> None:
    """kill -9 in the middle, a torn part beside it, --resume: the same lines as an uninterrupted run."""
    args = ["attack", "model.py:slow", *ARGS[2:], "--chunk-size", "10", "--batch-size", "10", "--no-curve"]
    command = [sys.executable, "-m", "robustlab", *args]
    assert main([*args, "--output", "whole"]) == 0
    process = subprocess.Popen([*command, "--output", "killed"], stderr=subprocess.DEVNULL)
    parts = place / "killed" / "parts"
    while process.poll() is None and len(list(parts.glob("*.jsonl"))) < 5:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = sorted(parts.glob("*.jsonl"))
    assert 5 <= len(done) < 24 and not (place / "killed" / "samples.jsonl").exists()
    done[0].write_bytes(done[0].read_bytes()[:-20])  # as if the disk had kept half of it
    assert main([*args, "--output", "killed"]) == 2  # it is there: neither lost nor overwritten
    assert main([*args, "--output", "killed", "--resume"]) == 0
    assert without_times(place / "killed") == without_times(place / "whole")
    assert main([*args, "--output", "killed", "--resume"]) == 0  # a finished run only builds its page again


@pytest.mark.slow  # tests/evaluation/studies/test_toy_study.py compares the lines of two processes
def test_two_processes_give_the_same_lines(place: Path) -> None:
    args = [*ARGS[1:], "--chunk-size", "10", "--device", "cpu"]
    assert main(["attack", *args, "--output", "one"]) == 0
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "robustlab",
    ]
    done = subprocess.run([*torchrun, "attack", *args, "--output", "two"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert without_times(place / "one") == without_times(place / "two")
    assert (place / "two" / "report.html").exists()
    one, two = (json.loads((place / run / "run.json").read_text()) for run in ("one", "two"))
    assert two["operational"]["processes"] == 2
    assert all(one["audit"]["model.py:other"][key] == two["audit"]["model.py:other"][key] for key in ("ids", "checks"))


def test_interrupted_is_130_and_resumable(place: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "robustlab",
        "attack",
        "model.py:slow",
        *ARGS[2:],
        "--output",
        "run",
        "--chunk-size",
        "10",
    ]
    # a shell starts background jobs with SIGINT ignored, and children inherit that
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    while process.poll() is None and len(list((place / "run" / "parts").glob("*.jsonl"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "--output run --resume goes on" in err and "Traceback" not in err


@pytest.mark.parametrize("flag", ["", "--overwrite"])
def test_interrupted_before_anything_is_written(
    place: Path, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not flag or main([*ARGS, "--output", "run", "--limit", "3", "--no-curve"]) == 0

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robustlab.evaluation.evaluate.evaluate", interrupted)
    assert main([*ARGS, "--output", "run", *flag.split()]) == 130
    assert capsys.readouterr().err.endswith("robustlab: interrupted.\n")


def test_a_replacement_that_is_interrupted_is_gone_on_with(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*ARGS, "--limit", "3", "--no-curve", "--output", "my run"]
    assert main(args) == 0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("robustlab.evaluation.studies.suite.evaluate_chunk", interrupted)
        assert main([*args, "--overwrite"]) == 130
    assert "the same command with --output 'my run' --resume instead of --overwrite goes on." in capsys.readouterr().err
    assert main([*args, "--resume"]) == 0


def test_the_table_is_on_stdout_unless_json_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*ARGS, "--limit", "3", "--no-curve", "--quiet", "--output", "run"]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert "fgsm" in out and out.endswith("Page: run/report.html\n")
    assert all(line.startswith("Warning: ") for line in err.splitlines())
    assert main([*args, "--resume", "--json"]) == 0
    also, err = capsys.readouterr()
    assert json.loads(also)["run"] == "run" and err == out


def test_a_model_that_raises_is_an_error_and_not_robust(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "model.py:breaks", *ARGS[2:], "--output", "run"]) == 1
    assert "no gradients here" in capsys.readouterr().err
    rows = [r for r in lines(place / "run") if r["attack"] != "clean"]
    assert rows and all(r["error"] and not r["success"] for r in rows)
    info = json.loads((place / "run" / "run.json").read_text())
    assert info["aggregates"]["models"][0]["robust_accuracy"]["value"] == 0


def test_targeted(place: Path) -> None:
    assert main([*ARGS, "--output", "run", "--targeted", "--target", "1", "--no-curve"]) == 0
    rows = lines(place / "run")
    assert all(r["label"] != 1 for r in rows)
    attacked = [r for r in rows if r["attack"] != "clean"]
    assert attacked and all(r["target"] == 1 and (r["adv"] == 1) == r["success"] for r in attacked)
    info = json.loads((place / "run" / "run.json").read_text())
    assert any("target class" in w for w in info["warnings"])
    for target in ("random", "least-likely"):
        assert main([*ARGS, "--output", target, "--targeted", "--target", target, "--no-curve"]) == 0
        assert all(r["target"] != r["label"] for r in lines(place / target) if r["attack"] != "clean")


def test_l2_and_selection(place: Path) -> None:
    args = ["attack", "model.py:other", "--data", "npz:data.npz", "--suite", "l2-standard", "--output", "run"]
    assert main([*args, "--ids", "3", "5", "7", "--no-curve"]) == 0
    rows = lines(place / "run")
    assert {r["id"] for r in rows} == {3, 5, 7}
    assert all(r["l2"] <= 0.5 + 1e-6 for r in rows if r["attack"] != "clean")
    assert main([*args[:-1], "by-class", "--classes", "2", "--limit", "4", "--no-curve"]) == 0
    assert {r["label"] for r in lines(place / "by-class")} == {2}


def test_fail_under(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGS, "--output", "a", "--fail-under", "0.0"]) == 0
    assert main([*ARGS, "--output", "b", "--fail-under", "0.95"]) == 1
    assert "is under 0.95" in capsys.readouterr().err


def test_save_adversarial(place: Path) -> None:
    from safetensors.torch import load_file

    assert main([*ARGS, "--output", "run", "--save-adversarial", "--no-curve"]) == 0
    stored = [load_file(p) for p in sorted((place / "run" / "adversarial").glob("*.safetensors"))]
    attacked = [r for r in lines(place / "run") if r["attack"] != "clean"]
    assert sum(len(s["ids"]) for s in stored) == len(attacked) > 0


def test_help_is_quick_and_imports_no_torch() -> None:
    code = "import sys, robustlab.cli as c; c.main(['attack', '--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--eps" in done.stdout, done.stderr


def test_resume_needs_to_know_the_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGS, "--resume"]) == 2
    assert "--resume needs --output" in capsys.readouterr().err and not (place / "reports").exists()


def test_a_module_in_a_file_is_a_model_too(place: Path) -> None:
    (place / "model.py").write_text(MODEL + "\n\nmade = other()\n")
    assert main([*ARGS[:1], "model.py:made", *ARGS[2:], "--limit", "5", "--no-curve", "--output", "run"]) == 0


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("attack", [*ATTACKS, *card_names("attacks", "attack", "sticker", "patch"), *DATA, *DEFAULT_MODELS]),
        ("train", [*ARCHITECTURES, *card_names("defenses", "recipe")]),
        ("data", [*DATA]),
        ("table", [*TABLES]),
        ("plot", [*FIGURES]),
    ],
)
def test_help_names_all_there_is(command: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = set(re.findall(r"[a-z0-9/-]+", capsys.readouterr().out))
    assert set(names) <= said
