"""`overwrite`: the run that is there stays until the new one is whole, wherever the new one is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robustlab.base.errors import RunError, UserError
from robustlab.runs import Run, read_run

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "runs"))
from test_folder import CONFIG, UNITS, finished, lines_of, start, work  # noqa: E402

__all__ = ["finished"]
MINE = {"notes.md": "mine", "images/holiday.png": "mine", "parts/notes.txt": "mine", "adversarial/mine": "mine"}
NEW = {"command": "new"}


def fill(folder: Path) -> None:
    for name, text in MINE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def mine(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in MINE}


def is_new(folder: Path) -> bool:
    return bool(json.loads((folder / "run.json").read_text())["command"])


def test_the_old_run_stays_until_the_new_one_is_whole(finished: Path) -> None:
    fill(finished)
    old = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with start(finished, overwrite=True, about=NEW) as run:
        run.write_unit(*UNITS[0], lines_of(*UNITS[0]))
    assert {path: path.read_bytes() for path in old} == old and not read_run(finished).info["command"]
    with pytest.raises(UserError, match=r"already holds a run \(and in \.new one that was to replace it\)"):
        start(finished)
    with pytest.raises(UserError, match="seed was 0, now 1"):
        start(finished, CONFIG | {"seed": 1}, resume=True)
    with start(finished, resume=True) as run:
        assert run.has_unit(*UNITS[0]) and not run.has_unit(*UNITS[1])
    with start(finished, overwrite=True, about=NEW) as run:  # from the start
        assert not run.has_unit(*UNITS[0])
        Run.beside(finished).write_unit(*UNITS[1], lines_of(*UNITS[1]))  # as another process of torchrun
        assert run.has_unit(*UNITS[1])
        work(run)
    assert is_new(finished) and mine(finished) == MINE and not (finished / ".new").exists()
    assert len(read_run(finished).lines) == 36


KILLED = """
import json, os, shutil, sys
sys.path[:0] = sys.argv[2:]
import test_replacing as r
from killing import die_at
from pathlib import Path

os.fsync = lambda file: None
base = Path(sys.argv[1])
with r.start(base / "old") as run:
    r.work(run)
r.fill(base / "old")
(base / "old" / "images" / "holiday.png").write_text("mine")
wanted = (base / "old" / "samples.jsonl").read_bytes()


def in_a_child(act, point):
    child = os.fork()
    if child == 0:
        die_at(point)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def write(folder, **flags):
    with r.start(folder, about=r.NEW, **flags) as run:
        r.work(run)


survived, point, during, at_the_end = False, 0, 0, 0
while not survived:
    point += STEP if point < 150 else 4
    folder = base / "killed"
    shutil.copytree(base / "old", folder)
    survived = in_a_child(lambda: write(folder, overwrite=True), point)
    try:  # either is whole, or it says so
        run = r.read_run(folder)
        during += not run.info["command"]
        assert (folder / "samples.jsonl").read_bytes() == wanted and run.lines, point
        assert all((folder / file).is_file() for image in run.images for file in (image["clean"], image["adv"])), point
    except r.UserError as error:
        assert "not finished" in str(error), (point, error)
        at_the_end += 1
    assert r.mine(folder) == r.MINE, point
    if not survived:
        in_a_child(lambda: write(folder, resume=True), 1 + point % 40)  # and killed once more on the way
    write(folder, resume=True)
    assert (folder / "samples.jsonl").read_bytes() == wanted, point
    assert r.mine(folder) == r.MINE, point
    left = sorted(path.name for path in folder.iterdir())
    ours = {"data.jsonl", "images", "run.json", "samples.jsonl", "notes.md", "parts", "adversarial"}
    assert set(left) == ours, (point, left)
    assert len(list((folder / "images").iterdir())) == 4, point
    shutil.rmtree(folder)
print(point, during, at_the_end)
"""


def killed(tmp_path: Path, step: int) -> tuple[int, int, int]:
    paths = [str(TESTS.parent), str(TESTS), str(TESTS / "runs")]
    script = KILLED.replace("STEP", str(step))
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    points, during, at_the_end = map(int, done.stdout.split())
    return points, during, at_the_end


def test_killed_while_it_replaces_a_run(tmp_path: Path) -> None:
    """Some moments while the new run is written, and each while it takes the old one's place."""
    points, during, at_the_end = killed(tmp_path, 37)
    assert points > 200 and during > 3 and at_the_end > 3, (points, during, at_the_end)


APPEARED = ["samples.jsonl", "images/clean-0.png", "parts/net_a--fgsm--0.03137254901960784--00001.jsonl"]


@pytest.mark.parametrize("name", APPEARED)
def test_a_file_that_somebody_makes_meanwhile_is_not_replaced(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start(folder) as run:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
        with pytest.raises(RunError, match="appeared while the run was going on.*resume=True"):
            work(run)
    with pytest.raises((UserError, RunError), match="is not robustlab's"), start(folder, resume=True) as run:
        work(run)
    assert (folder / name).read_text() == "mine"
    (folder / name).unlink()
    with start(folder, resume=True) as run:
        work(run)
    assert len(read_run(folder).lines) == 36


def test_a_file_that_somebody_makes_before_the_swap(finished: Path) -> None:
    every = {f"images/clean-{i}.png" for i in range(6)}
    others = [finished / name for name in every - {image["clean"] for image in read_run(finished).images}]
    with start(finished, CONFIG | {"keep": 2}, overwrite=True, about=NEW) as run:
        for path in others:
            path.write_text("mine")
        with pytest.raises(RunError, match=r"images/clean-\d.png is not robustlab's.*Move it away"):
            work(run)
    assert not is_new(finished) and read_run(finished).lines
    assert {path.read_text() for path in others} == {"mine"}
    for path in others:
        path.unlink()
    start(finished, CONFIG | {"keep": 2}, resume=True).close()
    assert is_new(finished) and read_run(finished).lines


def test_a_page_that_somebody_makes_meanwhile_is_not_named(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        (tmp_path / "run" / "report.html").write_text("mine")
        work(run)
    assert "report.html" not in read_run(tmp_path / "run").info["files"]


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def replaced(folder: Path) -> None:
    moved(folder)
    folder.mkdir()
    (folder / "parts").mkdir()


def linked(folder: Path) -> None:
    moved(folder)
    folder.with_name("away").mkdir()
    folder.symlink_to(folder.with_name("away"))


def parts_linked(folder: Path) -> None:
    folder.with_name("away").mkdir()
    shutil.rmtree(folder / "parts")
    (folder / "parts").symlink_to(folder.with_name("away"))


@pytest.mark.parametrize("change", [moved, replaced, linked, parts_linked])
@pytest.mark.parametrize("flags", [{}, {"overwrite": True}])
def test_a_folder_that_changes_under_a_run(
    change: Callable[[Path], None], flags: dict[str, bool], tmp_path: Path, finished: Path
) -> None:
    folder = finished if flags else tmp_path / "other"
    with start(folder, **flags) as run:
        run.write_unit(*UNITS[0], lines_of(*UNITS[0]))
        inside = folder / ".new" if flags and change is parts_linked else folder
        change(inside)
        before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
        with pytest.raises(RunError, match=r"was moved, removed or replaced|Cannot write"):
            run.write_unit(*UNITS[1], lines_of(*UNITS[1]))
        assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
