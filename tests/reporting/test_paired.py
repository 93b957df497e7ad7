"""Several models on one page: differences corrected for all pairs, models against attacks, cost against gain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robustlab.reporting import report
from robustlab.reporting.sections.verdict import paired, sentences
from robustlab.reporting.source import PageRun

MODELS = {"a": (0.97, 6.0), "b": (0.95, 7.0), "c": (0.93, 14.0)}


@pytest.fixture(scope="module")
def three(write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "three", n=60, models=MODELS)


def test_p_is_corrected_for_all_pairs_and_the_page_says_so(three: Path, run_folder: Path, tmp_path: Path) -> None:
    run = PageRun.read(three)
    pairs = paired(run)
    plain = sorted(pair["robust"]["p"] for pair in pairs)
    assert len(pairs) == 3
    assert sorted(pair["robust"]["holm"] for pair in pairs)[0] == pytest.approx(min(1, 3 * plain[0]))
    assert all(pair[kind]["holm"] >= pair[kind]["p"] for pair in pairs for kind in ("clean", "robust"))
    page = report([three], tmp_path / "three.html").read_text()
    assert "p is Holm-corrected over all 3 pairs" in page and "McNemar, Holm" in page
    assert "Holm" not in report([run_folder], tmp_path / "two.html").read_text()  # one pair: nothing to correct


def test_a_difference_that_the_correction_takes_is_not_claimed(three: Path) -> None:
    run = PageRun.read(three)
    for pair in run.numbers["pairs"]:
        pair["robust"] |= {"p": 0.02, "value": 0.1, "low": 0.01, "high": 0.2}
    said = " ".join(sentences(run))
    assert said.count("do not show that") == 3 and "(McNemar p = 0.060, Holm-corrected)" in said
