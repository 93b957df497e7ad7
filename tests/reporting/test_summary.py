"""What goes out to leaderboards and model cards: their fields, the run's numbers, nothing that was not measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from robustlab.cli import main
from robustlab.reporting.source import PageRun
from robustlab.reporting.summary import summary

# model_info/cifar10/Linf/Bartoldson2024Adversarial_WRN-94-16.json of RobustBench has these keys, and text for numbers
ROBUSTBENCH = {
    "link": str,
    "name": str,
    "authors": str,
    "additional_data": bool,
    "number_forward_passes": int,
    "dataset": str,
    "venue": str,
    "architecture": str,
    "eps": str,
    "clean_acc": str,
    "reported": str,
    "autoattack_acc": str,
    "footnote": str,
    "unreliable": bool,
}
EVIL = 'a: "b" #c\n- d | <script> \u202e'


@pytest.fixture(scope="module")
def run(run_folder: Path) -> PageRun:
    return PageRun.read(run_folder)


@pytest.fixture(scope="module")
def models(run: PageRun) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(summary(run, "json"))["models"]
    return found


def test_robustbench_gets_its_fields_and_no_number_that_was_not_measured(
    run: PageRun, models: list[dict[str, Any]]
) -> None:
    for told, model in zip(models, run.models, strict=True):
        entry = told["robustbench"]
        assert set(entry) == set(ROBUSTBENCH)
        unknown = {key for key, value in entry.items() if value is None}
        assert all(isinstance(entry[key], ROBUSTBENCH[key]) for key in entry.keys() - unknown)
        assert unknown == {*told["missing"], "unreliable"} and "autoattack_acc" in unknown  # no audit in this run
        assert entry["reported"] == f"{100 * model['robust_accuracy']['value']:.2f}" and entry["eps"] == "8/255"
        assert entry["number_forward_passes"] == 1 and "linf-standard" in entry["footnote"]


def test_only_autoattack_counts_as_autoattack(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", n=20, models={"net": (0.9, 5.0)}, suite="autoattack-standard")
    (told,) = json.loads(summary(PageRun.read(folder), "json"))["models"]
    entry = told["robustbench"]
    assert entry["autoattack_acc"] == entry["reported"] is not None and "autoattack_acc" not in told["missing"]


def test_a_failed_audit_makes_it_unreliable(write_run: Callable[..., Path], tmp_path: Path) -> None:
    check = {"name": "noise", "title": "t", "measured": "m", "numbers": {}, "advice": "a", "source": "s"}
    for status, unreliable in (("fail", True), ("warn", False)):
        audit = {"net": {"n": 5, "tolerated": 0, "checks": [check | {"status": status}]}}
        folder = write_run(tmp_path / status, n=20, models={"net": (0.9, 5.0)}, audit=audit)
        (told,) = json.loads(summary(PageRun.read(folder), "json"))["models"]
        assert told["robustbench"]["unreliable"] is unreliable and "noise" in told["robustlab"]["audit"]


def test_the_card_begins_with_a_model_index_that_yaml_reads(
    models: list[dict[str, Any]], run: PageRun, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    empty, head, rest = summary(run, "markdown").split("---\n", 2)
    assert empty == "" and "## Robustness" in rest and "95 % Wilson" in rest
    index = yaml.safe_load(head)["model-index"]
    assert index == [told["model-index"] for told in models]
    for entry, model in zip(index, run.models, strict=True):
        (result,) = entry["results"]
        assert result["task"]["type"] == "image-classification" and result["dataset"]["type"] == "road-signs"
        assert result["dataset"]["name"]
        clean, robust = result["metrics"]
        assert clean["type"] == robust["type"] == "accuracy" and clean["value"] == model["clean_accuracy"]["value"]
        assert robust["value"] == model["robust_accuracy"]["value"] and robust["args"]["eps"] == "8/255"
    evil = PageRun.read(write_run(tmp_path / "evil", n=20, models={EVIL: (0.9, 5.0)}))
    text = summary(evil, "markdown")
    (entry,) = yaml.safe_load(text.split("---\n", 2)[1])["model-index"]
    assert entry["name"] == 'a: "b" #c\\n- d | <script> \\u202e' and "<script>" not in text.split("---\n", 2)[2]


def test_the_hub_reads_the_card(write_run: Callable[..., Path], tmp_path: Path) -> None:
    """By huggingface_hub itself: what its ModelCard makes of the text, and of that what it writes again."""
    run = PageRun.read(write_run(tmp_path / "run", n=40, models={"net": (0.9, 5.0)}))
    card = ModelCard(summary(run, "markdown"), ignore_metadata_errors=False)
    assert card.data.model_name == "net" and "## Robustness" in card.text
    assert card.data.tags == ["image-classification", "adversarial-robustness"]
    clean, robust = card.data.eval_results
    (model,) = run.models
    assert clean.metric_value == model["clean_accuracy"]["value"] and clean.metric_args == {"n": 40}
    assert robust.metric_value == model["robust_accuracy"]["value"] and robust.metric_args["suite"] == "linf-standard"
    for result in (clean, robust):
        assert result.task_type == "image-classification" and result.dataset_split == "test"
    (told,) = json.loads(summary(run, "json"))["models"]
    assert model_index_to_eval_results([told["model-index"]]) == ("net", [clean, robust])
    assert eval_results_to_model_index("net", [clean, robust]) == [told["model-index"]]


def test_the_command_writes_it(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(run_folder), "summary", "--output", str(tmp_path / "info.json")]) == 0
    assert len(json.loads((tmp_path / "info.json").read_text())["models"]) == 2
    capsys.readouterr()
    assert main(["table", str(run_folder), "summary"]) == 0
    assert capsys.readouterr().out.startswith("---\n")
    assert main(["table", str(run_folder), "summary", "--format", "latex"]) == 2
    assert "choose markdown or json" in capsys.readouterr().err
    assert main(["table", str(run_folder), "verdict", "--format", "json"]) == 2
    assert "choose markdown, latex or csv" in capsys.readouterr().err
