"""Tables for a paper: the run's numbers, in three formats, with nothing that a name could break."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from robustlab.base import intervals
from robustlab.base.errors import UserError
from robustlab.base.words import visible
from robustlab.cli import main
from robustlab.reporting.source import PageRun
from robustlab.reporting.tables import FORMATS, TABLES, written

EVIL = "a_b & 50% #1 {x} \\ ^ ~ $y$ | <script>\n*z*"


@pytest.fixture(scope="module")
def run(run_folder: Path) -> PageRun:
    return PageRun.read(run_folder)


@pytest.fixture(scope="module")
def evil(write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> PageRun:
    folder = tmp_path_factory.mktemp("evil") / "run"
    models = {EVIL: (0.9, 2.0), "net": (0.9, 9.0)}
    cell = {"target": "net", "white_box": False, "turned": intervals.share(3, 36), "errors": 0, "reason": None}
    empty = cell | {"turned": None, "reason": EVIL}
    board = {"name": "transfer-matrix", "attack": EVIL, "rows": [cell | {"source": EVIL}, empty | {"source": "other"}]}
    classes = [EVIL, "b", "c", "d"]
    return PageRun.read(write_run(folder, n=40, models=models, classes=classes, sections=[board]))


def rows(run: PageRun, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written(run, name, "csv"))))


def test_csv_has_the_numbers_as_they_were_computed(run: PageRun) -> None:
    found = rows(run, "attacks")
    stored = [(model["name"], attack) for model in run.models for attack in model["attacks"]]
    assert [(row["model"], row["attack"]) for row in found] == [(name, attack["name"]) for name, attack in stored]
    for row, (_, attack) in zip(found, stored, strict=True):
        for key, end in (("left", "value"), ("left_low", "low"), ("left_high", "high"), ("left_n", "n")):
            assert float(row[key]) == attack["left"][end]
        assert float(row["success_rate"]) == attack["success_rate"]["value"]
        assert (int(row["broken"]), int(row["attempted"])) == (attack["broken"], attack["attempted"])
        assert float(row["eps"]) == 8 / 255 and row["norm"] == "linf"
    assert [float(row["accuracy"]) for row in rows(run, "curve")] == [
        point["share"]["value"] for model in run.models for point in model["curve"]
    ]
    (pair,) = run.numbers["pairs"]
    clean, robust = rows(run, "differences")
    assert float(clean["p"]) == pair["clean"]["p"] and float(robust["value"]) == pair["robust"]["value"]


def test_confusion_counts_every_image(run: PageRun) -> None:
    found = rows(run, "confusion")
    for model in run.models:
        own = [row for row in found if row["model"] == model["name"]]
        for kind, share in (("clean", model["clean_accuracy"]), ("attacked", model["robust_accuracy"])):
            assert sum(int(row[kind]) for row in own) == model["n"] == 300
            diagonal = sum(int(row[kind]) for row in own if row["true"] == row["predicted"])
            assert diagonal == round(share["value"] * 300)


def test_factors_come_from_the_data(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", n=60, models={"net": (0.9, 2.0)})
    lines = [f'{{"id":{i},"label":{i % 8},"factors":{{"light":{i % 2}}}}}' for i in range(60)]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    run = PageRun.read(folder)
    dark, light = rows(run, "factors")
    assert (dark["factor"], dark["low"], dark["n"], light["low"], light["n"]) == ("light", "0.0", "30", "1.0", "30")
    right = 30 * (float(dark["clean"]) + float(light["clean"]))
    assert round(right) == round(60 * run.models[0]["clean_accuracy"]["value"])
    for line in lines:
        assert "light" in line
    (folder / "data.jsonl").write_text("".join(f'{{"id":{i},"label":{i % 8}}}\n' for i in range(60)))
    with pytest.raises(UserError, match="nothing for the table factors: its data have no factors"):
        written(PageRun.read(folder), "factors", "csv")


def test_what_was_not_run_is_empty_or_said(run: PageRun) -> None:
    model = run.models[0] | {"robust_accuracy": None, "robust_accuracy_8bit": None, "attacks": [], "worst_class": None}
    bare = PageRun(run.stored, run.info | {"aggregates": run.numbers | {"models": [model], "pairs": []}})
    (row,) = rows(bare, "verdict")
    assert row["robust_accuracy"] == row["robust_accuracy_n"] == row["worst_class"] == "" and row["clean_accuracy_n"]
    assert "| not run | not run | – | not run |" in written(bare, "verdict", "markdown")
    for name, why in (("attacks", "no attack was run"), ("differences", "it has one model")):
        with pytest.raises(UserError, match=why):
            written(bare, name, "latex")
    train = PageRun(run.stored, {k: v for k, v in run.info.items() if k != "aggregates"})
    with pytest.raises(UserError, match="no attack run"):
        written(train, "verdict", "csv")


@pytest.mark.parametrize("name", [name for name in TABLES if name != "factors"])
def test_names_break_no_format(evil: PageRun, name: str) -> None:
    latex = written(evil, name, "latex")
    body = latex.split("\\toprule\n")[1].split("\\bottomrule")[0].splitlines()
    columns = len(re.findall("[lr]", re.findall(r"tabular}{([lr]+)}", latex)[0]))
    for line in body:
        if line != "\\midrule":
            assert line.endswith(" \\\\") and len(re.findall(r"(?<!\\)&", line)) == columns - 1
    text = re.sub(r"\$(-|\\infty|\\varepsilon|\\times)\$", "", latex.split("\n", 1)[1])  # ours
    assert not re.search(r"(?<!\\)[#$%_^]", text) and "<" not in text and "|" not in text
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")

    table, caption = written(evil, name, "markdown").split("\n\n")
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
    assert widths == {columns + 1} and "<script>" not in table.replace("\\<script\\>", "")
    assert "n = 40" in caption and "test split" in caption

    assert any(visible(EVIL) in row.values() for row in rows(evil, name))


def test_every_table_has_n_and_says_which_intervals(run: PageRun) -> None:
    for name in ("verdict", "differences", "attacks", "curve"):
        caption = written(run, name, "markdown").split("\n\n")[1]
        assert "n = 300" in caption and "L∞ ε = 8/255" in caption.replace("\u00a0", " ")
        assert ("Newcombe's 95 %" if name == "differences" else "95 % Wilson intervals") in caption


def test_what_is_robust_and_what_is_left_out_is_said(run: PageRun) -> None:
    assert "target" not in written(run, "verdict", "markdown") + written(run, "attacks", "markdown")
    assert "ended in an error or were not tried are left out" in written(run, "confusion", "markdown")
    threat = run.info["config"]["threat"] | {"targeted": True, "target": "random"}
    targeted = PageRun(run.stored, run.info | {"config": run.info["config"] | {"threat": threat}})
    for name in ("verdict", "attacks", "curve", "factors"):
        assert "robust: right, and not turned into the target" in written(targeted, name, "markdown")
    left = written(targeted, "attacks", "markdown")
    assert "not turned into the target by this attack" in left and "still classified right" not in left
    (first, _) = rows(run, "verdict")
    assert int(first["worst_class_ties"]) == run.models[0]["worst_class"]["ties"]


def test_only_the_table_is_on_stdout(run_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = PageRun.read(run_folder)
    for format in FORMATS:
        assert main(["table", str(run_folder), "attacks", "--format", format]) == 0
        assert capsys.readouterr() == (written(run, "attacks", format), "")
    assert main(["table", str(run_folder), "verdict"]) == 0
    assert capsys.readouterr().out == written(run, "verdict", "markdown")
    for ending, format in (("tex", "latex"), ("csv", "csv"), ("md", "markdown")):
        target = tmp_path / f"t.{ending}"
        assert main(["table", str(run_folder), "verdict", "--output", str(target)]) == 0
        assert target.read_text() == written(run, "verdict", format) and capsys.readouterr().out == f"{target}\n"
    assert main(["table", str(run_folder), "verdict", "--output", str(target)]) == 2
    assert main(["table", str(run_folder), "verdict", "--output", str(target), "--overwrite"]) == 0


def test_what_to_know_of_several_runs_is_on_stderr(
    write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [write_run(tmp_path / name, n=40, models={name: (0.9, 2.0)}) for name in ("one", "two")]
    info = msgspec.json.decode((folders[1] / "run.json").read_bytes())
    info["seed"] = info["config"]["seed"] = 3
    (folders[1] / "run.json").write_bytes(msgspec.json.encode(info))
    assert main(["table", *map(str, folders), "verdict", "--format", "csv"]) == 0
    said = capsys.readouterr()
    assert [line.split(",")[0] for line in said.out.splitlines()] == ["model", "one", "two"]
    assert said.err.startswith("Note: two was attacked with seed 3, one with seed 0")


def test_an_unknown_table_is_an_error(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(run_folder), "atacks"]) == 2
    err = capsys.readouterr().err
    assert "There is no table 'atacks'. Did you mean 'attacks'?" in err and ", ".join(TABLES) in err


def test_the_help_names_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "--help"]) == 0
    words = capsys.readouterr().out
    assert all(name in words for name in TABLES)
