"""What a notebook shows of a run: its numbers and its curve, and samples as a table. No name is taken for HTML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from robustlab.base.words import percent
from robustlab.runs import StoredRun, read_run
from robustlab.runs.aggregates import Line
from robustlab.runs.notebook import Samples

EXAMPLE = Path(__file__).resolve().parents[2] / "reports" / "example"
EVIL = "<script>alert(1)</script>\u202e"


@pytest.fixture(scope="module")
def run() -> StoredRun:
    return read_run(EXAMPLE)


def cells(html: str) -> list[str]:
    """The cells of all tables; fails where the HTML is not well-formed."""
    tree = ElementTree.fromstring(f"<div>{html}</div>")
    return ["".join(cell.itertext()) for cell in tree.iter() if cell.tag in ("td", "th")]


def test_a_run_shows_its_table_and_its_curve(run: StoredRun) -> None:
    html = run._repr_html_()
    found = cells(html)
    for model in run.info["aggregates"]["models"]:
        assert model["name"] in found and percent(model["robust_accuracy"]) in found
        assert all(attack["name"] in found for attack in model["attacks"])
    lines = [p for p in ElementTree.fromstring(f"<div>{html}</div>").iter("path") if p.find("title") is not None]
    for line, model in zip(lines, run.info["aggregates"]["models"], strict=True):
        assert line.attrib["d"].count("L") == len(model["curve"]) - 1
    heights = [float(y) for y in lines[0].attrib["d"].replace("M", " ").replace("L", " ").split()[1::2]]
    assert heights == sorted(heights)  # accuracy falls with eps, and y grows downwards


def test_samples_are_columns_as_in_the_file(run: StoredRun) -> None:
    rows = [json.loads(row) for row in (EXAMPLE / "samples.jsonl").read_text().splitlines()]
    assert list(run.samples) == list(Line.__struct_fields__) and run.samples.rows == len(rows) > 100
    for name in rows[0]:
        assert run.samples[name] == [row[name] for row in rows]
    assert repr(run.samples).startswith(f"Samples: {len(rows):,} rows, columns model, attack, eps, id")
    assert f"10 of {len(rows):,} rows" in run.samples._repr_html_() and len(cells(run.samples._repr_html_())) == 11 * 20


def test_pandas_takes_samples(run: StoredRun) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(run.samples)
    assert frame.shape == (run.samples.rows, 20)
    clean = frame[(frame.attack == "clean") & (frame.model == "road-signs/cnn")]
    share = run.info["aggregates"]["models"][0]["clean_accuracy"]
    assert (clean.label == clean.clean).mean() == pytest.approx(share["value"])


def test_hostile_names_stay_text(run: StoredRun) -> None:
    info: dict[str, Any] = json.loads(json.dumps(run.info).replace("road-signs/cnn-robust", json.dumps(EVIL)[1:-1]))
    html = StoredRun(EXAMPLE, info | {"name": EVIL})._repr_html_()
    assert "<script>" not in html and "\u202e" not in html and "&lt;script&gt;" in html
    assert "<script>" not in Samples(model=[EVIL])._repr_html_()


def test_a_run_of_another_kind_says_what_it_is() -> None:
    assert "a finished run (backdoor)" in read_run(EXAMPLE.with_name("example-backdoor"))._repr_html_()
    assert Samples().rows == 0 and Samples()._repr_html_()
