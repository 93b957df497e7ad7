"""Several models on one page: differences corrected for all pairs, models against attacks, cost against gain."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as of_statsmodels
from statsmodels.stats.multitest import multipletests

from robustlab.base.words import interval, percent
from robustlab.reporting import report
from robustlab.reporting.sections import side_by_side
from robustlab.reporting.sections.verdict import sentences
from robustlab.reporting.source import PageRun
from robustlab.reporting.tables import written
from robustlab.reporting.text import p_value
from robustlab.runs.aggregates import ModelLines

CELLS = [[(False, False), (False, True)], [(True, False), (True, True)]]  # wrong in the first, in the second
MODELS = {"a": (0.97, 6.0), "b": (0.95, 7.0), "c": (0.93, 14.0)}


@pytest.fixture(scope="module")
def three(write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "three", n=60, models=MODELS)


def test_p_is_corrected_for_all_pairs_and_the_page_says_so(three: Path, run_folder: Path, tmp_path: Path) -> None:
    run = PageRun.read(three)
    pairs = run.pairs
    plain = sorted(pair["robust"]["p"] for pair in pairs)
    assert len(pairs) == 3
    assert sorted(pair["robust"]["holm"] for pair in pairs)[0] == pytest.approx(min(1, 3 * plain[0]))
    assert all(pair[kind]["holm"] >= pair[kind]["p"] for pair in pairs for kind in ("clean", "robust"))
    page = report([three], tmp_path / "three.html").read_text()
    assert "p is Holm-corrected over all 3 pairs" in page and "McNemar, Holm" in page
    assert (
        "Holm" not in report([run_folder], tmp_path / "two.html").read_text().split('id="glossary"')[0]
    )  # one pair: nothing to correct


def test_the_table_has_the_same_p_as_the_page(three: Path, run_folder: Path) -> None:
    run = PageRun.read(three)
    text = written(run, "differences", "markdown").replace("\\", "")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    headings, _, *found = [[cell.strip() for cell in row] for row in rows]
    wanted = [p_value(pair[kind]["holm"]).removeprefix("= ") for pair in run.pairs for kind in ("clean", "robust")]
    assert "p" not in headings and [row[headings.index("p, Holm")] for row in found] == wanted
    assert "Holm-corrected over all 3 pairs" in text
    assert "Holm" not in written(PageRun.read(run_folder), "differences", "markdown")
    numbers = list(csv.DictReader(io.StringIO(written(run, "differences", "csv"))))
    assert [float(row["holm"]) for row in numbers] == [p[k]["holm"] for p in run.pairs for k in ("clean", "robust")]
    assert all(float(row["holm"]) >= float(row["p"]) for row in numbers)


def test_p_of_a_run_is_that_of_statsmodels(three: Path) -> None:
    """From the lines of samples.jsonl to the corrected p, by another way."""
    run = PageRun.read(three)
    wrong: dict[str, set[int]] = {name: set() for name in MODELS}
    for line in map(json.loads, (three / "samples.jsonl").read_text().splitlines()):
        if line["attack"] == "clean" and line["clean"] != line["label"]:
            wrong[line["model"]].add(line["id"])
        if line["eps"] == run.numbers["eps"] and line["success"]:
            wrong[line["model"]].add(line["id"])
    tables = [
        np.array([[sum((i in first, i in second) == cell for i in range(60)) for cell in row] for row in CELLS])
        for first, second in combinations(wrong.values(), 2)
    ]
    plain = [of_statsmodels(table, exact=True).pvalue for table in tables]
    pairs = [pair["robust"] for pair in run.pairs]
    assert [pair["p"] for pair in pairs] == pytest.approx(plain)
    assert [pair["holm"] for pair in pairs] == pytest.approx(multipletests(plain, method="holm")[1])


def test_a_difference_that_the_correction_takes_is_not_claimed(three: Path) -> None:
    run = PageRun.read(three)
    for pair in run.numbers["pairs"]:
        pair["robust"] |= {"p": 0.02, "value": 0.1, "low": 0.01, "high": 0.2}
    said = " ".join(sentences(run))
    assert said.count("do not show that") == 3 and "(McNemar p = 0.060, Holm-corrected)" in said


def test_the_matrix_has_every_model_attack_and_the_worst_case(three: Path) -> None:
    run = PageRun.read(three)
    html = str(side_by_side.render([run]))
    for model in run.models:
        for share in (model["clean_accuracy"], model["robust_accuracy"], *(a["left"] for a in model["attacks"])):
            assert f"<b>{percent(share)}</b><small>{interval(share)}</small>" in html
    assert html.count("data-own") == 3 and html.count('class="marker attacked"') == 3


def test_disagreements_are_right_in_one_and_fallen_in_the_other(three: Path) -> None:
    run = PageRun.read(three)
    examples, many = side_by_side.disagreements(run)
    attacks = [attack["name"] for attack in run.info["config"]["attacks"]]
    views = {name: ModelLines(run.tables[name], attacks, run.numbers["eps"]) for name in MODELS}
    assert 0 < len(examples) <= side_by_side.SHOWN <= many
    for example in examples:
        assert example["id"] in views[example["right"]].robust
        assert example["id"] in views[example["wrong"]].right - views[example["wrong"]].robust
    pairs = [(a, b) for a in views for b in views if a != b]
    assert many == sum(len((views[a].robust & views[b].right) - views[b].robust) for a, b in pairs)
    assert len({(example["right"], example["wrong"]) for example in examples}) > 1  # they take turns


def test_the_cost_of_a_training_stands_beside_its_model(write_run: Callable[..., Path], tmp_path: Path) -> None:
    models = [{"name": name, "trained": {"by": "n-fgsm", "epochs": 30, "seconds": 90.0}} for name in ("a", "b")]
    folder = write_run(tmp_path / "run", n=20, models={"a": (0.9, 3.0), "b": (0.9, 9.0)})
    info = json.loads((folder / "run.json").read_text())
    info["models"] = [old | new for old, new in zip(info["models"], models, strict=True)]
    (folder / "run.json").write_text(json.dumps(info))
    html = str(side_by_side.render([PageRun.read(folder)]))
    assert html.count("<small>n-fgsm, 30 epochs, 1\u00a0min 30\u00a0s</small>") == 2


def test_one_model_has_nothing_beside_it(write_run: Callable[..., Path], tmp_path: Path) -> None:
    run = PageRun.read(write_run(tmp_path / "one", n=20, models={"a": (0.9, 3.0)}))
    assert not side_by_side.applies([run])


def test_the_heat_of_models_stands_beside_its_controls(three: Path) -> None:
    run = PageRun.read(three)
    assert "How far the heat moves" not in str(side_by_side.render([run]))
    mean = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    nothing = {"mean": None, "low": None, "high": None, "n": 0}
    heat = {
        "a": {"shift": {"adv": mean, "same": mean | {"mean": 0.55}, "noise": mean | {"n": 8}}},
        "b": {"shift": dict.fromkeys(("adv", "same", "noise"), nothing)},
    }
    known = {name: run.info["heatmaps"].get(name, {}) | heat.get(name, {}) for name in MODELS}
    html = str(side_by_side.render([PageRun(run.stored, run.info | {"heatmaps": known})]))
    cells = html.split("How far the heat moves")[1].split("</table>")[0]
    assert "0.50 (0.40 to 0.60; n = 9)" in cells and "0.55 (" in cells and "n = 8)" in cells
    assert cells.count('scope="row"') == 1  # no attack on b succeeded, nothing is known of c
