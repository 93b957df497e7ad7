"""Confusion, accuracy by factor, confidence and verification on the page: what is written is what was counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from robustlab.base.intervals import share
from robustlab.reporting.panels import Profile, factor_panel, reliability_panel
from robustlab.reporting.sections import confidence, confusion, factors, verdict, verification
from robustlab.reporting.source import PageRun
from robustlab.reporting.text import bin_labels
from robustlab.runs import breakdowns
from robustlab.runs.factors import bins

EVIL = '"><script>alert(1)</script>'


def parsed(html: str) -> ElementTree.Element:
    """The section as a tree: what a browser would fix without a word fails here."""
    html = re.sub(r"<((?:input|img)[^>]*)>", r"<\1/>", html).replace(" checked/>", ' checked=""/>')
    return ElementTree.fromstring(f"<section>{html}</section>")


def words(element: ElementTree.Element) -> str:
    return re.sub(r"\s+", " ", "".join(element.itertext())).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def run(run_folder: Path) -> PageRun:
    return PageRun.read(run_folder)


def changed(run_folder: Path, target: Path, change: Callable[[dict[str, Any]], None], **config: Any) -> PageRun:
    """The same run with every line changed, read as another folder."""
    target.mkdir()
    for name in ("run.json", "data.jsonl", "samples.jsonl"):
        (target / name).write_bytes((run_folder / name).read_bytes())
    lines = [msgspec.json.decode(line) for line in (run_folder / "samples.jsonl").read_bytes().splitlines()]
    for line in lines:
        change(line)
    (target / "samples.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    info = msgspec.json.decode((run_folder / "run.json").read_bytes())
    info["config"] |= config
    (target / "run.json").write_bytes(msgspec.json.encode(info))
    return PageRun.read(target)


# --- confusion --------------------------------------------------------------------------------------------------------


def cells(tree: ElementTree.Element, model: str, view: int) -> dict[tuple[int, int], int]:
    """The counts of a view by row and column, where all classes are shown."""
    at = [words(h).strip() for h in tree.iter("h3")].index(model)
    body = list(tree.iter("table"))[3 * at + view].find("tbody")
    assert body is not None
    return {
        (true, predicted): int(words(cell).replace("−", "-"))
        for true, row in enumerate(body)
        for predicted, cell in enumerate(row[1:])
        if len(cell)
    }


def test_confusion_counts_every_image_where_the_run_put_it(run: PageRun) -> None:
    tree = parsed(confusion.render([run]))
    for name in ("road-signs/cnn", "road-signs/cnn-robust"):
        clean, attacked, difference = (Counter(cells(tree, name, view)) for view in range(3))
        lines = [line for line in run.lines if line.model == name]
        assert clean == Counter((line.label, line.clean) for line in lines if line.attack == "clean")
        assert sum(attacked.values()) == 300 and not any(value == 0 for value in difference.values())
        assert {k: attacked[k] - clean[k] for k in attacked | clean if attacked[k] != clean[k]} == dict(difference)
        fallen = {line.id: (line.label, line.adv) for line in lines if line.succeeded and line.eps == 8 / 255}
        assert sum(attacked[k] for k in attacked if k[0] != k[1]) == len(fallen) + sum(
            n for k, n in clean.items() if k[0] != k[1]
        )


def test_a_confusion_table_can_be_read_by_row_and_column(run: PageRun) -> None:
    clean, table, _ = list(parsed(confusion.render([run])).iter("table"))[:3]
    assert not list(clean.iter("button")) and len(list(table.iter("button"))) > 8  # the gallery has none wrong before
    columns = [words(th) for th in table.iter("th") if th.get("scope") == "col"]
    body = table.find("tbody")
    assert body is not None and columns == run.data["classes"]
    for label, row in enumerate(body):
        assert words(row[0]) == columns[label] and row[0].get("scope") == "row" and len(row) == 1 + len(columns)
        for predicted, cell in enumerate(row[1:]):
            for button in cell:
                assert button.get("data-true") == str(label) and button.get("data-predicted") == str(predicted)
                assert button.get("title") == f"{columns[label]} → {columns[predicted]}"


def test_the_largest_flows_are_named(run: PageRun) -> None:
    tree = parsed(confusion.render([run]))
    (flows, *_) = [p for p in tree.iter("p") if p.get("class") == "flows"]
    found = breakdowns.confusion(run.answers["road-signs/cnn"])["flows"][0]
    said = f"{run.class_name(found['true'])} → {run.class_name(found['predicted'])} {found['count']} of "
    assert said + str(found["share"]["n"]) in words(flows)


def test_colours_follow_the_share_of_the_row() -> None:
    counts = {
        "cells": [
            {"true": 0, "predicted": 0, "difference": -100},
            {"true": 0, "predicted": 1, "difference": 1},
            {"true": 1, "predicted": 1, "difference": 4},
        ],
        "members": {0: 100, 1: 4},
    }
    (first, second) = confusion.rows(counts, [0, 1], "difference")
    assert [(cell["text"], cell["colour"]) for cell in first] == [("−100", "less9"), ("+1", "more1")]
    assert [(cell["text"], cell["colour"]) for cell in second] == [("", "more0"), ("+4", "more9")]


def test_many_classes_are_cut_to_those_that_are_confused(write_run: Callable[..., Path], tmp_path: Path) -> None:
    whole = write_run(tmp_path / "50", n=100, classes=[f"c{i}" for i in range(50)], models={"m": (0.9, 1.0)})
    tree = parsed(confusion.render([PageRun.read(whole)]))
    assert len([th for th in next(tree.iter("table")).iter("th") if th.get("scope") == "col"]) == 50
    large = write_run(tmp_path / "200", n=300, classes=[f"c{i}" for i in range(200)], models={"m": (0.9, 1.0)})
    tree = parsed(confusion.render([PageRun.read(large)]))
    assert len([th for th in next(tree.iter("table")).iter("th") if th.get("scope") == "col"]) == confusion.SHOWN
    assert "30 of 200 classes are shown" in words(tree)


def test_without_attacks_only_clean_images_are_shown(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", n=40)
    run = changed(folder, tmp_path / "clean", lambda line: None)
    for model in run.info["aggregates"]["models"]:
        model |= {"attacks": [], "robust_accuracy": None}
    tree = parsed(confusion.render([run]))
    assert len(list(tree.iter("table"))) == 2 and not list(tree.iter("input"))
    assert "Nothing was attacked" in words(tree) and not verification.applies([run])
    assert "under attack" not in words(parsed(factors.render([run])))
    assert "not run" not in words(parsed(confidence.render([run])))


def test_own_answers_are_said_to_be_so(run_folder: Path, tmp_path: Path) -> None:
    run = changed(run_folder, tmp_path / "own", lambda line: line.update(label=line["clean"]), labels="predicted")
    said = {section.NAME: words(parsed(section.render([run]))) for section in SECTIONS}
    assert "rows are the own answer" in said["confusion"] and "No labels of the data were used" in said["confusion"]
    assert "100 % by definition" in said["factors"] and "own answers" in said["confidence"]
    assert "than the model's own" in said["verification"]


# --- factors ----------------------------------------------------------------------------------------------------------


def test_the_table_of_factors_has_the_counted_shares(run: PageRun) -> None:
    tree = parsed(factors.render([run]))
    (table,) = tree.iter("table")
    data = {line["id"]: line["factors"] for line in run.data_lines}
    robust = {a.id for a in run.answers["road-signs/cnn-robust"] if a.robust}
    edges = bins([values["distance"] for values in data.values()])
    labels = bin_labels([(None, edges[0].high), *edges[1:-1], (edges[-1].low, None)])
    for label, (low, high) in zip(labels, edges, strict=True):
        ids = [i for i, values in data.items() if low <= values["distance"] < high]
        (row,) = [words(tr) for tr in table.iter("tr") if words(tr).strip().startswith(label)][:1]
        value = share(len(robust & set(ids)), len(ids))["value"]
        assert (
            value is not None and row.split(label, 1)[1].split()[0] == str(len(ids)) and f"{100 * value:.1f} %" in row
        )


def test_factors_come_in_the_order_of_run_json_with_units(run: PageRun) -> None:
    titles = [svg.get("aria-label") for svg in parsed(factors.render([run])).iter("svg")]
    assert titles == [
        "Accuracy by distance (metres)",
        "Accuracy by yaw (degrees)",
        "Accuracy by light (exposure, 1 is bright)",
    ]


def test_numbers_that_stand_for_kinds_are_named_and_others_folded_away(run_folder: Path, tmp_path: Path) -> None:
    run = changed(run_folder, tmp_path / "kinds", lambda line: None)
    rows = [line | {"factors": {"ground": float(line["id"] % 3)} | line["factors"]} for line in run.data_lines]
    (tmp_path / "kinds" / "data.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    tree = parsed(factors.render([PageRun.read(tmp_path / "kinds")]))
    folded = next(d for d in tree.iter("details") if "1 more factor: the ground" in words(d))
    assert {"grass", "sand", "snow"} <= {text.text for text in folded.iter("text")}
    assert not [p for p in folded.iter("path") if "line" in (p.get("class") or "").split()]  # kinds have no order


def test_a_run_that_does_not_say_what_its_factors_mean_shows_their_names(run_folder: Path, tmp_path: Path) -> None:
    run = changed(run_folder, tmp_path / "older", lambda line: None)
    rows = [line | {"factors": {"motion_angle": line["id"] % 3} | line["factors"]} for line in run.data_lines]
    (tmp_path / "older" / "data.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    info = msgspec.json.decode((tmp_path / "older" / "run.json").read_bytes())
    del info["data"]["factors"]
    (tmp_path / "older" / "run.json").write_bytes(msgspec.json.encode(info))
    tree = parsed(factors.render([PageRun.read(tmp_path / "older")]))
    titles = [svg.get("aria-label") for svg in tree.iter("svg")]
    assert titles == [f"Accuracy by {name}" for name in ("motion_angle", "distance", "yaw", "light")]
    assert {"0", "1", "2"} <= {text.text for text in next(tree.iter("svg")).iter("text")}


def test_data_without_factors_have_no_such_section(run_folder: Path, tmp_path: Path) -> None:
    run = changed(run_folder, tmp_path / "bare", lambda line: None)
    rows = [msgspec.json.encode({"id": line["id"], "label": line["label"]}) for line in run.data_lines]
    (tmp_path / "bare" / "data.jsonl").write_bytes(b"\n".join(rows))
    assert not factors.applies([PageRun.read(tmp_path / "bare")])


def test_a_factor_panel_is_drawn_where_the_numbers_are() -> None:
    shares = [share(k, 10) for k in (10, 5, 0)]
    profile = Profile("a <net>", shares, shares[::-1])
    labels = ["under 1", "1 to 2", "2 and more"]
    svg = ElementTree.fromstring(factor_panel("d", [(1.0, "1"), (2.0, "2")], labels, [profile], ordered=True))
    clean, robust = ([float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", p)] for p in lines_of(svg))
    top, middle, foot = clean
    assert top < middle < foot and middle == pytest.approx((top + foot) / 2, abs=0.1) and robust == clean[::-1]
    assert "a <net>, 1 to 2: clean 50.0\u00a0% (23.7–76.3), n = 10" in [t.text for t in svg.iter("title")]
    assert [t.text for t in svg.iter("text") if t.get("class") == "count"] == ["10", "10", "10", "n"]


def lines_of(svg: ElementTree.Element) -> list[str]:
    return [p.get("d", "") for p in svg.iter("path") if (p.get("class") or "").startswith("line")]


# --- confidence -------------------------------------------------------------------------------------------------------


def test_the_table_of_confidence_has_the_counted_means(run: PageRun) -> None:
    tree = parsed(confidence.render([run]))
    found = breakdowns.confidence(run.answers["road-signs/cnn"])
    rows = [words(tr) for tr in tree.iter("tr")][1:]
    for row, state in zip(rows, (found["clean"], found["attacked"]), strict=False):
        assert f"{100 * state['when_wrong']:.1f} %" in row and f"{state['ece']:.3f}" in row
        assert f"n = {state['wrong_sure']['n']}" in row
    assert found["attacked"]["accuracy"]["value"] < 0.5 and re.search(r"\d\* $", rows[1])  # ECE is hard to read there


def test_a_reliability_panel_is_drawn_where_the_numbers_are() -> None:
    state = {
        "bins": [
            {"low": 0.5, "high": 0.6, "confidence": 0.5, "accuracy": share(2, 4)},
            {"low": 0.9, "high": 1.0, "confidence": 1.0, "accuracy": share(8, 8)},
        ]
    }
    svg = ElementTree.fromstring(reliability_panel("m", 0, state, None))
    (diagonal,) = [p.get("d", "") for p in svg.iter("path") if p.get("class") == "chance"]
    (x0, y0), (x1, y1) = ((float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", diagonal))
    (half, full) = re.findall(r"([\d.]+) ([\d.]+)", lines_of(svg)[0])
    assert (float(half[0]), float(half[1])) == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2), abs=0.1)
    assert (float(full[0]), float(full[1])) == pytest.approx((x1, y1), abs=0.1)
    small, large = (float(r.get("height", "")) for r in svg.iter("rect"))
    assert large == pytest.approx(2 * small, abs=0.1)


# --- verification -----------------------------------------------------------------------------------------------------


def test_the_table_of_verification_has_the_counts_of_the_run(run: PageRun) -> None:
    tree = parsed(verification.render([run]))
    rows = [[words(cell).strip() for cell in tr] for tr in tree.iter("tr")]
    for model in run.models:
        for attack in model["attacks"]:
            undone = attack["broken"] - attack["success_8bit"]
            claimed = attack["broken"] + attack["unverified"]
            counts = (attack["attempted"], claimed, attack["unverified"], attack["broken"], undone, 0, 0, 0, 0)
            assert [attack["name"], *(f"{count:,}" for count in counts)] in rows
    assert not [p for p in tree.iter("p") if p.get("class") == "alarm"]


def test_a_success_outside_the_budget_raises_an_alarm(run_folder: Path, tmp_path: Path) -> None:
    def grow(line: dict[str, Any]) -> None:
        if line["attack"] == "pgd" and line["success"] and line["eps"] == 8 / 255:
            line["linf"] = 9 / 255

    run = changed(run_folder, tmp_path / "grown", grow)
    outside = sum(line.succeeded and line.attack == "pgd" and line.eps == 8 / 255 for line in run.lines)
    (alarm, *_) = [words(p) for p in parsed(verification.render([run])).iter("p") if p.get("class") == "alarm"]
    assert alarm.startswith(f"{outside} counted successes lie outside the budget")


# --- all --------------------------------------------------------------------------------------------------------------

SECTIONS = (confusion, factors, confidence, verification)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.NAME)
def test_names_cannot_become_markup(
    section: Any, write_run: Callable[..., Path], tmp_path: Path, run_folder: Path
) -> None:
    folder = write_run(tmp_path / "run", n=60, classes=[EVIL, "<b>", "&amp;"], models={f"m{EVIL}": (0.8, 1.0)})
    data = [msgspec.json.decode(line) for line in (folder / "data.jsonl").read_bytes().splitlines()]
    for line in data:
        line["factors"] = {EVIL: float(line["id"])}
    (folder / "data.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, data)))
    html = section.render([PageRun.read(folder), PageRun.read(run_folder)])
    tree = parsed(html)
    assert not list(tree.iter("script")) and "<script" not in html and EVIL in words(tree)
    assert not any(name.startswith("on") for element in tree.iter() for name in element.attrib)


def test_where_every_attack_failed_that_is_said_and_not_that_there_was_none(run_folder: Path, tmp_path: Path) -> None:
    def fail(line: dict[str, Any]) -> None:
        line["clean"] = line["label"]
        if line["attack"] != "clean":
            line |= {"error": "died", "adv": None, "confidence": None, "success": False, "verified": None}

    run = changed(run_folder, tmp_path / "failed", fail)
    said = {section.NAME: words(parsed(section.render([run]))) for section in SECTIONS}
    assert "300 images ended in an error or were not tried" in said["confusion"]
    assert "Nothing was attacked" not in said["confusion"] and "are left out under attack" in said["confidence"]
    assert "not run" not in said["factors"] and " 0.0 % 0.0–" in said["factors"]


@pytest.mark.parametrize(("norm", "said"), [("linf", "nearest 8-bit image inside"), ("l2", "towards the clean image")])
def test_rounding_is_described_as_it_is_done(norm: str, said: str, run_folder: Path, tmp_path: Path) -> None:
    run = changed(run_folder, tmp_path / norm, lambda line: None)
    run.info["aggregates"]["norm"] = norm
    note = words(parsed(verification.render([run])))
    assert said in note and ("towards the clean" in note) == (norm == "l2")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.NAME)
def test_samples_that_nobody_judged_are_said_to_be_missing(section: Any, run_folder: Path, tmp_path: Path) -> None:
    def fail(line: dict[str, Any]) -> None:
        if line["attack"] == "pgd-margin" and line["id"] % 2:
            line |= {"error": "died", "adv": None, "confidence": None, "success": False, "verified": None}

    run = changed(run_folder, tmp_path / "failed", fail)
    said = words(parsed(section.render([run])))
    if section in (confusion, confidence):
        assert "ended in an error or were not tried" in said
    died = {(line.model, line.id) for line in run.lines if line.error}
    known = {
        (name, a.id) for name, answers in run.answers.items() for a in answers if a.robust or a.attacked is not None
    }
    assert died and not died & known


def test_the_curve_of_a_fit_is_drawn_from_the_upper_left_to_the_lower_right() -> None:
    from robustlab.reporting.figures import loss_curve

    drawn = str(loss_curve([4.0, 2.0, 1.0], 930))
    points = [tuple(map(float, pair.split(","))) for pair in re.findall(r"M([^\"]+)\"/></g>", drawn)[0].split("L")]
    assert [x for x, _ in points] == sorted(x for x, _ in points) and [y for _, y in points] == sorted(
        y for _, y in points
    )
    assert "930" in drawn and loss_curve([1.0], 5) == ""
    axis = re.findall(r'class="axis" d="([^"]+)"', drawn)[0]
    assert axis.count("M") == 2  # two lines that enclose no area: a path is filled where nothing says otherwise


# --- verdict ----------------------------------------------------------------------------------------------------------


def test_how_each_model_was_trained_and_what_it_cost(run_folder: Path, tmp_path: Path) -> None:
    plain = PageRun.read(run_folder)
    assert "Trained by" not in words(parsed(verdict.render([plain])))  # no card says it
    run = changed(run_folder, tmp_path / "run", lambda line: None)
    told = run.info["models"][0] | {"trained": {"by": EVIL, "epochs": 6, "seconds": 75.0, "hardware": "A processor"}}
    run = PageRun(run.stored, run.info | {"models": [told, *run.info["models"][1:]]})
    tree = parsed(verdict.render([run]))
    cells = [words(cell) for cell in tree.iter("td") if cell.get("data-label") == "Trained by"]
    assert cells[0] == f"{EVIL}6 epochs, 1 min 15 s" and set(cells[1:]) == {"not known"}
