"""`verify` runs no code on the word of run.json, however that names it."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.models import load_model
from robustlab.verification import verify

GOOD = """
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
"""
EVIL = "raise SystemExit('it was run')\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.py, data.npz and a run of the two."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "model.py").write_text(GOOD)
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", test_images=images, test_labels=np.arange(9) % 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        args = ["--suite", "fgsm", "--data", "npz:data.npz", "--audit", "0", "--no-curve", "--quiet"]
        assert main(["attack", "model.py:net", *args, "--output", "run", "--save-adversarial"]) == 0
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def card(architecture: str, **more: object) -> str:
    lines = [f"architecture = {json.dumps(architecture)}", "classes = 3", "shape = [3, 4, 4]"]
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in more.items())])


def _exported(path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
    torch.export.save(torch.export.export(net, (torch.rand(1, 3, 4, 4),)), path)


def _link(place: Path, name: str, target: str) -> str:
    (place / name).symlink_to(target)
    return name


# how run.json names code -> a function that puts it there and returns the name
NAMES: dict[str, Callable[[Path], str]] = {
    "inside": lambda place: "run/evil.py:net",
    "absolute": lambda place: f"{place}/run/evil.py:net",
    "beside, as the run's own": lambda place: "evil.py:net",
    "parent": lambda place: "run/../evil.py:net",
    "through a link": lambda place: _link(place, "plain.py", "run/evil.py") + ":net",
    "through a linked folder": lambda place: _link(place, "elsewhere", "run") + "/evil.py:net",
    "of Python itself": lambda place: "/usr/lib/python3/dist-packages/evil.py:main",
    "exported": lambda place: "run/evil.pt2",
    "exported, beside": lambda place: "evil.pt2",
    "card inside": lambda place: "run/inside.toml",
    "card to the outside": lambda place: "run/outside.toml",
    "card, absolute": lambda place: "run/absolute.toml",
    "card, exported": lambda place: "run/exported.toml",
    "card beside": lambda place: "beside.toml",
    "card through a link": lambda place: _link(place, "link.toml", "run/inside.toml"),
}


@pytest.mark.parametrize("how", NAMES)
def test_code_that_run_json_names_is_not_run(how: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (place, place / "run"):
        (folder / "evil.py").write_text(EVIL)
        _exported(folder / "evil.pt2")
    (place / "run" / "inside.toml").write_text(card("evil.py:net"))
    (place / "run" / "outside.toml").write_text(card("../evil.py:net"))
    (place / "run" / "absolute.toml").write_text(card(f"{place}/evil.py:net"))
    (place / "run" / "exported.toml").write_text(card("evil.pt2"))
    (place / "beside.toml").write_text(card("run/evil.py:net"))
    name = NAMES[how](place)
    rename(place, name)
    assert main(["verify", "run"]) == 2
    err = capsys.readouterr().err
    assert "loading it runs that" in err and f"add --run-code; for this model only: --model model.py:net={name}" in err


NO_MODELS = [
    "run/evil.PY:net",
    "run/evil.Pt2",
    "run/evil.py",
    "evil",
    "evil:net",
    "os:getcwd",
    "run/evil.py:net:net",
    "",
]


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_no_loader_takes_for_code_is_no_model(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("evil.PY", "evil.Pt2", "evil.py", "evil"):
        (place / "run" / file).write_text(EVIL)
    rename(place, name)
    assert main(["verify", "run"]) == 2
    assert "cannot be loaded again" in capsys.readouterr().err


def test_who_trusts_it_says_so(place: Path) -> None:
    assert main(["verify", "run"]) == 2
    assert main(["verify", "run", "--model", "model.py:net=model.py:net"]) == 0
    assert main(["verify", "run", "--run-code"]) == 0
    with pytest.raises(UserError, match="loading it runs that"):
        verify("run")
    assert verify("run", run_code=True).disagreements == 0


def test_a_card_without_code_is_loaded_from_anywhere(place: Path) -> None:
    with pytest.raises(UserError, match="needs|lacks|no weights"):
        (place / "run" / "plain.toml").write_text(card("cnn", weights="none.safetensors"))
        load_model("run/plain.toml", run_code=False)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (EVIL,)


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Evil()))


def _saved(path: Path) -> None:
    torch.save({"state_dict": _Evil()}, path)


def _npz(path: Path) -> None:
    np.savez(path, test_images=np.array([_Evil()], dtype=object), test_labels=np.arange(1))


@pytest.mark.parametrize("write", [_pickled, _saved, _exported], ids=["pickle", "torch.save", "exported"])
@pytest.mark.parametrize("suffix", [".pth", ".pt2", ".bin", ".safetensors"])
def test_weights_that_run_json_names_run_nothing(
    write: Callable[[Path], None], suffix: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place / "run" / f"w{suffix}"
    write(path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)
    for named in (["verify", "run", "--model", "model.py:net=model.py:net"], ["verify", "run", "--run-code"]):
        edit(place, weights=f"run/w{suffix}")
        assert main(named) == 2
        assert "cannot be loaded again" in capsys.readouterr().err


def test_data_that_run_json_names_run_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _npz(place / "run" / "d.npz")
    path = place / "run" / "run.json"
    info = json.loads(path.read_text())
    info["data"]["source"]["name"] = "npz:run/d.npz"
    path.write_text(json.dumps(info))
    assert main(["verify", "run", "--run-code"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert zipfile.is_zipfile(place / "run" / "d.npz")


def rename(place: Path, name: str) -> None:
    edit(place, name=name)


def edit(place: Path, **source: object) -> None:
    path = place / "run" / "run.json"
    info = json.loads(path.read_text())
    info["models"][0]["source"].update(source)
    path.write_text(json.dumps(info))
