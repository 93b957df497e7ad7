"""benchmarks/gpu.py on a CPU: it keeps to its time, goes on with what is missing, and says what it leaves out."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module("gpu")
    for name in {path.stem for path in BENCHMARKS.glob("*.py")} & (sys.modules.keys() - before):
        del sys.modules[name]


def bench(gpu: Any, path: Path, seconds: float) -> Any:
    until = time.perf_counter() + seconds
    return gpu.Bench(torch.device("cpu"), gpu.Results(path), until, None, 1, {"device": "this one"})


def test_no_cell_is_begun_that_would_not_end_in_time(gpu: Any, tmp_path: Path) -> None:
    one = bench(gpu, tmp_path / "r.json", 0.5)
    assert one.cell({"net": "a"}, None, 0.1, lambda: {"seconds": 1})["seconds"] == 1
    assert one.cell({"net": "b"}, None, 60, lambda: {"seconds": 1}) is None
    assert one.cell({"net": "c"}, None, 0.1, lambda: time.sleep(5) or {}) is None
    assert one.cell({"net": "d"}, None, 0, lambda: 1 / 0) is None
    said = " ".join(one.left_out)
    assert "b: no time" in said and "c: cut after 0 s" in said and "d:" in said
    assert [entry["key"] for entry in json.loads((tmp_path / "r.json").read_text())["runs"]] == [{"net": "a"}]


def test_a_second_call_goes_on(gpu: Any, tmp_path: Path) -> None:
    first = bench(gpu, tmp_path / "r.json", 9)
    first.cell({"net": "a"}, "this", 0, lambda: {"seconds": 1})
    second = bench(gpu, tmp_path / "r.json", 0)
    assert second.cell({"net": "a"}, "this", 60, lambda: {"seconds": 2})["seconds"] == 1
    assert second.cell({"net": "a"}, "other", 60, lambda: {"seconds": 2}) is None  # something else was measured
    second.where = {"device": "another"}
    assert second.cell({"net": "a"}, "this", 60, lambda: {"seconds": 2}) is None


def test_the_goals(gpu: Any) -> None:
    slow = {"n": 1000, "seconds": 10.0, "of_ceiling": 0.9, "waits": {"a": 0.0}, "robust": 400}
    fast = {**slow, "seconds": 3.0, "of_ceiling": 0.5, "waits": {"a": 2.0, "b": 0.5}}
    suites = {who: {"n": 1000, "seconds": 1.0, "robust": 400 + 3 * i} for i, who in enumerate(gpu.SUITES)}
    found = gpu.goals("net", {gpu.BARE: slow, "float32 copy": slow, "bfloat16 copy": fast, **suites})
    assert {goal["what"]: goal["met"] for goal in found} == {
        "net, float32 copy: ceiling / image-steps a second": True,
        "net, float32 copy: waits in a steady step": True,
        "net, bfloat16 copy: ceiling / image-steps a second": False,
        "net, bfloat16 copy: waits in a steady step": False,
        "net: the best bfloat16 search / bare loop, in seconds": True,
        "net, linf-strong: robust accuracy, bfloat16 search - float32 search": False,
    }


def test_waits_are_counted_by_line(gpu: Any) -> None:
    waits = importlib.import_module("gpu_waits")

    def attack(steps: int) -> None:
        x = torch.arange(4)
        bool(x.any())  # once only
        for _ in range(steps):
            x[x > 1].sum().item()

    found = waits.per_step(attack, torch.device("cpu"))
    assert {line.split()[-1]: count for line, count in found.items()} == {"index": 1.0, "_local_scalar_dense": 1.0}


@pytest.mark.slow
def test_it_runs(gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cpu", "--nets", "road-signs/resnet20-robust", "--n", "4", "--shorten", "50", "--no-tests"]
    with torch.random.fork_rng():
        gpu.main([*words, "--output", str(tmp_path / "gpu.json")])
    said = capsys.readouterr().out
    entries = json.loads((tmp_path / "gpu.json").read_text())["runs"]
    done = {entry["key"]["contender"]: entry for entry in entries}
    assert {gpu.BARE, "the module itself", "float32 copy", "bfloat16 copy", *gpu.SUITES} <= done.keys()
    assert all(f"| {who} | " in said for who in done)
    assert "left out: TF32 copy: needs CUDA" in said and "left out: float32 copy, CUDA graph: needs CUDA" in said
    assert all(entry["conditions"]["versions"]["torch"] for entry in entries)
    assert done["the module itself"]["robust"] == done["float32 copy"]["robust"] <= 4
    assert sum(done["the module itself"]["waits"].values()) >= 1
