"""Files that are not ours: whatever a command is told, what somebody else wrote stays as it was."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustlab.base.errors import UserError
from robustlab.base.files import check_output
from robustlab.cli import main
from robustlab.runs import read_run

ROOT = Path(__file__).parents[2]
MODEL = """
from torch import nn


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""
ATTACK = "attack model.py:net --data npz:data.npz --attack pgd:steps=2 --curve 2/255 --audit 0 --quiet"
ATTACK += " --save-adversarial"
TRAIN = "train cnn --data npz:data.npz --epochs 1 --set check_size=4 batch_size=8"
SHEET = "data npz:data.npz --split test --count 2"
MINE = {
    "notes.md": "mine",
    ".hidden": "mine",
    "images/holiday.png": "mine",
    "parts/notes.txt": "mine",
    "parts/mine.jsonl": "mine",
    "adversarial/mine.safetensors": "mine",
    "sub/run.json": "{}",
}
OURS_IN_NAME = ("run.json", "data.jsonl", "samples.jsonl", "report.html", "model.safetensors", "model.toml", "last.pt")


def tree(folder: Path) -> dict[str, object]:
    """Everything under a folder: content of files, targets of links, kinds of the rest."""
    found: dict[str, object] = {}
    for at, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(at, name)
            mode = path.lstat().st_mode
            content: object = stat.S_IFMT(mode)
            if stat.S_ISREG(mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(mode):
                content = os.readlink(path)
            found[str(path.relative_to(folder))] = content
    return found


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.py, data.npz, a finished run in run/ and a finished training in trained/."""
    place = tmp_path_factory.mktemp("made")
    (place / "model.py").write_text(MODEL)
    draw = np.random.default_rng(0)
    arrays = {
        f"{split}_{what}": values
        for split in ("train", "val", "test")
        for what, values in (
            ("images", draw.integers(0, 256, (12, 8, 8), dtype=np.uint8)),
            ("labels", np.arange(12) % 3),
        )
    }
    np.savez(place / "data.npz", **arrays)
    before = os.getcwd()
    os.chdir(place)
    try:
        assert main([*shlex.split(ATTACK), "--output", "run"]) == 0
        assert main([*shlex.split(TRAIN), "--output", "trained"]) == 0
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to work in."""
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def own(folder: Path) -> None:
    fill(folder, MINE | {name: "mine" for name in OURS_IN_NAME if name != "run.json"})


def with_info(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        own(folder)
        (folder / "run.json").write_text(text)

    return make


def with_lock(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        own(folder)
        (folder / ".lock").write_text(text)

    return make


def with_linked_info(folder: Path) -> None:
    own(folder)
    (folder / "run.json").symlink_to(folder.parent / "run" / "run.json")


def with_pipe(folder: Path) -> None:
    own(folder)
    os.mkfifo(folder / "run.json")


def with_folder(folder: Path) -> None:
    own(folder)
    (folder / "run.json").mkdir()


def lock_that_says_something(folder: Path) -> None:
    fill(folder, {".lock": "mine"})


def lock_that_is_a_link(folder: Path) -> None:
    fill(folder.parent / "away", {"lock": ""})
    folder.mkdir()
    (folder / ".lock").symlink_to(folder.parent / "away" / "lock")


def lock_that_is_a_pipe(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / ".lock")


def only(name: str) -> Callable[[Path], None]:
    return lambda folder: fill(folder, {name: "mine"})


ALMOST = {"schema_version": 1, "kind": "attack", "config": {}, "config_hash": "0", "finished": True}
STATES: dict[str, Callable[[Path], None]] = {
    "files with our names": own,
    "and a stale lock": with_lock(""),
    "and a lock with words": with_lock("pid 3"),
    "only a lock with words": lock_that_says_something,
    "only a lock that is a link": lock_that_is_a_link,
    "only a lock that is a pipe": lock_that_is_a_pipe,
    "only weights": only("model.safetensors"),
    "only a checkpoint": only("last.pt"),
    "only a page": only("report.html"),
    "only a journal": only(".files"),
    "only a replacement": only(".new/samples.jsonl"),
    "only what looks temporary": only(".run.json.0123abcd.tmp"),
    "another tool's run.json": with_info('{"loss": 1}'),
    "another tool's run.json with our words": with_info(json.dumps(ALMOST)),
    "another tool's kind": with_info(json.dumps(ALMOST | {"kind": "sweep", "written_by": "robustlab"})),
    "a list as run.json": with_info("[1, 2]"),
    "no JSON": with_info('{"schema_version": '),
    "JSON without end": with_info("[" * 100_000),
    "an empty run.json": with_info(""),
    "a newer run.json": with_info(json.dumps(ALMOST | {"schema_version": 2, "written_by": "robustlab"})),
    "an older run.json": with_info(json.dumps(ALMOST | {"versions": {"robustlab": "0.1"}})),
    "no number as version": with_info(json.dumps(ALMOST | {"schema_version": True, "written_by": "robustlab"})),
    "run.json is a link to a run's": with_linked_info,
    "run.json is a pipe": with_pipe,
    "run.json is a folder": with_folder,
}
COMMANDS = [(ATTACK, flag) for flag in ("", "--resume", "--overwrite")]
COMMANDS += [(TRAIN, flag) for flag in ("", "--resume", "--overwrite")] + [(SHEET, "")]


@pytest.mark.parametrize("state", STATES)
def test_a_folder_that_is_not_ours(state: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    STATES[state](place / "thesis")
    (place / "link").symlink_to(place / "thesis")
    before = tree(place)
    ways = ("thesis", "reports/../thesis", "link") if state == "files with our names" else ("thesis",)
    for command, flag in COMMANDS:
        for typed in ways:
            if typed == "thesis" or flag != "--resume":
                assert main([*shlex.split(command), "--output", typed, *shlex.split(flag)]) == 2, (command, flag, typed)
                error = capsys.readouterr().err
                assert "Choose another output" in error or "Update robustlab" in error, error
                assert tree(place) == before, (command, flag, typed)


@pytest.mark.parametrize("flag", ["", "--resume", "--overwrite"])
def test_a_run_and_a_training_do_not_replace_each_other(
    flag: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(place)
    for command, folder, what in ((ATTACK, "trained", "training"), (TRAIN, "run", "run"), (SHEET, "run", "")):
        if command != SHEET or not flag:
            assert main([*shlex.split(command), "--output", folder, *shlex.split(flag)]) == 2
            error = capsys.readouterr().err
            assert f"holds a {what}" in error or not what
            assert "--overwrite" not in error and "Choose another output" in error
            assert tree(place) == before


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
@pytest.mark.parametrize(("command", "folder"), [(ATTACK, "run"), (TRAIN, "trained")])
def test_files_of_mine_in_a_run_stay(command: str, folder: str, flag: str, place: Path) -> None:
    mine = MINE if command == ATTACK else {**MINE, "report.html": "mine", "samples.jsonl": "mine"}
    fill(place / folder, mine)
    ours = tree(place / folder).keys() - mine.keys()
    for _ in range(2):
        assert main([*shlex.split(command), "--output", folder, flag]) == 0
        assert tree(place / folder).keys() == ours | mine.keys()
        assert {name: (place / folder / name).read_text() for name in mine} == mine


def linked(name: str, to: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.symlink_to(folder.parent / "away" / to)

    return make


def piped(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


FILES = ("report.html", "samples.jsonl", "data.jsonl", "run.json", ".lock", ".files")
WAYS = {
    **{f"{name} is a link": linked(name, "file") for name in FILES},
    **{f"{name} is a link to nothing": linked(name, "nothing") for name in FILES},
    **{f"{name} is a link": linked(name, "folder") for name in ("images", "parts", "adversarial", ".new")},
    **{f"{name} is a pipe": piped(name) for name in FILES},
}


@pytest.mark.parametrize("way", WAYS)
def test_no_link_or_pipe_in_a_run_is_followed(way: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(place / "away", {"file": "mine", "folder/images/clean-0.png": "mine", "folder/clean-0.png": "mine"})
    WAYS[way](place / "run")
    before = tree(place)
    for flag in ("--overwrite", "--resume"):
        assert main([*shlex.split(ATTACK), "--output", "run", flag]) == 2, flag
        assert "Traceback" not in capsys.readouterr().err
        assert tree(place) == before, flag


def test_a_page_of_mine_in_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a page belongs, only a page that we wrote is replaced; in a run without one, none is written over it."""
    (place / "run" / "report.html").write_text("mine")
    before = tree(place)
    assert main(["report", "run"]) == 2 and "is there already" in capsys.readouterr().err
    assert tree(place) == before
    info = json.loads((place / "run" / "run.json").read_text())
    info["files"].remove("report.html")
    (place / "run" / "run.json").write_text(json.dumps(info))
    before = tree(place)
    assert main([*shlex.split(ATTACK), "--output", "run", "--overwrite"]) == 2
    assert "report.html is not robustlab's" in capsys.readouterr().err
    assert tree(place) == before


@pytest.mark.parametrize("command", ["report run", "plot run security-curve", "table run verdict"])
def test_single_files(command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(place / "away", {"file": "mine", "page.svg": "mine"})
    for name, kind in (("link", "away/file"), ("gone", "away/nothing"), ("to-folder", "away")):
        (place / f"{name}.md").symlink_to(place / kind)
    os.mkfifo(place / "pipe.md")
    (place / "there.md").write_text("mine")
    (place / "folder.md").mkdir()
    fmt = ["--format", "png"] if "plot" in command else []
    before = tree(place)
    for name, message in {
        "link.md": "is a link",
        "gone.md": "is a link",
        "to-folder.md": "is a link",
        "pipe.md": "no regular file",
        "there.md": "is there already",
        "folder.md": "is a folder",
        "reports/../there.md": "is there already",
        "..": "is a folder",
    }.items():
        for flag in ([], ["--overwrite"]):
            if flag and "there" in name:
                continue
            assert main([*command.split(), *fmt, "--output", name, *flag]) == 2, (name, flag)
            assert message in capsys.readouterr().err or name == ".."
            assert tree(place) == before, (name, flag)
    assert main([*command.split(), *fmt, "--output", "new/er/there.md"]) == 0
    assert main([*command.split(), *fmt, "--output", "reports/../there.md", "--overwrite"]) == 0
    assert (place / "there.md").read_bytes() == (place / "new" / "er" / "there.md").read_bytes()
    assert not (place / "reports").exists()


def test_a_run_of_an_older_version(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its run.json lists no files, so nobody knows which are its own."""
    path = place / "run" / "run.json"
    info = json.loads(path.read_text())
    del info["written_by"], info["files"]
    path.write_text(json.dumps(info))
    before = tree(place)
    assert main([*shlex.split(ATTACK), "--output", "run", "--overwrite"]) == 2
    assert "written by an older robustlab" in capsys.readouterr().err
    assert tree(place) == before and read_run(place / "run").lines


def test_the_example_is_replaced(place: Path) -> None:
    """Of what lies in its folders, only what its run.json names goes."""
    example = place / "example"
    shutil.copytree(ROOT / "reports" / "example", example, ignore=shutil.ignore_patterns("page.png"))
    fill(example, MINE | {"images/mine-3-adv.png": "mine", "images/clean-x.png": "mine"})
    assert main([*shlex.split(ATTACK), "--output", "example", "--overwrite"]) == 0
    assert {path.name for path in (example / "images").glob("road-signs*")} == set()
    for name, text in (MINE | {"images/mine-3-adv.png": "mine", "images/clean-x.png": "mine"}).items():
        assert (example / name).read_text() == text
    listed = json.loads((example / "run.json").read_text())["files"]
    there = {name for name, content in tree(example).items() if isinstance(content, bytes)}
    assert there == {*listed, "run.json", *MINE, "images/mine-3-adv.png", "images/clean-x.png"}
    assert read_run(example).lines


def test_a_list_of_files_from_a_stranger_names_nothing_else(place: Path) -> None:
    fill(place, {"away/file.png": "mine", "run/notes.md": "mine", "run/sub/x.png": "mine", "run/images/x.txt": "mine"})
    path = place / "run" / "run.json"
    info = json.loads(path.read_text())
    info["files"] += ["notes.md", "../away/file.png", "images/../../away/file.png", str(place / "away" / "file.png")]
    info["files"] += [
        "sub/x.png",
        "images/x.txt",
        "images/",
        "images/..",
        "",
        "\0",
        "images/\0.png",
        ".lock",
        "run.json",
    ]
    path.write_text(json.dumps(info))
    assert main([*shlex.split(ATTACK), "--output", "run", "--overwrite"]) == 0
    for name in ("away/file.png", "run/notes.md", "run/sub/x.png", "run/images/x.txt"):
        assert (place / name).read_text() == "mine"


def test_an_empty_folder_and_a_stale_lock_start(place: Path) -> None:
    for number, command in enumerate((ATTACK, TRAIN)):
        folder = place / f"empty-{number}"
        folder.mkdir()
        (folder / ".lock").touch()
        (folder / ".run.json.0123abcd.tmp").write_text('{\n  "written_by": "robustl')
        assert main([*shlex.split(command), "--output", str(folder)]) == 0
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_training_that_diverges_leaves_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(place)
    wild = [*shlex.split(TRAIN), "--set", "lr=1e30"]
    assert main([*wild, "--output", "new/training"]) == 1
    assert main([*wild, "--output", "trained", "--overwrite"]) == 1
    assert main(wild) == 1 and "Lower lr" in capsys.readouterr().err
    assert tree(place) == before


def test_default_folders_of_the_same_second_differ(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustlab.base.files import default_folder, give_back

    made = [default_folder("npz:data.npz") for _ in range(4)]
    assert len(set(made)) == 4
    for folder in reversed(made):
        give_back(folder)
    assert not (place / "reports").exists()
    long = default_folder(f"npz:{'x' * 300}.npz", "folder:a\nb")
    assert len(long.name.encode()) < 200 and "\n" not in long.name
    give_back(long)


def test_long_and_odd_names_fit_into_file_names(place: Path) -> None:
    """A model's name may be longer than a file's, and hold anything."""
    import torch

    import robustlab
    from robustlab.evaluation.listener import Listener

    names = ["n" * 300, "m" * 299 + "/é\n\x1b", "..", "-"]
    nets = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)) for name in names}
    data = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    quiet = Listener(say=lambda text: None)
    run = robustlab.evaluate(nets, data, "fgsm", output=place / "odd", listener=quiet, save_adversarial=True, audit=0)
    assert [model["name"] for model in run.info["config"]["models"]] == names


@pytest.mark.parametrize("name", ["run.json", "samples.jsonl", "data.jsonl", "images/a.png", "model.toml", "last.pt"])
def test_a_file_of_a_run_is_no_output(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    for each in ("run.json", name):
        (tmp_path / each).write_text("{}")
    with pytest.raises(UserError, match="is a file of a run, which would be lost"):
        check_output(tmp_path / name, replace=True)


@pytest.mark.parametrize("name", ["report.html", "results.json", "model.txt"])
def test_what_no_run_needs_is_an_output(tmp_path: Path, name: str) -> None:
    for each in ("run.json", name):
        (tmp_path / each).write_text("{}")
    check_output(tmp_path / name, replace=True)
