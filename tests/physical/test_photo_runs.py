"""A sticker on photographs as a run: the command, its page, interrupted and resumed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab.base.pictures import to_picture
from robustlab.cli import main
from robustlab.physical.folder import StickerRun
from robustlab.physical.photo import PhotoSticker
from robustlab.physical.sticker import seen
from robustlab.worlds.road_signs import CLASSES, draw, faces

CNN = "road-signs/cnn"
CORNERS = "16,16 80,16 80,80 16,80"
STOP = ["--suite", "quick.toml", "--source", "stop", "--corners", CORNERS, "--limit", "8"]
QUICK = [*STOP, "--target", "yield", "--face"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "quick.toml").write_text('[sticker]\nmask = "bars"\nsteps = 30\nscenes = 4\n')
    (folder / "frames").mkdir()
    stop = CLASSES.index("stop")
    scenes = draw(0, "photographs", torch.arange(5), stop).override(distance=6.0, yaw=0.0, occlusion=0.0, light=0.6)
    for at, image in enumerate(seen(faces()[stop], scenes, 96)):
        to_picture(image).save(folder / "frames" / f"{at}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["attack", CNN, "road-signs/cnn-robust", *QUICK, "frames", "--output", "run"]) == 0
        yield folder


def sections(folder: Path) -> dict[str, Any]:
    return {section["name"]: section for section in json.loads((folder / "run.json").read_text())["sections"]}


def test_what_a_run_holds(place: Path) -> None:
    found = sections(place / "run")
    assert list(found) == ["fit", "success"]
    assert (found["fit"]["rows"][0]["fitted"], found["fit"]["rows"][0]["judged"]) == (3, 2)
    rows = found["success"]["rows"]
    assert [row["sticker"] for row in rows] == 2 * ["sticker", "grey", "random", "black and white"]
    assert all(row["clean"]["n"] == 8 and row["still_success"]["n"] <= 2 for row in rows)
    assert PhotoSticker.load(place / "run" / "stickers" / "sticker.safetensors").target == CLASSES.index("yield")
    page = (place / "run" / "report.html").read_text()
    assert "The sticker on photographs" in page and "read as yield" in page and "Further sections" not in page


def test_its_sticker_is_printed(place: Path) -> None:
    assert main(["print", "run", "--width", "0.2", "--output", "paper"]) == 0
    assert (place / "paper" / "sticker.pdf").read_bytes().startswith(b"%PDF")


def test_one_photograph_is_judged_under_other_cameras(place: Path) -> None:
    assert main(["attack", CNN, *STOP, "--target", "any", "--face", "frames/0.png", "--output", "one"]) == 0
    note = sections(place / "one")["success"]["note"]
    assert "The fit has seen the same photograph" in note


def test_interrupted_in_the_fit_and_resumed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["attack", CNN, "road-signs/cnn-robust", *QUICK, "frames"]
    write = StickerRun.write_state

    def interrupted(self: StickerRun, name: str, data: bytes) -> None:
        write(self, name, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StickerRun, "write_state", interrupted)
        assert main([*arguments, "--output", "stopped"]) == 130
    assert main([*arguments, "--output", "stopped", "--resume"]) == 0
    assert sections(place / "run") == sections(place / "stopped")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "quick.toml", "--face", "frames"], "--face needs --corners: four corners"),
        (["--suite", "quick.toml", "--corners", CORNERS], "give the photograph, too"),
        (["--suite", "quick.toml", "--corners", CORNERS, "--face", "frames"], "needs --source"),
        (["--suite", "quick.toml", "--corners", CORNERS, "--face", "frames", "--source", "stop"], "needs --target"),
        ([*STOP, "--target", "stop", "--face", "frames"], "Give another target"),
        ([*STOP, "--target", "yeild", "--face", "frames"], "Did you mean 'yield'?"),
        ([*STOP, "--target", "99", "--face", "frames"], "numbered from 0 to 15"),
        ([*QUICK, "frames", "--eps", "1"], "leave the other flags out"),
        ([*QUICK, "quick.toml"], "quick.toml"),
        ([*QUICK, "nowhere.png"], "nowhere.png"),
        ([*QUICK, "frames", "--corners", "16,16 80,80 80,16 16,80"], "cross"),
        ([*QUICK, "frames", "--corners", "16,16 800,16 80,80 16,80"], "outside"),
        (["--face", "frames"], "give --suite sticker, too"),
    ],
)
def test_bad_input(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    if arguments.count("--corners") == 2:
        at = arguments.index("--corners")
        arguments = arguments[:at] + arguments[at + 2 :]
    assert main(["attack", CNN, *arguments, "--output", "bad"]) == 2
    assert message in capsys.readouterr().err
    assert not (place / "bad").exists()
