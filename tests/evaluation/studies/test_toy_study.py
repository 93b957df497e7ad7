"""A study of one's own, in one file: its section is on the page, it survives kill -9, and two processes share it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robustlab.reporting import report

PROGRAM = '''
import os, signal, sys
import torch
from torch import nn
from robustlab.base.intervals import share
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.studies.base import Study
from robustlab.oracle import ask


class Brightness(Study):
    """How many answers stay as they are when all images become brighter?"""

    name = "brightness"

    def parts(self):
        return [f"{task.name} {tenths}" for task in self.job.tasks for tenths in (1, 3, 5, 7)]

    def work(self, part):
        with open("worked.txt", "a") as file:
            file.write(f"{os.environ.get('RANK', '0')} {part}\\n")
        if part == os.environ.get("DIE_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        name, tenths = part.rsplit(" ", 1)
        task = next(task for task in self.job.tasks if task.name == name)
        x = task.data.loaded().images
        brighter = (x + int(tenths) / 10).clamp(max=1)
        with torch.no_grad():
            same = ask(task.model, x).argmax(1) == ask(task.model, brighter).argmax(1)
        return {"same": int(same.sum()), "n": len(x)}

    def section(self, done):
        rows = [{"part": part, "same": share(value["same"], value["n"])} for part, value in done.items()]
        columns = [{"key": "part", "label": "Model and tenths"}, {"key": "same", "label": "Same answer"}]
        return {"columns": columns, "rows": rows, "n": len(self.job.plan.data), "interval": "95 % Wilson"}


class Fragile(nn.Module):
    """Cannot take images that are bright everywhere."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))

    def forward(self, x):
        if "FRAGILE" in os.environ and x.mean() > 0.9:
            raise ValueError("too bright")
        return self.net(x)


def main(output, resume=False):
    torch.manual_seed(0)
    x, y = torch.rand(40, 3, 2, 2), torch.arange(40) % 3
    models = {"one": Fragile(), "two": nn.Sequential(nn.Flatten(), nn.Linear(12, 3))}
    evaluate(models, (x, y), "fgsm", output=output, resume=resume, studies=[Brightness], audit=0, keep=0, curve=[],
             chunk_size=10, listener=Listener(say=lambda text: print(text, file=sys.stderr)))


if __name__ == "__main__":
    main(sys.argv[1])
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the program, and a finished run of it in `plain`."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.py").write_text(PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        importlib.import_module("toy").main("plain")
        yield folder


@pytest.fixture
def worked(place: Path) -> Iterator[Path]:
    """Where the program writes which process did which part."""
    (place / "worked.txt").unlink(missing_ok=True)
    yield place / "worked.txt"


def found(folder: Path) -> dict[str, Any]:
    (section,) = json.loads((folder / "run.json").read_text())["sections"]
    return section


def test_its_section_is_in_the_run_and_on_the_page(place: Path) -> None:
    section = found(place / "plain")
    assert (section["name"], section["n"], len(section["rows"])) == ("brightness", 40, 8)
    assert section["rows"][0]["same"]["n"] == 40 and "note" not in section
    page = report([place / "plain"], place / "page.html").read_text()
    assert "Model and tenths" in page and "one 7" in page


def test_it_goes_on_after_kill_9(place: Path, worked: Path) -> None:
    died = subprocess.run([sys.executable, "toy.py", "killed"], env={**os.environ, "DIE_AT": "one 5"})
    assert died.returncode == -signal.SIGKILL
    importlib.import_module("toy").main("killed", resume=True)
    assert found(place / "killed") == found(place / "plain")
    done = [line.split(" ", 1)[1] for line in worked.read_text().splitlines()]
    assert sorted(done) == sorted([*(row["part"] for row in found(place / "plain")["rows"]), "one 5"])


def test_two_processes_share_it(place: Path, worked: Path) -> None:
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run([sys.executable, *several, "toy.py", "two"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert found(place / "two") == found(place / "plain")
    lines = [(place / name / "samples.jsonl").read_bytes() for name in ("two", "plain")]
    assert lines[0] == lines[1] and lines[0].count(b"\n") > 2 * 40
    done = [line.split(" ", 1) for line in worked.read_text().splitlines()]
    assert sorted(part for _, part in done) == sorted(row["part"] for row in found(place / "plain")["rows"])
    assert {rank for rank, _ in done} == {"0", "1"}


def test_what_a_model_raises_costs_its_part_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAGILE", "1")
    importlib.import_module("toy").main("fragile")
    section = found(place / "fragile")
    assert [row["part"] for row in section["rows"]] == ["one 1", "one 3", "one 5", *(f"two {k}" for k in (1, 3, 5, 7))]
    assert section["note"] == "Not run: one 7 (ValueError: too bright)."
    assert "Warning: brightness, one 7 was not finished: ValueError: too bright" in capsys.readouterr().err
