"""A patch as a run: the command, its page, interrupted and resumed, two processes, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab import load_data, load_model
from robustlab.base.cards import convert
from robustlab.cli import main
from robustlab.cli.fitted import fitted_card
from robustlab.evaluation.listener import Listener
from robustlab.physical import Patch, PatchAttack
from robustlab.physical.evaluate_patch import evaluate_patch
from robustlab.physical.folder import StickerRun
from robustlab.physical.running import in_words
from robustlab.reporting import report

CNN = "road-signs/cnn"
QUICK = ["--suite", "quick.toml", "--target", "yield", "--limit", "12"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("patches")
    (folder / "quick.toml").write_text("[patch]\nsteps = 30\nbatch = 8\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["attack", CNN, "road-signs/cnn-robust", *QUICK, "--output", "run"]) == 0
        yield folder


def sections(folder: Path) -> dict[str, Any]:
    return {section["name"]: section for section in json.loads((folder / "run.json").read_text())["sections"]}


def test_the_shipped_card_is_a_patch() -> None:
    kind, table = fitted_card("patch") or ("", {})
    assert kind == "patch" and convert({**table, "target": 3}, PatchAttack, "patch").share == 0.1


def test_what_a_run_holds(place: Path) -> None:
    found = sections(place / "run")
    assert list(found) == ["fit", "success", "by size", "by place", "heat"]
    heat = {row["patch"]: row for row in found["heat"]["rows"]}
    assert list(heat) == ["bare image", "patch", "random"] and (place / "run" / "images" / "heat.png").exists()
    assert heat["patch"]["area"]["value"] == pytest.approx(0.1, abs=0.05) and heat["patch"]["heat"]["n"] <= 12
    rows = found["success"]["rows"]
    names = [row["patch"] for row in rows[:5]]
    assert names[:4] == ["patch", "grey", "random", "black and white"] and names[4].startswith("picture of the target")
    assert all(row["clean"]["n"] == 12 and row["success"]["n"] <= 12 for row in rows) and len(rows) == 10
    assert [row["share"] for row in found["by size"]["rows"][:5]] == pytest.approx([0.025, 0.05, 0.1, 0.15, 0.2])
    assert len(found["by place"]["rows"]) == 2 * 9
    fitted = next(row for row in found["by size"]["rows"] if row["share"] == pytest.approx(0.1))
    assert fitted["success"] == rows[0]["success"]  # the same patch in the same places
    assert Patch.load(place / "run" / "patches" / "patch.safetensors").share == 0.1
    assert not (place / "run" / "parts").exists()
    assert len(json.loads((place / "run" / "run.json").read_text())["losses"]["patch"]) == 30


def test_the_page(place: Path) -> None:
    page = (place / "run" / "report.html").read_text()
    assert "read as yield" in page and "By place: road-signs/cnn-robust" in page and "in the middle" in page
    assert "Further sections" not in page and "Area of the patch" in page


@pytest.mark.browser
def test_the_page_has_no_barriers(place: Path, barriers: Callable[[Path], list[str]]) -> None:
    assert barriers(place / "run" / "report.html") == []


def test_a_model_of_a_training_is_called_by_its_folder(place: Path) -> None:
    """In the rows and the notes of the page as elsewhere, and in the printed sentences."""
    train, test = (load_data("road-signs", split, limit=8) for split in ("train", "test"))
    quick, quiet = PatchAttack(target="yield", steps=1), Listener(say=lambda text: None)
    models = {"/somewhere/mine/model.toml": load_model(CNN)}
    run = evaluate_patch(models, train, test, quick, output=place / "named", listener=quiet)
    assert in_words(run, "patch", "images")[0].startswith("mine: ")
    page = report([run.folder], run.folder / "report.html").read_text().split('id="provenance"')[0]
    assert "<td>mine</td>" in page and "fitted on mine" in page and "fitted on this model" in page
    assert "model.toml" not in page and "somewhere" not in page


@pytest.mark.slow  # the sticker has the same test, of the same checkpoints
def test_interrupted_in_the_fit_and_resumed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["attack", CNN, *QUICK]
    assert main([*arguments, "--output", "whole"]) == 0
    write = StickerRun.write_state

    def interrupted(self: StickerRun, name: str, data: bytes) -> None:
        write(self, name, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StickerRun, "write_state", interrupted)
        assert main([*arguments, "--output", "stopped"]) == 130
    assert main([*arguments, "--output", "stopped", "--resume"]) == 0
    whole, resumed = (Patch.load(place / name / "patches" / "patch.safetensors") for name in ("whole", "stopped"))
    assert torch.equal(whole.texture, resumed.texture)
    assert sections(place / "whole") == sections(place / "stopped")
    losses = [json.loads((place / name / "run.json").read_text())["losses"] for name in ("whole", "stopped")]
    assert losses[0]["patch"] == pytest.approx(losses[1]["patch"])


def test_json_and_exit_code(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    any_target = ["--suite", "quick.toml", "--target", "any", "--limit", "6"]
    assert main(["attack", CNN, *any_target, "--output", "any", "--json", "--fail-under", "1"]) in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert told["results"][0]["success"] == told["results"][0]["misread"] and len(told["by_place"]) == 9


@pytest.mark.slow
def test_two_processes_make_the_same_run(place: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "robustlab"]
    subprocess.run([*command, "attack", CNN, "road-signs/cnn-robust", *QUICK, "--output", "two"], check=True, cwd=place)
    assert sections(place / "two")["success"]["rows"] == sections(place / "run")["success"]["rows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "quick.toml"], "needs --target: any, or a class of road-signs: "),
        (["--suite", "quick.toml", "--target", "yeild"], "There is no class 'yeild'. Did you mean 'yield'?"),
        (["--suite", "quick.toml", "--target", "99"], "There is no class 99: they are numbered from 0 to 15."),
        ([*QUICK, "--source", "stop"], "leave the other flags out"),
        ([*QUICK, "--eps", "0.1"], "leave the other flags out"),
        (["--suite", "large.toml", "--target", "yield"], "does not fit into the image"),
        (["--suite", "odd.toml", "--target", "yield"], "how, not what"),
        (["--suite", "wrong.toml", "--target", "yield"], "shape"),
    ],
)
def test_bad_input(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    (place / "large.toml").write_text("[patch]\nshare = 0.9\n")
    (place / "odd.toml").write_text("[patch]\ntarget = 3\n")
    (place / "wrong.toml").write_text('[patch]\nshape = "heart"\n')
    assert main(["attack", CNN, *arguments, "--output", "bad"]) == 2
    assert message in capsys.readouterr().err
    assert not (place / "bad").exists()
