"""benchmarks/zoo.py, zoo_cuda.py and cost.py, on as little as possible."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab.base.errors import UserError
from robustlab.models.card import read_model_card
from robustlab.training import Recipe

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in {path.stem for path in BENCHMARKS.glob("*.py")} & (sys.modules.keys() - before):
        del sys.modules[name]


@pytest.fixture
def zoo(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script with two small entries, of which the second starts from the first, and a zoo of its own."""
    module = benchmark("zoo")
    recipe = Recipe(epochs=1, train_size=64, val_size=16, check_size=4, batch_size=32, model={"width": 4})
    first = module.Entry("cnn", "road-signs", "A small one", recipe)
    defense = {"method": "n-fgsm", "eps": "8/255"}
    second = replace(first, summary="Another", recipe=replace(recipe, init="road-signs/a", defense=defense))
    third = replace(first, summary="Not shipped", shipped=False)
    entries = {"road-signs/a": first, "road-signs/a-n-fgsm": second, "road-signs/b": third}
    monkeypatch.setattr(module, "ENTRIES", entries)
    monkeypatch.setattr(module, "ZOO", tmp_path / "zoo")
    monkeypatch.chdir(tmp_path)
    return module


def test_the_zoo_is_trained_shipped_and_measured(
    zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measuring = importlib.import_module("zoo_measure")
    monkeypatch.setattr(measuring, "CLEAN", {"road-signs": 30})
    words = ["--output", "trained", "--runs", "runs", "--results", "zoo.json", "--data-root", str(tmp_path), "--n", "4"]
    zoo.main([*words, "--remark", "busy", "--threads", str(torch.get_num_threads())])
    said = capsys.readouterr().out
    assert "road-signs/a-n-fgsm: robust accuracy" in said and "n = 4) linf-strong 8/255" in said
    card = read_model_card(tmp_path / "zoo/road-signs/a-n-fgsm.toml")
    assert card.recipe["init"] == "road-signs/a" and card.command == "robustlab train road-signs/a-n-fgsm"
    assert card.hardware.endswith(", busy") and card.hash and card.parameters > 0 and card.data_hash
    assert [(m.attack, m.n) for m in card.measured] == [("", 30), ("linf-standard", 4), ("linf-strong", 4)]
    assert not (tmp_path / "zoo/road-signs/b.toml").exists()
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "zoo").rglob("*.toml"))
    entries = json.loads((tmp_path / "zoo.json").read_text())["runs"]
    assert [(entry["key"]["entry"], entry["shipped"]) for entry in entries] == [
        ("road-signs/a", True),
        ("road-signs/a-n-fgsm", True),
        ("road-signs/b", False),
    ]
    zoo.main([*words, "--table"])
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 5 and "`road-signs/b` (not shipped)" in table[4] and "n-fgsm" in table[3]


def test_what_is_too_large_is_not_shipped(zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.train_entry("road-signs/a", tmp_path, tmp_path)
    monkeypatch.setattr(zoo, "MOST_IN_ALL", 1000)
    with pytest.raises(UserError, match="1,000 in all are shipped"):
        zoo.ship("road-signs/a", tmp_path)
    assert not (tmp_path / "zoo").exists()


def test_an_entry_needs_what_it_starts_from(zoo: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="starts from road-signs/a"):
        zoo.train_entry("road-signs/a-n-fgsm", tmp_path, tmp_path)


def test_entries_start_from_entries_that_come_before(benchmark: Any) -> None:
    entries = benchmark("zoo_entries").ENTRIES
    names = list(entries)
    for name, entry in entries.items():
        init = entry.recipe.init
        assert not init or names.index(init) < names.index(name)
        assert not (entry.shipped and init) or entries[init].shipped


def test_without_a_gpu_nothing_is_begun(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark("zoo_cuda").main([str(tmp_path / "out")]) == 2
    assert "no GPU here" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_epochs_are_fitted_to_the_time(benchmark: Any) -> None:
    cuda = benchmark("zoo_cuda")
    job = cuda.Job("a", "resnet20", cuda.FULL, cuda.Cost(epoch=10.0, measuring=20.0))
    assert [cuda.epochs_for(job, seconds) for seconds in (1000, 125, 75, 60)] == [20, 10, 5, 0]


def test_the_cost_of_what_was_counted_is_what_was_counted(benchmark: Any) -> None:
    cost = benchmark("cost")
    entries = json.loads(cost.RESULTS.read_text())["runs"]
    falls, stays = cost.per_image("linf-strong", entries)
    for fallen, left, forwards, backwards in ((961, 4, 5184, 3727), (463, 412, 152_968, 108_217)):
        assert fallen * falls.forwards + left * stays.forwards == pytest.approx(forwards)
        assert fallen * falls.backwards + left * stays.backwards == pytest.approx(backwards)
    assert cost.Speed(100, 25).seconds(cost.Passes(100, 100)) == pytest.approx(4)


def test_whole_chunks_are_shared(benchmark: Any) -> None:
    cost = benchmark("cost")
    assert [cost.busiest(50_000, chunk, gpus) for chunk, gpus in ((512, 64), (512, 512), (49, 512))] == [1024, 512, 98]
    assert [cost.chunk_for(50_000, gpus) for gpus in (1, 8, 64, 512)] == [512, 504, 410, 102]
    assert [cost.clock(seconds) for seconds in (45, 750, 36_000)] == ["45 s", "12 min", "10 h"]


def test_the_page_of_costs_shows_what_the_script_prints(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark("cost").main([])
    table = capsys.readouterr().out.split("\n\n")[0]
    assert table in (BENCHMARKS / "COST.md").read_text()


@pytest.mark.slow
def test_the_zoo_on_a_gpu_runs_small_on_a_cpu(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from robustlab import load_model

    cuda, words = benchmark("zoo_cuda"), [str(tmp_path), "--device", "cpu", "--tiny"]
    assert cuda.main(words) == 0
    said = capsys.readouterr().out
    assert said.count("\n| road-signs/") == 6 and "left out" not in said
    for path in sorted((tmp_path / "road-signs").glob("*.toml")):
        card = read_model_card(path)
        assert load_model(str(path)).hash() == card.hash and len(card.measured) == 2
        assert bool(card.recipe.get("defense")) == (card.recipe.get("init") is not None) != path.stem.endswith("plain")
    assert len(list((tmp_path / "road-signs").glob("*.safetensors"))) == 6
    before = (tmp_path / "zoo-cuda.json").read_bytes()
    assert cuda.main([*words, "--minutes", "0"]) == 0  # everything is there
    assert (tmp_path / "zoo-cuda.json").read_bytes() == before
