"""The page of a backdoor's run: its numbers are those of run.json, whatever else is there or missing."""

from __future__ import annotations

import html
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robustlab.base.errors import UserError
from robustlab.base.words import percent
from robustlab.reporting import report
from robustlab.reporting.backdoor_words import in_words
from robustlab.reporting.page import page as page_of
from robustlab.reporting.source import PageRun
from robustlab.runs import read_run
from robustlab.runs.backdoors import summary
from robustlab.verification import verify

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(write_backdoor: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backdoor(tmp_path_factory.mktemp("runs") / "demo")


def shown(folder: Path) -> str:
    return report([folder], folder / "report.html").read_text(encoding="utf-8")


def change(folder: Path, section: str, change: Callable[[list[Any]], Any]) -> Path:
    """run.json with other rows in a section."""
    info = json.loads((folder / "run.json").read_text())
    change(next(each["rows"] for each in info["sections"] if each["name"] == section))
    (folder / "run.json").write_text(json.dumps(info))
    return folder


def test_the_numbers_are_those_of_run_json(folder: Path) -> None:
    page = shown(folder)
    table = page.split('<table class="defenses">')[1].split("</table>")[0]
    rows = dict(re.findall(r'<tr><th scope="row">([^<]+)(.*?)</tr>', table, re.S))
    for row in summary(read_run(folder).info):
        cells = rows[row["row"]]
        for key in ("clean", "asr", "right", "tpr", "fpr"):
            assert (percent(row[key]) in cells) if row[key] else ("–" in cells)  # type: ignore[literal-required]
        assert f"{row['auroc']['value']:.3f}" in cells if row["auroc"] else True
    assert "knew: eps and the target class" in rows["spectral"]
    assert "3 seeds" in table and "500 clean test images, 450 with the trigger" in table
    assert "Further sections" not in page


def test_what_is_said_first(folder: Path) -> None:
    lead = html.unescape(shown(folder).split('<ul class="lead">')[1].split("</ul>")[0]).replace("\u00a0", " ")
    assert "5 % of the images labelled Shirt (0.5 % of all 8,000 training images of fashion-mnist)" in lead
    assert "Undefended, 98.2 % (98.0–98.4) of 450 test images with the trigger are read as Shirt" in lead
    assert "robust-z is the best" in lead and "97.1 % (96.9–97.3) after “random, as many as spectral”" in lead
    assert "0.4 points above the perfect filter's (within 2 points)" in lead
    assert "(spectral) is no better here than removing images at random" in lead


def test_a_published_filter_that_works_is_not_blamed(write_backdoor: Write, tmp_path: Path) -> None:
    def works(rows: list[Any]) -> None:
        for row in rows:
            if row["row"] == "spectral":
                row["asr"] = {"value": 0.02, "low": 0.01, "high": 0.03, "n": 450}

    assert "is no better here" not in shown(change(write_backdoor(tmp_path / "run"), "results", works))


def test_a_backdoor_that_does_not_work_says_nothing_of_the_filters(write_backdoor: Write, tmp_path: Path) -> None:
    def idle(rows: list[Any]) -> None:
        for row in rows:
            row["asr"] = {"value": 0.02, "low": 0.01, "high": 0.03, "n": 450}

    page = shown(change(write_backdoor(tmp_path / "run"), "results", idle))
    assert "The backdoor itself does not work here" in page and "The best filter" not in page
    assert "The backdoor itself does not work" in in_words(read_run(tmp_path / "run").info)[-1]


def test_pictures_and_charts(folder: Path) -> None:
    page = shown(folder)
    assert page.count("<img") == 5 and page.count('class="panel"') == 5
    assert all(
        f'alt="{alt}' in page for alt in ("Three rows: test images", "The images with the highest scores of abl")
    )
    assert page.count('class="threshold"') == 2 and "The heat lies on the trigger." in page
    assert "abl, logarithmic" in page and ">1e+06<" in page and ">−1.5<" in page


def test_provenance_says_what_was_tried(folder: Path) -> None:
    facts = shown(folder).split('id="provenance"')[1]
    assert (
        "8,000 and 1,000 images" in facts
        and "badnets (size 3); filters: spectral, robust-z, abl; repairs: fine-pruning" in facts
    )
    assert "<dt>Times</dt><dd>retrained 5.0\u00a0s</dd>" in facts and "no attack" not in facts
    assert "Attacks search" not in facts and "before and after each attack" not in facts


def test_the_same_input_gives_the_same_bytes(folder: Path) -> None:
    assert shown(folder) == shown(folder)


@pytest.mark.parametrize("gone", ["trigger", "models", "filters", "scores", "projection", "results", "heat", "all"])
def test_a_section_that_is_missing_does_no_harm(gone: str, write_backdoor: Write, tmp_path: Path) -> None:
    folder = write_backdoor(tmp_path / "run")
    info = json.loads((folder / "run.json").read_text())
    info["sections"] = [s for s in info["sections"] if gone not in (s["name"], "all")]
    (folder / "run.json").write_text(json.dumps(info))
    page = shown(folder)
    assert 'id="backdoor"' in page and "None" not in page.split('id="provenance"')[0]


def test_all_to_all_has_no_target(write_backdoor: Write, tmp_path: Path) -> None:
    page = shown(write_backdoor(tmp_path / "run", target=None, seeds=1)).split('id="provenance"')[0]
    assert "None" not in page and "as the class that the trigger stands for" in page and "1 seed" in page


def test_names_are_escaped(write_backdoor: Write, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder = write_backdoor(tmp_path / "run", target=evil)

    def named(rows: list[Any]) -> None:
        for row in rows:
            for key in ("filter", "row", "class", "layer", "knew"):
                row[key] = evil if key in row else row.get(key)

    for section in ("filters", "scores", "spectrum", "projection", "by layer", "results"):
        change(folder, section, lambda rows: named(rows[-1:]))
    page = shown(folder)
    assert evil not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("results", "asr", 0.5),
        ("results", "seed", [1]),
        ("results", "kind", "best"),
        ("scores", "clean", []),
        ("scores", "low", "x"),
        ("projection", "clean_x", None),
        ("filters", "auroc", 2),
    ],
)
def test_damaged_rows_are_said_to_be_damaged(
    section: str, key: str, value: Any, write_backdoor: Write, tmp_path: Path
) -> None:
    folder = change(write_backdoor(tmp_path / "run"), section, lambda rows: rows[0].update({key: value}))
    with pytest.raises(UserError, match="is damaged: sections"):
        shown(folder)


def test_whatever_stands_in_run_json_is_shown_or_refused(write_backdoor: Write, tmp_path: Path) -> None:
    """Each leaf of a sample becomes something else; what is not shown is a UserError, never a traceback."""
    folder, draw = write_backdoor(tmp_path / "run", seeds=2), random.Random(0)
    info = json.loads((folder / "run.json").read_text())
    every = list(leaves(info["sections"], ("sections",))) + list(leaves(info["config"], ("config",)))
    shown_ones = 0
    for at in draw.sample(every, 40):
        changed = json.loads(json.dumps(info))
        inner = changed
        for key in at[:-1]:
            inner = inner[key]
        inner[at[-1]] = draw.choice([None, "x", -1, 1.5, 1e308, 10**30, True, [], {}, [{}], {"value": 1}])
        (folder / "run.json").write_text(json.dumps(changed))
        try:
            run = PageRun.read(folder)
        except UserError:
            continue
        assert page_of([run]) and in_words(run.info)
        shown_ones += 1
    assert 0 < shown_ones < 40


def leaves(value: Any, at: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Where something is in a JSON value; of a list its first and last item."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else sorted({0, len(value) - 1} if value else ())
        for key in keys:
            yield from leaves(value[key], (*at, key))
    else:
        yield at


def test_beside_other_runs(folder: Path, run_folder: Path, write_backdoor: Write, tmp_path: Path) -> None:
    other = write_backdoor(tmp_path / "other")
    page = report([folder, run_folder, other], tmp_path / "page.html").read_text()
    assert "<h3>demo</h3>" in page and "<h3>other</h3>" in page and 'id="verdict"' in page


def test_verify_says_that_it_is_another_kind(folder: Path) -> None:
    with pytest.raises(UserError, match="is no run of `robustlab attack`"):
        verify(folder)
