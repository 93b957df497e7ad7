"""The same images before and after a defense: which pairs, the four cells, and the pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.reporting.comparison import compare, read_runs
from robustlab.reporting.sections import before_after
from robustlab.reporting.source import PageRun

Json = dict[str, Any]
Write = Callable[..., Path]
MODELS = {"plain": (0.97, 6.0), "trained": (0.93, 9.0)}
TRAINED = {"plain": "plain", "trained": "pgd-at"}


def described(folder: Path, by: Json, size: Json | None = None) -> Path:
    """The run, with how its models were trained."""
    info = json.loads((folder / "run.json").read_text())
    for model in info["models"]:
        if model["name"] in by:
            model["trained"] = {"by": by[model["name"]]}
        model["parameters"] = (size or {}).get(model["name"], 7)
    (folder / "run.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def run(write_run: Write, tmp_path_factory: pytest.TempPathFactory) -> PageRun:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return PageRun.read(described(write_run(folder, n=120, models=MODELS), TRAINED))


def test_the_four_cells_count_every_image_once(run: PageRun) -> None:
    html = str(before_after.render([run]))
    robust = [{a.id for a in run.answers[name] if a.robust} for name in MODELS]
    right = [{a.id for a in run.answers[name] if a.right} for name in MODELS]
    (pair,) = run.pairs
    for (first, second), kind in ((right, "clean"), (robust, "robust")):
        cells = [len(first & second), len(first - second), len(second - first), 120 - len(first | second)]
        assert sum(cells) == 120 and min(cells[:3]) >= 0
        row = html.split("clean images" if kind == "clean" else '<th scope="row">under attack')[1].split("</tr>")[0]
        said = re.findall(r">([^<]+)</td>", row)
        assert [int(count) for count in said[:4]] == cells
        assert pair[kind]["only_first"] == cells[1] and pair[kind]["only_second"] == cells[2]
    assert cells[1] and cells[2] and cells[3]


def test_the_pictures_say_what_became_of_each_image(run: PageRun) -> None:
    html = str(before_after.render([run]))
    rows = re.findall(r"<li>(.*?)</li>", html, re.S)
    assert 3 < len(rows) <= before_after.ROWS
    answers = [{a.id: a for a in run.answers[name]} for name in MODELS]
    seen = set()
    for row in rows:
        i = int(re.findall(r"sample (\d+)", row)[0])
        truth, *after = re.findall(r"<figcaption>(.*?)</figcaption>", row)
        assert truth == run.class_name(answers[0][i].label) and row.count("data:image/png") == 3
        for said, mine in zip(after, answers, strict=True):
            if mine[i].robust:
                assert said == f"✓ {truth}, withstood"
            else:
                assert said == f"✗ {run.class_name(mine[i].attacked)} ({mine[i].attack})"
        seen.add(tuple(said[0] for said in after))
    assert len(seen) > 2  # the cells take turns


@pytest.mark.parametrize(
    ("by", "size", "pairs"),
    [
        (TRAINED, {}, 1),
        (TRAINED, {"trained": 8}, 0),  # another architecture
        ({"plain": "plain", "trained": "plain"}, {}, 0),
        ({"plain": "plain", "trained": "plain with ema, from a/b"}, {}, 0),
        ({"plain": "plain", "trained": "plain with awp"}, {}, 1),
        ({}, {}, 0),  # one run of two models, of which nothing is known
    ],
)
def test_a_pair_is_a_plain_model_and_one_of_its_size_with_a_defense(
    write_run: Write, tmp_path: Path, by: Json, size: Json, pairs: int
) -> None:
    run = PageRun.read(described(write_run(tmp_path / "run", n=20, models=MODELS), by, size))
    assert len(before_after.found(run)) == pairs and before_after.applies([run]) == bool(pairs)


def test_two_runs_stand_as_they_were_given_where_nothing_is_known(write_run: Write, tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, n=40, models={name: MODELS[name]}) for name in MODELS]
    for given in (folders, folders[::-1]):
        (group,), _ = compare(read_runs(given))
        ((before, after, known),) = before_after.found(group)
        assert [before, after] == [folder.name for folder in given] and "as they were given" in known
        html = before_after.TITLE + str(before_after.render([group]))
        assert not re.search("before (and after )?(a|the) defense", html, re.I)


def test_of_several_plain_models_only_the_start_is_the_one_before(write_run: Write, tmp_path: Path) -> None:
    """The same size alone does not say which of two plain models is the one without the defense."""
    models = {"other": (0.97, 6.0), **MODELS}
    by = {"other": "plain", "plain": "plain", "trained": "pgd-at, from plain"}
    run = PageRun.read(described(write_run(tmp_path / "run", n=20, models=models), by))
    assert [pair[:2] for pair in before_after.found(run)] == [("plain", "trained")]
    unsaid = PageRun.read(described(tmp_path / "run", by | {"trained": "pgd-at"}))
    assert not before_after.found(unsaid)


def test_a_model_behind_a_defense_has_the_bare_one_before_it(run: PageRun) -> None:
    config = run.info["config"]
    models = [config["models"][0], config["models"][1] | {"bare": "plain", "unaware": []}]
    behind = PageRun(run.stored, run.info | {"config": config | {"models": models}})
    assert [pair[:2] for pair in before_after.found(behind)] == [("plain", "trained")]
    assert "trained is plain behind its defense" in str(before_after.render([behind]))
