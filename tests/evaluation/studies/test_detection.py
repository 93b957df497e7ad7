"""Detectors in a run: their rows, the attackers against each other, controls, kill and go on, two processes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustlab.base.errors import UserError
from robustlab.defenses.detectors import DETECTORS
from robustlab.evaluation.detecting import noise
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.reporting import report, terminal_table
from robustlab.runs import read_run, results
from robustlab.runs.detections import ATTACKERS, RANDOM, detections
from robustlab.threat.geometry import distance
from robustlab.verification import verify

PROGRAM = """
import os, signal, sys
import torch
from torch import nn
from robustlab.attacks.suite import load_suite
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.studies import detection
from robustlab.evaluation.studies.detection import Detection

detection.STEPS = 10
work = Detection.work

def dying(self, part):
    if part == os.environ.get("DIE_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    return work(self, part)

Detection.work = dying


def case():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    net[3].weight.data *= 12
    x = torch.rand(72, 1, 8, 8)
    with torch.no_grad():
        y = net(x).argmax(1)
    y[::9] = (y[::9] + 1) % 3  # some are classified wrong
    return net, x, y


def main(output, resume=False):
    net, x, y = case()
    suite = load_suite(attacks=["pgd:steps=10"], eps="8/255")
    evaluate({"net": net}, (x, y), suite, output=output, resume=resume, audit=0, keep=0, curve=[], chunk_size=36,
             detector=["confidence", "energy", "feature-squeezing"], save_adversarial=True,
             listener=Listener(say=lambda text: print(text, file=sys.stderr)))


if __name__ == "__main__":
    main(sys.argv[1])
"""
QUIET = Listener(say=lambda text: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the program, and a finished run of it in `plain`."""
    folder = tmp_path_factory.mktemp("detection")
    (folder / "detecting_toy.py").write_text(PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        importlib.import_module("detecting_toy").main("plain")
        yield folder


def found(folder: Path) -> dict[str, Any]:
    section = detections(json.loads((folder / "run.json").read_text()))
    assert section is not None
    return section


def test_its_rows(place: Path) -> None:
    """One for each detector and attacker, and the attacker who knows is the one to fear."""
    rows = {(row["detector"], row["attacker"]): row for row in found(place / "plain")["rows"]}
    assert set(rows) == {(d, a) for d in DETECTORS for a in ATTACKERS} | {(RANDOM, "every")}
    for detector in DETECTORS:
        first, every, aware, noisy = (rows[detector, attacker] for attacker in ATTACKERS)
        assert aware["auroc"]["value"] <= min(first["auroc"]["value"], every["auroc"]["value"]) + 1e-9
        assert aware["unnoticed"]["value"] >= max(first["unnoticed"]["value"], every["unnoticed"]["value"])
        assert all(row["unnoticed"]["value"] <= row["wrong"]["value"] for row in (first, every, aware, noisy))
        assert first["unnoticed"]["n"] == first["wrong"]["n"] == 72 and first["fpr"]["n"] == 32
        assert noisy["tpr"]["n"] == 64 and noisy["wrong"]["value"] < first["wrong"]["value"]
        assert first["wrong"]["value"] == pytest.approx((8 + first["tpr"]["n"]) / 72)  # 8 are wrong without an attack
    control = rows[RANDOM, "every"]["auroc"]
    assert control["low"] < 0.5 < control["high"]
    assert rows["confidence", "first"]["auroc"]["value"] > rows["confidence", "every"]["auroc"]["value"]


def test_it_is_on_the_page_in_the_terminal_and_in_the_json(place: Path) -> None:
    run = read_run(place / "plain")
    page = report([run.folder], place / "page.html").read_text()
    said = results(run)
    assert 'id="detectors"' in page and "feature-squeezing" in page and "knows the detector" in page
    assert "Further sections" not in page
    assert said["detectors"]["attack"] == "pgd" and len(said["detectors"]["rows"]) == 13
    for width in (60, 100, 200):
        table = terminal_table(said, width)
        assert "detectors at 5" in table and "random score" in table
        assert max(map(len, table.splitlines())) <= max(width, 62)


def test_verify_takes_it_as_stored(place: Path) -> None:
    net, x, y = importlib.import_module("detecting_toy").case()
    again = verify(place / "plain", models={"net": net}, data=(x, y))
    assert again.disagreements == 0 and "sections detectors" in again.taken


def test_it_goes_on_after_kill_9(place: Path) -> None:
    died = subprocess.run([sys.executable, "detecting_toy.py", "killed"], env={**os.environ, "DIE_AT": "net 1"})
    assert died.returncode == -9
    importlib.import_module("detecting_toy").main("killed", resume=True)
    assert found(place / "killed") == found(place / "plain")


@pytest.mark.slow
def test_two_processes_share_it(place: Path) -> None:
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run([sys.executable, *several, "detecting_toy.py", "two"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert found(place / "two") == found(place / "plain")


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_noise_is_inside_the_ball_and_keyed(norm: str) -> None:
    x, ids, eps = torch.rand(6, 3, 5, 5), torch.arange(6), {"linf": 0.1, "l2": 0.8, "l1": 5.0}[norm]
    noisy = noise(x, norm, eps, 0, ids)
    size = distance(noisy - x, norm)
    assert bool((size <= eps + 1e-5).all()) and bool((size > 0.6 * eps).all())
    assert noisy.min() >= 0 and noisy.max() <= 1
    assert torch.equal(noise(x[3:], norm, eps, 0, ids[3:]), noisy[3:])
    assert not torch.equal(noise(x, norm, eps, 1, ids), noisy)


class Noisy(nn.Module):
    """Answers differently each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :3] + torch.randn(len(x), 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"detector": ["enrgy"]}, "Did you mean 'energy'"),
        ({"detector": "energy"}, "must be a list"),
        ({"detector": ["energy", "energy"]}, "given twice"),
        ({"detector": ["energy:temperature=-1"]}, "larger than 0"),
        ({"detector": ["feature-squeezing:window=9"]}, "at most as wide as the image"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    pair = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    with pytest.raises(UserError, match=said):
        evaluate({"net": net}, pair, "fgsm", output=tmp_path / "run", listener=QUIET, **options)
    assert not (tmp_path / "run").exists()


def test_what_it_cannot_judge(tmp_path: Path) -> None:
    net, pair = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0]))
    given = {"output": tmp_path / "run", "detector": ["energy"], "listener": QUIET}
    with pytest.raises(UserError, match="answer the same each time"):
        evaluate({"noisy": Noisy()}, pair, "fgsm", **given)
    with pytest.raises(UserError, match="leave the surrogates out"):
        evaluate(
            {"net": net}, pair, "fgsm", surrogate={"other": nn.Sequential(nn.Flatten(), nn.Linear(16, 3))}, **given
        )
    assert not (tmp_path / "run").exists()
