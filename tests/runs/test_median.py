"""The median of an attack on the distance is over all that it found, and every place that shows it says of how many."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
import torch
from torch import nn

import robustlab
from robustlab.attacks.suite import load_suite
from robustlab.evaluation.listener import Listener
from robustlab.reporting import report, terminal_table
from robustlab.reporting.source import PageRun
from robustlab.reporting.tables import written
from robustlab.runs import read_run, results

EPS, N = 0.05, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear net under PGD, then FAB-T, whose boundary is too far away for most images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).requires_grad_(False)
        x = 0.3 + 0.4 * torch.rand(N, 3, 4, 4)
    folder = tmp_path_factory.mktemp("median") / "run"
    suite = load_suite(attacks=["pgd:steps=2", "fab-t:steps=20"], norm="l2", eps=EPS)
    given = {"output": folder, "audit": 0, "listener": Listener(say=lambda text: None)}
    robustlab.evaluate({"net": net}, (x, net(x).argmax(1)), suite, **given)
    return folder


def test_the_median_is_over_all_that_was_found(folder: Path) -> None:
    stored = read_run(folder)
    pgd, fab = stored.info["aggregates"]["models"][0]["attacks"]
    lines = [line for line in stored.lines if line.attack == "fab-t" and line.adv != line.label]
    sizes = [line.l2 for line in lines if line.l2 is not None]
    assert fab["broken"] < fab["found"] == len(sizes) == fab["attempted"]
    assert fab["median_distance"] == median(sizes) > EPS
    assert pgd["found"] == pgd["broken"] and pgd["median_distance"] <= EPS + 1e-6  # PGD's failures have no distance


def test_every_place_says_of_how_many(folder: Path) -> None:
    stored = read_run(folder)
    fab = stored.info["aggregates"]["models"][0]["attacks"][1]
    found, middle = fab["found"], f"{fab['median_distance']:.3g}"
    page, run = report([folder], folder / "page.html").read_text(), PageRun.read(folder)
    assert f"{middle}<small>of {found}</small>" in page and page.count(f"<small>of {found}</small>") == 1
    assert "Attacks that look for the distance find some outside the budget, too" in page
    assert f"{middle} of {found}" in terminal_table(results(stored))
    for kind in ("markdown", "latex"):
        text = written(run, "attacks", kind)
        assert "Found" in text and "also those outside the budget" in text
    head, *rows = written(run, "attacks", "csv").splitlines()
    at = head.split(",").index("found")
    assert [row.split(",")[at] for row in rows if ",fab-t," in row] == [str(found)]


def test_a_run_of_before_is_still_shown(folder: Path, tmp_path: Path) -> None:
    info = json.loads((folder / "run.json").read_bytes())
    for attack in info["aggregates"]["models"][0]["attacks"]:
        del attack["found"]
    for name in ("samples.jsonl", "data.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "run.json").write_text(json.dumps(info))
    assert "of found adversarials" in report([tmp_path], tmp_path / "page.html").read_text()
    assert "fab-t" in terminal_table(results(read_run(tmp_path)))
    assert "Found" not in written(PageRun.read(tmp_path), "attacks", "markdown")
