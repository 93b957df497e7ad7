"""Figures for a paper: true to the run, the same bytes every time, and nobody's settings touched."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.reporting.plots import FIGURES, draw, security_curve
from robustlab.reporting.source import PageRun

BEGINS = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}


@pytest.fixture(scope="module")
def run(run_folder: Path) -> PageRun:
    return PageRun.read(run_folder)


def without_curve(run: PageRun) -> PageRun:
    models = [model | {"curve": []} for model in run.models]
    return PageRun(run.stored, run.info | {"aggregates": run.numbers | {"models": models}})


def test_the_curve_is_drawn_where_the_numbers_are(run: PageRun) -> None:
    (axes,) = security_curve(run).axes
    chance, headline = axes.lines[-2:]
    for model, line, band in zip(run.models, axes.lines, axes.collections, strict=False):
        points = [(p["eps"], 100 * p["share"]["value"]) for p in model["curve"]]
        np.testing.assert_allclose(np.column_stack(line.get_data()), points)
        low, high = (100 * np.array([p["share"][end] for p in model["curve"]]) for end in ("low", "high"))
        edge = {(round(float(x), 9), round(float(y), 9)) for x, y in band.get_paths()[0].vertices}
        assert {(round(p["eps"], 9), round(float(y), 9)) for p, y in zip(model["curve"], low, strict=True)} <= edge
        assert {(round(p["eps"], 9), round(float(y), 9)) for p, y in zip(model["curve"], high, strict=True)} <= edge
    assert chance.get_ydata() == pytest.approx([100 / 8] * 2) and headline.get_xdata() == pytest.approx([8 / 255] * 2)
    assert len({line.get_marker() for line in axes.lines[:2]}) == 2  # told apart without colour


@pytest.mark.parametrize("format", BEGINS)
def test_the_same_run_gives_the_same_bytes_whatever_the_settings(run: PageRun, format: str) -> None:
    first = draw(run, "security-curve", format)
    with matplotlib.rc_context({"axes.grid": True, "font.size": 20, "svg.fonttype": "path", "font.family": "serif"}):
        before = dict(matplotlib.rcParams)
        assert draw(run, "security-curve", format) == first
        assert dict(matplotlib.rcParams) == before
    assert first.startswith(BEGINS[format]) and len(first) < 100_000


def test_text_stays_text(run: PageRun) -> None:
    svg = ElementTree.fromstring(draw(run, "security-curve", "svg"))
    words = {text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"road-signs/cnn", "road-signs/cnn-robust", "chance, 1 of 8 classes", "verdict at ε = 8/255"} <= words
    assert {"16/255", "budget ε (L∞)", "accuracy in %, n = 300"} <= words
    assert b"/Type3" not in (pdf := draw(run, "security-curve", "pdf")) and b"/CIDFontType2" in pdf


def test_the_axis_says_what_it_is_the_share_of(run: PageRun) -> None:
    def axis(**config: object) -> tuple[str, bool]:
        info = run.info | {"config": run.info["config"] | config}
        figure = security_curve(PageRun(run.stored, info))
        return figure.axes[0].get_ylabel(), any("chance" in str(line.get_label()) for line in figure.axes[0].lines)

    targeted = run.info["config"]["threat"] | {"targeted": True, "target": "random"}
    assert axis() == ("accuracy in %, n = 300", True)
    assert axis(labels="predicted") == ("own answer kept in %, n = 300", True)
    assert axis(threat=targeted) == ("right, not the target in %, n = 300", False)
    assert axis(threat=targeted, labels="predicted") == ("not the target in %, n = 300", False)


def test_names_are_only_names(write_run: Callable[..., Path], tmp_path: Path) -> None:
    names = ["_$x^2$_ & <b>", "two"]
    run = PageRun.read(write_run(tmp_path / "run", n=40, models={name: (0.9, 2.0) for name in names}))
    svg = ElementTree.fromstring(draw(run, "security-curve", "svg"))
    words = [text.text or "" for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {name.strip() for name in words} >= set(names)


def test_a_figure_comes_from_the_command_without_torch_or_pyplot(run_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from robustlab.cli import main; code = main(sys.argv[1:]);"
        "print(code, *(name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules))"
    )
    words = ["plot", str(run_folder), "security-curve", "--output", "figures/curve.pdf"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["figures/curve.pdf", "0"] and done.stderr == ""
    assert (tmp_path / "figures" / "curve.pdf").read_bytes().startswith(b"%PDF")


def test_the_default_is_an_svg_named_after_the_figure(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plot", str(run_folder), "security-curve"]) == 0
    assert capsys.readouterr().out == "security-curve.svg\n"
    assert Path("security-curve.svg").read_bytes().startswith(b"<?xml")
    assert main(["plot", str(run_folder), "security-curve"]) == 2
    assert "is there already. Add --overwrite" in capsys.readouterr().err
    assert main(["plot", str(run_folder), "security-curve", "--overwrite", "--format", "png"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give a run folder and the figure (security-curve, distance): robustlab plot RUN security-curve."),
        (["security-curve"], "Give the run folder before the figure"),
        (["RUN"], "Which figure? Name it after the run folders"),
        (["security-curve", "RUN"], "The figure comes after the run folders: robustlab plot RUN security-curve"),
        (["RUN", "securty-curve"], "There is no figure 'securty-curve'. Did you mean 'security-curve'?"),
        (["nowhere", "security-curve"], "nowhere is not a run folder"),
        (["RUN", "security-curve", "--output", "x.jpg"], "x.jpg does not say which format: end it in .svg, .pdf, .png"),
        (["RUN", "security-curve", "--output", "x.svg", "--format", "pdf"], "do not agree"),
        (["RUN", "security-curve", "--format", "gif"], '"gif"'),
        (["RUN", "security-curve", "--output", "."], "is a folder"),
    ],
)
def test_a_command_that_cannot_work_says_why(
    words: list[str],
    said: str,
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *(str(run_folder) if word == "RUN" else word for word in words)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("robustlab: ") and said in re.sub(re.escape(str(run_folder)), "RUN", err)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_curve_says_what_to_do(run: PageRun) -> None:
    with pytest.raises(UserError, match="has no security curve.*robustlab table RUN attacks"):
        draw(without_curve(run), "security-curve", "svg")


def test_the_help_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "--help"]) == 0
    words = capsys.readouterr().out
    assert all(name in words for name in FIGURES)
