"""The pieces of the page: words, numbers, charts, the terminal's table."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.base.intervals import share
from robustlab.reporting import terminal_table
from robustlab.reporting.figures import ModelCurve, Point, security_curve, share_bar
from robustlab.reporting.sections import verdict
from robustlab.reporting.sections.unknown import _cell
from robustlab.reporting.sections.verdict import alarms, sentences
from robustlab.reporting.source import PageRun
from robustlab.reporting.text import budget, without_paths
from robustlab.runs import read_run
from robustlab.runs.results import results


def curve(points: list[tuple[float, float]], **options: object) -> ElementTree.Element:
    line = ModelCurve("a <net>", [Point(eps, v, max(v - 0.05, 0), min(v + 0.05, 1)) for eps, v in points])
    given = {"tick": lambda eps: budget(eps, "linf"), "norm": "L∞", "headline": 8 / 255, "chance": 0.1} | options
    return ElementTree.fromstring(security_curve([line, line], **given))  # type: ignore[arg-type]


def test_the_curve_is_drawn_where_the_numbers_are() -> None:
    svg = curve([(0, 1.0), (8 / 255, 0.5), (16 / 255, 0.0)])
    (path, *_) = [p.get("d", "") for p in svg.iter("path") if p.get("class") == "line"]
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y1 - y0 == pytest.approx(y2 - y1, abs=0.2) and y2 > y0
    assert [t.text for t in svg.iter("text")][5:8] == ["0", "8/255", "16/255"]
    assert "a <net>, ε = 8/255: 50.0 % (45.0–55.0)" in [t.text for t in svg.iter("title")]
    shapes = {p.get("d", "").split("m")[-1] for p in svg.iter("path") if p.get("class") == "marker"}
    assert len(shapes) == 2  # told apart without colour


def test_labels_that_would_touch_are_left_out_and_the_headline_stays() -> None:
    svg = curve([(k / 255, 0.5) for k in range(17)])
    labels = [t.text for t in svg.iter("text")][5:-1]
    assert "8/255" in labels and "0" in labels and "16/255" in labels and len(labels) < 12


def test_a_curve_without_chance_or_headline_has_no_line_for_them() -> None:
    kinds = {p.get("class") for p in curve([(0, 1.0), (0.1, 0.5)], chance=None, headline=0.5).iter("path")}
    assert "chance" not in kinds and "headline" not in kinds


def test_a_bar_for_nothing_is_nothing() -> None:
    assert share_bar(None, 0) == share_bar(share(0, 0), 0) == ""
    assert 'class="fill" width="25.0"' in share_bar(share(1, 4), 0)


@given(st.text())
def test_text_without_folders_stays_as_it_is(text: str) -> None:
    if not re.search(r"[/\\]", text):
        assert without_paths(text) == text


@pytest.mark.parametrize(
    "kept", ["road-signs/cnn", "8/255", "and/or", "reports/run", "./net.py", "12 / 255", "/", "//"]
)
def test_relative_names_and_fractions_are_no_paths(kept: str) -> None:
    assert without_paths([kept, {kept: kept}]) == [kept, {kept: kept}]


@pytest.mark.parametrize(
    ("text", "left"),
    [("/a/b/c.py", "c.py"), ("--x=/a/b", "--x=b"), ("npz:/a/b.npz", "npz:b.npz"), (r"C:\Users\ann\m.py:f", "m.py:f")],
)
def test_absolute_paths_keep_their_last_component(text: str, left: str) -> None:
    assert without_paths(text) == left


def test_the_verdict_in_words(run_folder: Path) -> None:
    first, second, compared = (said.replace("\u00a0", " ") for said in sentences(PageRun.read(run_folder)))
    assert re.fullmatch(
        r"road-signs/cnn classifies [\d.]+ % of 300 images right, and [\d.]+ % \(95 % interval [\d.]+–[\d.]+\)"
        r" under attack \(L∞ ε = 8/255\)\.",
        first,
    )
    assert second.endswith("under attack.")
    assert re.fullmatch(
        r"road-signs/cnn-robust keeps [\d.]+ points more than road-signs/cnn under attack, and pays for it with"
        r" [\d.]+ points of clean accuracy\.",
        compared,
    )


@pytest.mark.parametrize(
    ("robust", "clean", "said"),
    [
        ((-0.3, 1e-6), (-0.2, 1e-4), "a keeps 30.0 points more than b under attack, and is better on clean images too"),
        ((-0.3, 1e-6), (0.2, 1e-4), "a keeps 30.0 points more than b under attack, and pays for it with 20.0 points"),
        ((0.3, 1e-6), (0.01, 0.6), "b keeps 30.0 points more than a under attack, with no clear difference in clean"),
        ((0.01, 0.4), (0.2, 1e-4), "do not show that a and b differ in robust accuracy (McNemar p = 0.400)"),
    ],
)
def test_the_comparison_says_who_is_better_and_at_what_cost(
    robust: tuple[float, float], clean: tuple[float, float], said: str, run_folder: Path
) -> None:
    run = PageRun.read(run_folder)
    pair = {"first": "a", "second": "b"}
    for kind, (value, p) in (("robust", robust), ("clean", clean)):
        reach = abs(value) / 2 if p < 0.05 else abs(value) * 2
        pair[kind] = {"value": value, "low": value - reach, "high": value + reach, "p": p, "n": 300}  # type: ignore[assignment]
    info = run.info | {"aggregates": run.info["aggregates"] | {"pairs": [pair]}}
    sentence = sentences(PageRun(run.stored, info))[-1]
    assert said in sentence and "disagree" not in sentence


def test_what_only_one_model_gets_right_bears_its_name(run_folder: Path) -> None:
    run = PageRun.read(run_folder)
    (pair,) = run.numbers["pairs"]
    page = verdict.render([run])
    for name, key in (("road-signs/cnn", "only_first"), ("road-signs/cnn-robust", "only_second")):
        for kind in ("clean", "robust"):
            assert f'<td class="number">{pair[kind][key]}<small>{name}</small></td>' in page


@pytest.mark.parametrize(("p", "low", "said"), [(0.07, -0.2, True), (0.04, -0.4, True), (0.04, -0.2, False)])
def test_a_test_and_an_interval_that_disagree_are_said_to(p: float, low: float, said: bool, run_folder: Path) -> None:
    run = PageRun.read(run_folder)
    high = -0.01 if low == -0.2 else 0.01
    (pair,) = run.info["aggregates"]["pairs"]
    clean = pair["clean"] | {"value": -0.1, "low": low, "high": high, "p": p, "n": 60}
    info = run.info | {"aggregates": run.info["aggregates"] | {"pairs": [pair | {"clean": clean}]}}
    sentence = sentences(PageRun(run.stored, info))[-1]
    assert ("Clean accuracy: McNemar's test" in sentence) == said and "Robust accuracy: McNemar" not in sentence
    if said:
        assert "−1.0 points) disagree, so 60 images" in sentence or "+1.0 points) disagree, so 60 images" in sentence


def test_the_verdict_of_a_targeted_run_speaks_of_targets(run_folder: Path) -> None:
    run = PageRun.read(run_folder)
    run.info["config"]["threat"] |= {"targeted": True, "target": "random"}
    assert "right; " in sentences(run)[0] and "are right and not turned into their targets under" in sentences(run)[0]
    note = verdict.render([run])
    assert "not turned into its target by any attack" in note and "still right after" not in note
    run.info["config"]["labels"] = "predicted"
    assert "is not turned into its target on" in sentences(run)[0] and "keeps its own" not in sentences(run)[0]
    assert "how hard its answers are to turn into the targets" in alarms(run)[0] and "stable" not in alarms(run)[0]


def test_errors_count_at_every_budget(write_run: Callable[..., Path], tmp_path: Path) -> None:
    run = PageRun.read(write_run(tmp_path / "run", n=40, models={"m": (0.9, 9.0)}))
    assert alarms(run) == []
    for line in run.lines:
        if line.id == 1 and line.attack == "pgd":
            line.error = "died"
    errors = sum(line.error is not None for line in run.lines)
    assert errors > 1
    (said,) = alarms(run)
    assert f"m: {errors} attempts ended in an error, {errors - 1} of them at other budgets of the curve; they" in said


@pytest.mark.parametrize(("ties", "said"), [(0, "stop, n ="), (1, "stop (and 1 other as low), n ="), (14, "14 others")])
def test_classes_as_bad_as_the_worst_are_said(ties: int, said: str, run_folder: Path) -> None:
    run = PageRun.read(run_folder)
    run.models[0]["worst_class"] |= {"name": "stop", "ties": ties}
    assert said in verdict.render([run]) and ("as low" in verdict.render([PageRun(run.stored, run.info)])) == (ties > 0)


def test_unknown_values_become_cells() -> None:
    assert [_cell(value) for value in (None, True, 0.25, "word", 1200)] == ["–", "yes", "0.25", "word", "1,200"]
    assert _cell(share(1, 4)).replace("\u00a0", " ") == "25.0 % (4.6–69.9; n = 4)"


def test_the_terminal_table_has_n_and_intervals(run_folder: Path) -> None:
    run = read_run(run_folder)
    text = terminal_table(results(run), width=100).replace("\u00a0", " ")
    assert max(map(len, text.splitlines())) <= 100
    assert "road-signs/cnn-robust: L∞ ε = 8/255, n = 300" in text
    robust = run.info["aggregates"]["models"][1]["robust_accuracy"]
    low, high = 100 * robust["low"], 100 * robust["high"]
    assert re.search(rf"^robust +{100 * robust['value']:.1f} % +{low:.1f}–{high:.1f}$", text, re.M)


def test_results_are_fractions_at_the_headline_budget_with_the_curve(run_folder: Path) -> None:
    found = results(read_run(run_folder))
    assert [r["model"] for r in found["results"]] == ["road-signs/cnn", "road-signs/cnn-robust"]
    assert {r["eps"] for r in found["results"]} == {8 / 255}
    assert found["results"][0]["attacks"][0]["name"] == "fgsm"
    assert len(found["curve"]) == 12 and found["curve"][0]["accuracy"].keys() == {"value", "low", "high", "n"}
    assert found["run"] == str(run_folder)
