"""Tables of backdoors' runs, by the command."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from robustlab.cli import main
from robustlab.runs import read_run
from robustlab.runs.backdoors import summary

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(write_backdoor: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backdoor(tmp_path_factory.mktemp("runs") / "demo")


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["table", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_defenses_are_the_summary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(capsys, folder, "defenses", "--format", "csv"))))
    known = summary(read_run(folder).info)
    assert [row["row"] for row in rows] == [row["row"] for row in known]
    for row, numbers in zip(rows, known, strict=True):
        for key in ("clean", "asr", "auroc", "tpr", "fpr"):
            spread = numbers[key] or {"value": None, "low": None, "high": None}  # type: ignore[literal-required]
            found = (row[key], row[f"{key}_low"], row[f"{key}_high"])
            assert found == tuple("" if (v := spread[end]) is None else str(v) for end in ("value", "low", "high"))
    text = printed(capsys, folder, "defenses")
    assert "| robust-z | 87.6 (87.4–87.8) | 1.3 (1.1–1.6) | 87.8 (87.8–87.8) | 0.999 | 97.5 | 0.3 | 60 | 1 |" in text
    assert "| undefended |" in text and "no confidence interval" in text and "5 % of the target class" in text


def test_by_layer_and_by_seed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "| conv2 | 3,136 | abl | 0.710 |" in printed(capsys, folder, "by-layer")
    text = printed(capsys, folder, "by-seed")
    assert text.count("| undefended |") == 3 and "| 0 | spectral | 7,940 | 86.8 (83.6–89.5) |" in text
    assert "95 % Wilson" in text


def test_several_runs_in_one(
    folder: Path, write_backdoor: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_backdoor(tmp_path / "other", target=None, seeds=1)
    text = printed(capsys, folder, other, "defenses")
    assert "| Run |" in text and "| other | perfect | 88.2 |" in text
    assert "other: trigger badnets, 5 % of the data, all to all" in text


def test_what_is_refused(
    folder: Path, run_folder: Path, write_backdoor: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_backdoor(tmp_path / "empty", sections=[])
    for words, message in (
        ((run_folder, "defenses"), "is no run of a backdoor: there is no defenses in it"),
        ((empty, "by-layer"), "empty has nothing for by-layer. It has: nothing yet."),
        ((folder, "verdict"), "demo is no attack run: it has no verdict."),
        ((folder, "success"), "is no run of a sticker or a patch"),
        ((folder, "defences"), "Did you mean 'defenses'?"),
    ):
        assert main(["table", *map(str, words)]) == 2
        assert message in capsys.readouterr().err
