"""A sticker as a run: the command, its page, kill -9 and resume, two processes, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab.base.cards import convert
from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.cli.fitted import fitted_card
from robustlab.evaluation.listener import Listener
from robustlab.physical import RP2, Sticker
from robustlab.physical.evaluate import evaluate_sticker
from robustlab.physical.folder import StickerRun
from robustlab.runs import read_run

CNN = "road-signs/cnn"
CARD = '[sticker]\nmask = "search"\nsteps = 30\nscenes = 4\n'
QUICK = ["--suite", "quick.toml", "--limit", "10"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("stickers")
    (folder / "quick.toml").write_text(CARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["attack", CNN, "road-signs/cnn-robust", *QUICK, "--output", "run"]) == 0
        yield folder


def sections(folder: Path) -> dict[str, Any]:
    return {section["name"]: section for section in json.loads((folder / "run.json").read_text())["sections"]}


@pytest.mark.parametrize("name", ["sticker", "sticker-poster"])
def test_every_shipped_card_is_a_sticker(name: str) -> None:
    kind, table = fitted_card(name) or ("", {})
    assert kind == "sticker" and convert(table, RP2, name).steps == 300


def test_what_a_run_holds(place: Path) -> None:
    found = sections(place / "run")
    assert list(found) == ["fit", "success", "grid", "cells of the paper", "drive-by", "heat"]
    fit = found["fit"]["rows"][0]
    assert 0.1 < fit["share"] <= 0.2 and fit["images"] == (3 * (15 + 6) + 30) * 4
    rows = found["success"]["rows"]
    assert [row["sticker"] for row in rows] == 2 * ["sticker", "one scene", "grey", "random", "black and white"]
    assert all(row["clean"]["n"] == 10 and row["success"]["n"] <= 10 for row in rows)
    assert len(found["grid"]["rows"]) == 2 * 8 * 5 and len(found["drive-by"]["rows"]) == 2
    heat = found["heat"]["rows"]
    assert [row["sticker"] for row in heat] == ["bare sign", "sticker", "random"]
    assert all(0 < row["area"]["value"] < 0.2 and 0 < row["heat"]["value"] < 1 for row in heat)
    assert (place / "run" / "images" / "heat.png").exists()
    sticker = Sticker.load(place / "run" / "stickers" / "sticker.safetensors")
    assert sticker.source == "stop" and sticker.target == "speed limit 45"
    assert not (place / "run" / "parts").exists() and (place / "run" / "images" / "sheet.png").exists()


def test_the_page(place: Path) -> None:
    page = (place / "run" / "report.html").read_text()
    assert "with the sticker a stop sign is read as speed limit 45" in page
    assert "By distance and angle: road-signs/cnn-robust" in page and "Drive-by: road-signs/cnn" in page
    assert "cells of the paper" in page and page.count('<i class="') >= 2 * 75
    assert (
        "Where the model looks: road-signs/cnn" in page
        and "Signs and their heat" in page
        and "Further sections" in page
    )


def test_tables_and_a_figure_of_several_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (place / "copy").exists():
        shutil.copytree(place / "run", place / "copy")
    capsys.readouterr()
    assert main(["table", "run", "copy", "success", "--format", "csv"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("run,model,sticker,clean") and len(lines) == 1 + 2 * 10
    first = sections(place / "run")["success"]["rows"][0]["clean"]
    assert f",{first['value']},{first['low']},{first['high']},{first['n']}," in lines[1]
    assert main(["table", "run", "grid"]) == 0 and "60" in capsys.readouterr().out
    assert main(["table", "run", "by-size"]) == 2 and "It has: success, grid" in capsys.readouterr().err
    assert main(["plot", "run", "copy", "distance", "--output", "distance.svg"]) == 0
    assert "straight on" in (place / "distance.svg").read_text()
    assert main(["report", "run", "copy", "--output", "both.html"]) == 0
    assert (place / "both.html").read_text().count("with the sticker a stop sign is read as") == 4


def test_the_sticker_of_a_run_is_printed(place: Path) -> None:
    assert main(["print", "run", "--output", "paper"]) == 0
    assert (place / "paper" / "sticker.pdf").read_bytes().startswith(b"%PDF")


def test_json_and_exit_code(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "poster.toml").write_text('[sticker]\nmask = "poster"\nsteps = 10\nscenes = 8\n')
    quick = ["--suite", "poster.toml", "--limit", "5"]
    assert main(["attack", CNN, *quick, "--target", "any", "--output", "any", "--json", "--fail-under", "1"]) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["results"][0]["sticker"] == "sticker" and len(told["grid"]) == 40
    assert told["results"][0]["success"] == told["results"][0]["misread"]  # without a target any other class counts
    assert "the sticker fails in" in err and "Page: " in err


def test_interrupted_in_the_fit_and_resumed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "short.toml").write_text('[sticker]\nmask = "bars"\nsteps = 30\nscenes = 2\n')
    arguments = ["attack", CNN, "--suite", "short.toml", "--limit", "2"]
    assert main([*arguments, "--output", "short"]) == 0
    write = StickerRun.write_state

    def interrupted(self: StickerRun, name: str, data: bytes) -> None:
        write(self, name, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StickerRun, "write_state", interrupted)
        assert main([*arguments, "--output", "stopped"]) == 130
    assert len(list((place / "stopped" / "parts").glob("*.safetensors"))) == 1
    watched: list[int] = []
    fitted = RP2.fit

    def counted(self: RP2, model: Any, size: int, seed: int, state: Any, watch: Any) -> Sticker:
        return fitted(self, model, size, seed, state, lambda step, *rest: (watched.append(step), watch(step, *rest)))

    monkeypatch.setattr(RP2, "fit", counted)
    assert main([*arguments, "--output", "stopped", "--resume"]) == 0
    assert watched == [25, 26, 27, 28, 29]  # it went on after the checkpoint
    assert sections(place / "stopped") == sections(place / "short")
    name = "stickers/sticker.safetensors"
    assert (place / "stopped" / name).read_bytes() == (place / "short" / name).read_bytes()


@pytest.mark.slow
def test_several_fits_in_a_run(place: Path) -> None:
    """Each seed is fitted as a run of that seed would; the mean and the spread follow from the rows."""
    attack, quiet = RP2(mask="bars", steps=26, scenes=2), Listener(say=lambda text: None)

    def of(name: str, **given: Any) -> Path:
        return evaluate_sticker(CNN, attack, n=20, output=place / name, listener=quiet, **given).folder

    two, second = of("two seeds", seeds=2), of("second seed", seed=1)
    one, other, mean = sections(two)["seeds"]["rows"]
    assert (one["seed"], other["seed"], mean["seed"]) == (0, 1, "mean")
    assert one["success"] == sections(two)["success"]["rows"][0]["success"]
    found = Sticker.load(two / "stickers" / "sticker-seed-1.safetensors")
    assert torch.equal(found.texture, Sticker.load(second / "stickers" / "sticker.safetensors").texture)
    for key in ("success", "misread", "near_success"):
        assert mean[key]["value"] == pytest.approx((one[key]["value"] + other[key]["value"]) / 2)
    difference = abs(one["near_success"]["value"] - other["near_success"]["value"])
    assert mean["spread"] == pytest.approx(100 * difference / 2**0.5, abs=0.06)
    assert "seeds" not in sections(second)  # one fit has no spread
    with pytest.raises(UserError, match="seeds must be at least 1"):
        of("none", seeds=0)


@pytest.mark.slow  # the same with a real kill, in the second fit of a search
def test_killed_in_the_fit_and_resumed(place: Path) -> None:
    """After its second checkpoint; it goes on there, and ends with the same sticker and the same numbers."""
    program = (
        "import os, signal, sys\n"
        "from robustlab.physical.folder import StickerRun\n"
        "from robustlab.cli import main\n"
        "write, count = StickerRun.write_state, []\n"
        "def once_more(self, name, data):\n"
        "    write(self, name, data)\n"
        "    count.append(name)\n"
        "    if len(count) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "StickerRun.write_state = once_more\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["attack", CNN, "road-signs/cnn-robust", *QUICK, "--output", "killed"]
    died = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)
    assert died.returncode == -signal.SIGKILL and list((place / "killed" / "parts").glob("fit*")) == []
    assert main([*arguments, "--resume"]) == 0
    for name in ("stickers/sticker.safetensors", "images/sheet.png"):
        assert (place / "killed" / name).read_bytes() == (place / "run" / name).read_bytes()
    found, wanted = sections(place / "killed"), sections(place / "run")
    assert found == wanted


@pytest.mark.slow
def test_two_processes_share_the_judging(place: Path) -> None:
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "robustlab"]
    arguments = ["attack", CNN, "road-signs/cnn-robust", *QUICK, "--output", "two"]
    done = subprocess.run([sys.executable, *several, *arguments], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert sections(place / "two") == sections(place / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "stopp"], "There is no sign 'stopp'"),
        (["--target", "stop"], "The target is the sign itself"),
        (["--eps", "8/255"], "leave the other flags out"),
        (["--limit", "all"], "there is no end of scenes"),
        (["--ids", "3"], "leave the other flags out"),
    ],
)
def test_refused(place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", CNN, "--suite", "quick.toml", *arguments, "--output", "none"]) == 2
    assert message in capsys.readouterr().err and not (place / "none").exists()


def test_other_runs_are_kept_apart(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", CNN, "--source", "stop"]) == 2 and "give --suite sticker" in capsys.readouterr().err
    attack = ["attack", CNN, "--attack", "fgsm", "--limit", "5", "--audit", "0", "--output", "run", "--overwrite"]
    assert main(attack) == 2 and "--suite sticker (or patch)" in capsys.readouterr().err
    assert main(["verify", "run"]) == 2 and "physical" in capsys.readouterr().err
    assert main(["table", "run", "attacks"]) == 2
    assert read_run("run").info["kind"] == "physical"


def test_a_model_that_knows_no_signs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 16))\n"
    )
    assert main(["attack", "net.py:make", *QUICK, "--output", "none"]) == 2
    assert "does not know the signs of the rendered world" in capsys.readouterr().err
