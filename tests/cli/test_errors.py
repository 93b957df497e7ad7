"""Bad input, case by case: exit code 2, one message that says what to do, and nothing new or changed on disk."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robustlab.base.files.directory import Directory
from robustlab.base.files.lock import Lock
from robustlab.cli import main

MODEL = """
import torch
from torch import nn


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def needs_an_argument(width):
    return net()


def leaves():
    raise SystemExit(3)


def words():
    return "net"


def labels():
    class Labels(nn.Module):
        def forward(self, x):
            return x.flatten(1).argmax(1)

    return Labels()


def nan():
    class NaN(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * float("nan")

    return NaN()


def trains():
    class Trains(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Dropout())

        def forward(self, x):
            self.inner.train()
            return self.inner(x)

    return Trains()


thing = 3
"""
FILES = {
    "broken.py": "def net(:\n",
    "reads_words.py": "import sys\nsys.exit('expected: --train')\n",
    "no-toml.toml": "[[attack]\n",
    "key.toml": '[threatt]\neps = 0.1\n[[attack]]\nmethod = "pgd"\n',
    "threat-key.toml": '[threat]\nepss = 0.1\n[[attack]]\nmethod = "pgd"\n',
    "parameter.toml": '[[attack]]\nmethod = "pgd"\nstep = 3\n',
    "type.toml": '[[attack]]\nmethod = "pgd"\nsteps = "ten"\n',
    "eps-type.toml": '[threat]\neps = [1]\n[[attack]]\nmethod = "pgd"\n',
    "norm.toml": '[threat]\nnorm = "linff"\n[[attack]]\nmethod = "pgd"\n',
    "nothing.toml": "",
    "recipe.toml": 'name = "mine"\nsummary = "mine"\nsource = "me"\n[recipe]\nepoch = 3\n',
    "card.toml": 'architecture = "cnn"\nweight = "w.pth"\n',
    "card-type.toml": 'architecture = "cnn"\nweights = 3\n',
    "file": "a file",
    "foreign/notes.txt": "mine",
    "other-json/run.json": '{"a": 1}',
    "broken-run/run.json": '{"schema_version": ',
    "newer-run/run.json": '{"schema_version": 99, "finished": true, "config": {}}',
    "garbage.pth": "no weights",
    "garbage.safetensors": "no weights",
    "garbage.npz": "no arrays",
    "garbage.pt2": "no program",
    "bad/a/1.png": "no image",
    "nothing/notes.txt": "no image either",
}


class Runs:
    """What unpickling must never call."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (Path("it-ran"), "code")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stranger")
    for name, text in {"model.py": MODEL, **FILES}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    grey = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    labels = np.arange(6) % 3
    arrays = {
        "data": {"test_images": grey, "test_labels": labels},
        "normalised": {"test_images": grey.astype("float32") / 64 - 2, "test_labels": labels},
        "out-of-range": {"test_images": grey, "test_labels": labels + 2},
        "negative": {"test_images": grey, "test_labels": labels - 2},
        "too-few": {"test_images": grey, "test_labels": labels[:4]},
        "empty": {"test_images": grey[:0], "test_labels": labels[:0]},
        "other-keys": {"x": grey},
    }
    for name, content in arrays.items():
        np.savez(place / f"{name}.npz", **content)
    torch.save({"0.weight": torch.zeros(2, 2)}, place / "other.pth")
    torch.save({"weights": Runs()}, place / "code.pth")
    torch.save(nn.Linear(2, 2), place / "module.pth")
    for name, size in {
        "bad/a/2": 8,
        "sizes/a/1": 8,
        "sizes/a/2": 9,
        "flat/1": 8,
        "names/cat/1": 8,
        "names/dog/1": 8,
    }.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (size, size)).save(place / f"{name}.png")
    return place


DATA = "--data npz:data.npz"
A = f"attack model.py:net {DATA}"

# what is typed -> what the message says; `attack` and `train` get --output run where the case has none
CASES = {
    # --- words and flags
    "atack": 'Did you mean "attack"',
    f"{A} --epz 1": "Did you mean --eps",
    f"{A} --norm linff": 'Did you mean "linf"',
    f"{A} --labels mine": '"given", "predicted"',
    f"{A} --precision float16": "bfloat16",
    f"{A} --limit 0": "--limit is a number of samples of at least 1, or all",
    f"{A} --limit -3": "--limit",
    f"{A} --limit many": "'many'",
    f"{A} --batch-size 0": "batch-size must be at least 1",
    f"{A} --batch-size 1.5": "whole number",
    f"{A} --batch-size auto": "--batch-size",
    f"{A} --chunk-size 0": "chunk-size must be at least 1",
    f"{A} --keep -1": "keep must be at least 0",
    f"{A} --seed -1": "seed must be at least 0",
    f"{A} --seed 0.5": "whole number",
    f"{A} --fail-under 40": "between 0 and 1",
    f"{A} --fail-under nan": "a finite number is expected",
    f"{A} --device gpu": "auto, cpu, cuda or cuda:N",
    f"{A} --device cuda:99": "--device cpu",
    f"{A} --device meta": "auto, cpu, cuda or cuda:N",
    f"{A} --resume --overwrite": "give one of them",
    # --- the threat
    f"{A} --eps 8": "Did you mean 8/255?",
    f"{A} --eps 1.5": "larger than the whole range",
    f"{A} --eps -1": "not negative",
    f"{A} --eps 1/0": "'1/0'",
    f"{A} --eps abc": "a number or a fraction such as 8/255",
    f"{A} --eps nan": "'nan'",
    f"{A} --eps 128 --norm l2": "at most 8: every image could become every other. Did you mean 128/255?",
    f"{A} --norm l2": "Add --eps",
    f"{A} --curve 8": "Did you mean 8/255?",
    f"{A} --curve x": "'x'",
    f"{A} --suite l2-standard --curve 99": "Did you mean 99/255?",
    f"{A} --target 1": "--target needs --targeted",
    f"{A} --targeted --target 7": "no class '7'",
    f"{A} --targeted --target ''": "an empty value",
    # --- suites and attacks
    f"{A} --suite linf-standart": "Did you mean 'linf-standard'",
    f"{A} --suite gone.toml": "no card 'gone.toml'",
    f"{A} --suite no-toml.toml": "not valid TOML",
    f"{A} --suite key.toml": "Did you mean 'threat'",
    f"{A} --suite threat-key.toml": "Did you mean 'eps'",
    f"{A} --suite parameter.toml": "Did you mean 'steps'",
    f"{A} --suite type.toml": "steps must be of the type int, got str",
    f"{A} --suite eps-type.toml": "[1]",
    f"{A} --suite norm.toml": "Did you mean 'linf'",
    f"{A} --suite nothing.toml": "the key 'attack' is missing",
    f"{A} --suite fgsm --attack pgd": "not both",
    f"{A} --attack pdg": "Did you mean 'pgd'",
    f"{A} --attack AutoAttack": "--suite autoattack-standard",
    f"{A} --attack pgd:step=3": "Did you mean 'steps'",
    f"{A} --attack pgd:steps=ten": "steps must be of the type int",
    f"{A} --attack pgd:steps=0": "steps of at least 1, got 0",
    f"{A} --attack pgd:restarts=-1": "restarts of at least 1",
    f"{A} --attack pgd:step_size=-1": "step_size must be finite and not negative",
    f"{A} --attack pgd:steps": "no key=value",
    f"{A} --attack pgd:eps=0.1": "belongs to the threat",
    # --- models and weights
    "attack road-signs/cn": "Did you mean 'road-signs/cnn'",
    "attack cnn": "is an architecture, not a trained model",
    "attack gone.toml": "no model card 'gone.toml'",
    "attack card.toml": "Did you mean 'weights'",
    "attack card-type.toml": "weights must be of the type str, got int",
    "attack torchvision:resnet118": "Did you mean 'resnet18'",
    "attack timm:resnet118": "Did you mean 'resnet18'",
    "attack timm:nothing/here": "is no folder",
    "attack hf:nothing": "is a folder without config.json",
    "attack garbage.pt2": "cannot be read as an exported program",
    "attack garbage.pth": "--weights garbage.pth",
    f"attack gone.py:net {DATA}": "no file 'gone.py'",
    f"attack model.py {DATA}": "model.py:FUNCTION",
    f"attack model.py:nett {DATA}": "Did you mean 'net'",
    f"attack model.py:thing {DATA}": "cannot be called",
    f"attack model.py:words {DATA}": "must return a torch.nn.Module, it returned a str",
    f"attack model.py:needs_an_argument {DATA}": "raised TypeError",
    f"attack model.py:leaves {DATA}": "raised SystemExit",
    f"attack broken.py:net {DATA}": "cannot be imported: SyntaxError",
    f"attack reads_words.py:net {DATA}": "cannot be imported: SystemExit",
    f"attack model.py:labels {DATA}": "returned one number an image (shape (6,))",
    f"attack model.py:nan {DATA}": "NaN or infinite logits",
    f"attack model.py:trains {DATA}": "training mode (module.inner)",
    f"{A} model.py:net": "MODEL was given model.py:net twice",
    f"{A} model.py:words --weights other.pth": "exactly one model",
    f"{A} --weights gone.pth": "no weights file 'gone.pth'",
    f"{A} --weights garbage.pth": "cannot be read as weights",
    f"{A} --weights garbage.safetensors": "not a whole safetensors file",
    f"{A} --weights other.pth": "does not fit the model",
    f"{A} --weights code.pth": "could run code, so it was not read",
    f"{A} --weights module.pth": "could run code, so it was not read",
    f"{A} --mean 0.5": "--mean and --std come together",
    f"{A} --mean 0.5 --std 0": "Images are in [0, 1]",
    f"{A} --mean 125 --std 60": "Divide values of 0 to 255 by 255",
    "attack road-signs/cnn --mean 0.5 --std 0.5": "brings its own normalisation",
    f"{A} --eps -1/255": "must be finite and not negative",
    f"{A} --mean 0.1 0.2 0.3 --std 1 1 1": "mean has 3 values, and the images have 1 channels",
    f"{A} --mean": "--mean requires at least 1 element",
    # --- data
    "attack model.py:net --data mnits": "Did you mean 'mnist'",
    "attack model.py:net --data mnist --data-root nowhere": "--download",
    "attack model.py:net --data road-signs --limit 4": "model.py:net: The model cannot take images of shape",
    "attack model.py:net --data npz:gone.npz": "gone.npz does not exist",
    "attack model.py:net --data npz:garbage.npz": "garbage.npz",
    "attack model.py:net --data npz:other-keys.npz": "has no 'test_images'",
    "attack model.py:net --data npz:too-few.npz": "4 entries for 6 images",
    "attack model.py:net --data npz:empty.npz": "has no samples",
    "attack model.py:net --data npz:normalised.npz": "must be uint8",
    "attack model.py:net --data npz:out-of-range.npz": "--labels predicted",
    "attack model.py:net --data npz:negative.npz": "class numbers from 0 on",
    "attack model.py:net --data folder:gone": "gone does not exist",
    "attack model.py:net --data folder:file": "file is a file",
    "attack model.py:net --data folder:nothing": "holds no images",
    "attack model.py:net --data folder:bad": "1 file cannot be read as an image: a/1.png",
    "attack model.py:net --data folder:sizes": "--size",
    "attack model.py:net --data folder:flat": "have no label",
    "attack model.py:net --data folder:names": "number of an output",
    "attack model.py:net --data folder:flat --workers -1": "workers",
    "attack model.py:net --data folder:flat --size wide": "'wide'",
    f"{A} --size 8": "size can be chosen for",
    f"{A} --ids 99": "no sample with id 99",
    f"{A} --ids x": '"x"',
    f"{A} --ids": "--ids requires at least 1 element",
    f"{A} --classes x": "no class 'x'",
    f"{A} --ids 1 --classes 2": "selection of ids and classes is empty",
    # --- the output
    f"{A} --output file": "is a file",
    f"{A} --output file/run": "cannot be written to",
    f"{A} --output foreign": "no run of robustlab",
    f"{A} --output foreign --overwrite": "no run of robustlab",
    f"{A} --output other-json": "no run of robustlab",
    f"{A} --output broken-run --resume": "damaged",
    f"{A} --output newer-run --resume": "Update robustlab",
    # --- other commands
    "report": "run folder",
    "report nowhere": "nowhere is not a run folder",
    "report other-json": "not written by robustlab",
    "report broken-run": "damaged",
    "report newer-run": "Update robustlab",
    "verify nowhere": "nowhere is not a run folder",
    "plot nowhere security-curve": "nowhere is not a run folder",
    "table broken-run attcks": "Did you mean 'attacks'",
    "zoo road-signs/cn": "Did you mean 'road-signs/cnn'",
    "data road-sings --output sheet": "Did you mean 'road-signs'",
    "data road-signs --output sheet --count 0": "at least 1",
    "train cn": "Did you mean 'cnn'",
    "train cnn --recipe plan": "Did you mean 'plain'",
    "train cnn --recipe recipe.toml": "Did you mean 'epochs'",
    "train cnn --recipe no-toml.toml": "not valid TOML",
    "train cnn --epochs 0": "epochs of at least 1",
    "train cnn --set lrr=1": "Did you mean 'lr'",
    "train cnn --set lr=fast": "lr must be of the type float, got str",
    "train cnn --set lr": "expects key=value",
    "train cnn --recipe n-fgsm --eps 8": "Did you mean 8/255?",
    "train cnn --seed -1": "seed must be at least 0",
    "train cnn --data npz:gone.npz": "gone.npz does not exist",
    f"train cnn {DATA}": "has no 'train_images'",
    "train cnn --device gpu": "auto, cpu, cuda or cuda:N",
}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("typed", CASES)
def test_bad_input_is_one_message_and_leaves_nothing(
    typed: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = shlex.split(typed)
    if words[0] in ("attack", "train") and "--output" not in words:
        words += ["--output", "run"]
    before = snapshot(folder)
    assert main(words) == 2
    out, err = capsys.readouterr()
    # `train` says first what it is about to do
    told = [line for line in err.splitlines() if not line.startswith("Training ")]
    assert CASES[typed] in err and told[0].startswith("robustlab: ") and "Traceback" not in err
    assert sum(line.startswith("robustlab: ") for line in told) == 1 and out == ""
    assert snapshot(folder) == before


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A finished run in tmp_path/run, and the words that made it."""
    monkeypatch.chdir(folder)
    words = [*shlex.split(A), "--attack", "fgsm", "--no-curve", "--output", str(tmp_path / "run")]
    assert main(words) == 0
    return words


def test_an_existing_run_is_neither_touched_nor_resumed_with_something_else(
    run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(tmp_path)
    for more, message in (
        ("", "--resume to go on with it, --overwrite to replace it"),
        ("--resume --seed 3", "seed was 0, now 3"),
        ("--resume --eps 4/255", "threat.eps was"),
        ("--resume --limit 3", "data.n was 6, now 3"),
        ("--resume --chunk-size 2", "chunk_size was 512, now 2"),
        ("--resume --labels predicted", "labels was none, now predicted"),
        ("--resume --attack pgd", "attacks was"),
        ("--resume --full", "full was false, now true"),
    ):
        assert main([*run, *more.split()]) == 2
        assert message in capsys.readouterr().err
    lock = Lock(Directory.open(tmp_path / "run"), Path("run"))
    for flag in ("--resume", "--overwrite"):
        assert main([*run, flag]) == 2
        assert "in use by another robustlab process" in capsys.readouterr().err
    lock.release()
    small = ["--epochs", "1", "--limit", "4", "--set", "val_size=4", "check_size=4"]
    assert main(["train", "cnn", "--output", str(tmp_path / "run"), "--overwrite", *small]) == 2
    assert "holds a run of `robustlab attack`" in capsys.readouterr().err
    assert snapshot(tmp_path) == before


def test_a_finished_run_with_a_broken_file_is_said(
    run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ["report", str(tmp_path / "run")]
    lines = tmp_path / "run" / "samples.jsonl"
    whole = lines.read_bytes()
    lines.write_bytes(whole[:-20])
    assert main(report) == 2
    assert "samples.jsonl, line 8, is damaged" in capsys.readouterr().err
    lines.unlink()
    assert main(report) == 2
    assert "samples.jsonl is missing" in capsys.readouterr().err
    lines.write_bytes(whole)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(info | {"finished": False}))
    assert main(report) == 2
    assert "not finished" in capsys.readouterr().err
