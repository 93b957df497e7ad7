"""The run folder on a real disk: resume, kill, lock, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from robustlab.base.errors import RunError, UserError
from robustlab.base.files import config_hash
from robustlab.runs import Run, read_run

CONFIG: dict[str, Any] = {
    "models": [{"name": "net/b"}, {"name": "net/a"}],
    "attacks": [{"name": "pgd"}, {"name": "fgsm"}],
    "threat": {"norm": "linf", "eps": 8 / 255},
    "seed": 0,
    "keep": 1,
}
PNG = b"\x89PNG\r\n\x1a\n rest"
UNITS = [
    (model, attack, 0.0 if attack == "clean" else 8 / 255, chunk)
    for model in ("net/a", "net/b")
    for attack in ("fgsm", "clean", "pgd")
    for chunk in (1, 0)
]


def lines_of(model: str, attack: str, eps: float, chunk: int) -> list[dict[str, Any]]:
    hits = {"success": attack == "pgd", "verified": attack == "pgd" or None}
    return [
        {"model": model, "attack": attack, "eps": eps, "id": i, "label": 0, "clean": 0, "l2": i / 3, **hits}
        for i in (chunk * 3 + 2, chunk * 3, chunk * 3 + 1)
    ]


def work(run: Run) -> None:
    """What an evaluation does: every unit that is not there, images first, then the merge."""
    for unit in UNITS:
        if not run.finished and not run.has_unit(*unit):
            for line in lines_of(*unit) if unit[1] == "pgd" else []:
                run.write_image(f"clean-{line['id']}.png", PNG)
                run.write_image(f"{unit[0].replace('/', '_')}--pgd--{line['id']}-adv.png", PNG)
            run.write_unit(*unit, lines_of(*unit), {"seconds": 0.5, "unverified": 1})
    run.finish()


def start(folder: Path, config: dict[str, Any] = CONFIG, **flags: Any) -> Run:
    return Run.create(folder, config, [{"id": i, "label": 0} for i in range(6)], **flags)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    with start(tmp_path / "run") as run:
        work(run)
    return tmp_path / "run"


def test_a_finished_run_reads_back(finished: Path) -> None:
    run = read_run(finished)
    assert sorted(path.name for path in finished.iterdir()) == ["data.jsonl", "images", "run.json", "samples.jsonl"]
    order = [(line.model, line.eps, line.attack, line.id) for line in run.lines]
    want = [(m, e, a, i) for m in ("net/b", "net/a") for e, attacks in ((0.0, ["clean"]), (8 / 255, ["pgd", "fgsm"])) for a in attacks for i in range(6)]  # noqa: E501 # fmt: skip
    assert order == want
    assert run.lines[5].l2 == 5 / 3
    assert [line["id"] for line in run.data_lines] == list(range(6))
    assert run.info["config_hash"] == config_hash(CONFIG)
    passes = {(p["model"], p["attack"]): p for p in run.info["passes"]}
    assert passes["net/a", "pgd"] | {"eps": 0} == {
        "model": "net/a", "attack": "pgd", "eps": 0, "units": 2, "lines": 6, "seconds": 1.0, "unverified": 2,
    }  # fmt: skip
    assert run.info["times"]["seconds"] == 6.0


def test_kept_images_are_pruned_to_the_chosen_ones(finished: Path) -> None:
    run = read_run(finished)
    assert [(image["model"], image["success"]) for image in run.images] == [("net/b", True), ("net/a", True)]
    named = {run.images[0]["clean"], *(image["adv"] for image in run.images)}
    assert {f"images/{path.name}" for path in (finished / "images").iterdir()} == named


KILLED = """
import os, sys
sys.path[:0] = sys.argv[3:]
import test_folder as t
from killing import die_at
from pathlib import Path

os.fsync = lambda file: None  # a killed process loses nothing that it has handed to the system
base = Path(sys.argv[1])
wanted = Path(sys.argv[2], "samples.jsonl").read_bytes()
survived = point = 0
while not survived:
    point += 1
    folder = base / str(point)
    child = os.fork()
    if child == 0:
        die_at(point)
        with t.start(folder) as run:
            t.work(run)
        os._exit(0)
    survived = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with t.start(folder, resume=True) as run:
        t.work(run)
    assert (folder / "samples.jsonl").read_bytes() == wanted, point
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["data.jsonl", "images", "run.json", "samples.jsonl"], (point, left)
    assert len(list((folder / "images").iterdir())) == 3, point
print(point)
"""


def test_killed_at_any_file_operation_and_resumed_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(tmp_path / "killed"),
        str(finished),
        str(root),
        str(root / "tests"),
        str(root / "tests" / "runs"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60  # so many places to be killed at


def test_a_torn_unit_is_done_again(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        run.write_unit(*UNITS[0], lines_of(*UNITS[0]))
    (path,) = (tmp_path / "run" / "parts").iterdir()
    whole = path.read_bytes()
    for damaged in [whole[:cut] for cut in range(0, len(whole) - 1, 9)] + [whole + b'{"model"', b"\0" * len(whole)]:
        path.write_bytes(damaged)
        with start(tmp_path / "run", resume=True) as run:
            assert not run.has_unit(*UNITS[0])
    path.write_bytes(whole)
    with start(tmp_path / "run", resume=True) as run:
        assert run.has_unit(*UNITS[0]) and not run.has_unit(*UNITS[1])
        assert [line.id for line in run.unit_lines(*UNITS[0])] == [3, 4, 5]


def test_resume_on_a_finished_run_says_so_and_changes_nothing(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with start(finished, resume=True) as run:
        assert run.finished
        assert run.finish() == run.info["aggregates"]
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_resume_names_the_fields_that_differ(finished: Path) -> None:
    other = CONFIG | {"seed": 1, "threat": {"norm": "linf", "eps": 0.1}}
    with pytest.raises(UserError, match=r"seed was 0, now 1; threat\.eps was 0\.0313\d+, now 0\.1"):
        start(finished, other, resume=True)
    assert not (finished / ".lock").exists()


def test_resume_warns_of_another_environment(tmp_path: Path) -> None:
    start(tmp_path / "run", about={"versions": {"torch": "2.6"}}).close()
    with start(tmp_path / "run", about={"versions": {"torch": "2.7"}}, resume=True) as run:
        assert run.info["warnings"] == ["Resumed with another versions.torch: 2.6, then 2.7."]


def test_an_existing_run_is_not_touched_without_being_told(finished: Path) -> None:
    with pytest.raises(UserError, match="resume=True .* overwrite=True"):
        start(finished)
    with start(finished, overwrite=True) as run:
        assert not run.finished
        assert not any(run.has_unit(*unit) for unit in UNITS)
    assert read_run(finished).lines  # until the new one is whole


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("name", ["thesis.tex", "run.json"])
def test_somebody_elses_folder_is_left_alone(tmp_path: Path, flags: dict[str, bool], name: str) -> None:
    (tmp_path / name).write_text('{"loss": 1}')
    with pytest.raises(UserError, match=f"{name}.*Choose another"):
        start(tmp_path, **flags)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_as_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="is a file"):
        start(tmp_path / "out")


@pytest.mark.parametrize("flags", [{"resume": True}, {"overwrite": True}])
def test_a_folder_in_use_is_refused(tmp_path: Path, flags: dict[str, bool]) -> None:
    with start(tmp_path / "run") as run:
        with pytest.raises(UserError, match="in use"):
            start(tmp_path / "run", **flags)
        run.write_unit(*UNITS[0], lines_of(*UNITS[0]))  # the first one goes on
    with start(tmp_path / "run", resume=True) as run:
        assert run.has_unit(*UNITS[0])


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path[:0] = sys.argv[2:]; import test_folder as t; from pathlib import Path;"
        "run = t.start(Path(sys.argv[1])); os._exit(9)"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run"), str(root), str(root / "tests" / "runs")], check=False
    )
    assert (tmp_path / "run" / ".lock").exists()
    with start(tmp_path / "run", resume=True) as run:
        assert not run.finished


def test_a_second_process_of_the_same_job_writes_units(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        Run.beside(tmp_path / "run").write_unit(*UNITS[0], lines_of(*UNITS[0]))
        assert run.has_unit(*UNITS[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: "[1, 2]", "was not written by robustlab"),
        (lambda text: json.dumps(json.loads(text) | {"schema_version": 99}), "schema version 99.*Update"),
        (lambda text: json.dumps(json.loads(text) | {"finished": False}), "not finished.*--resume"),
    ],
)
def test_what_cannot_be_read_is_said(finished: Path, change: Any, message: str) -> None:
    path = finished / "run.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message):
        read_run(finished)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run.json"):
        read_run(tmp_path / "nowhere")


def test_a_full_disk_ends_the_run_and_damages_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    with start(tmp_path / "run") as run:
        run.write_unit(*UNITS[0], lines_of(*UNITS[0]))
        before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))  # no file may grow beyond 200 bytes
        try:
            with pytest.raises(RunError, match="Cannot write.*resume=True"):
                run.write_unit(*UNITS[1], lines_of(*UNITS[1]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
    with start(tmp_path / "run", resume=True) as run:
        assert run.has_unit(*UNITS[0]) and not run.has_unit(*UNITS[1])


def test_a_line_with_a_wrong_field_is_a_bug_that_shows(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run, pytest.raises(ValueError, match="unknown field `sucess`"):
        run.write_unit(*UNITS[0], [{**lines_of(*UNITS[0])[0], "sucess": True}])


def test_resume_where_there_is_nothing_says_that_a_new_one_starts(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with start(tmp_path / "run", resume=True, say=said.append):
            pass
    assert said == [f"There is no run in {tmp_path / 'run'} to go on with: a new one starts."]
