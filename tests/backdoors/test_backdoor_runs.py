"""A backdoor as a run: what it holds, its controls, interrupted and resumed, two processes, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from robustlab import load_data, load_model
from robustlab.backdoors import poison
from robustlab.backdoors.job import BackdoorRun, as_many
from robustlab.backdoors.setting import Setting, read_filter, read_setting, with_numbers
from robustlab.backdoors.studies import row_of
from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.defenses.filters.base import Scores
from robustlab.models.cnn import cnn

FEW = ["--limit", "480", "--test-limit", "100", "--recipe", "quick.toml", "--quiet"]
FAST = ["backdoor", *FEW, "--target", "stop", "--rate", "0.2", "--of", "target"]
POISONS = 8  # a fifth of the target class, which has 31 images of its own
QUICK = """
name = "quick"
summary = "One epoch on few images"
source = ""
[recipe]
epochs = 1
val_size = 40
check_size = 4
"""
FILTERS = ["--filter", "spectral", "--filter", "activation-clustering"]
SCORED = [*FAST, "--score", "spectral", "--seeds", "2", "--output"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("backdoors")
    (folder / "quick.toml").write_text(QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        extra = ["--repair", "fine-tuning", "--controls", "each", "--score", "spectre:layer=16"]
        assert main([*FAST, *FILTERS, *extra, "--layer", "20", "--layer", "16", "--output", "run"]) == 0
        yield folder


def sections(folder: Path) -> dict[str, Any]:
    found = {section["name"]: section for section in json.loads((folder / "run.json").read_text())["sections"]}
    for section in found.values():
        for row in section["rows"]:
            row.pop("seconds", None)
    return found


def test_what_a_run_holds(place: Path) -> None:
    found = sections(place / "run")
    assert list(found) == [
        "trigger",
        "models",
        "filters",
        "scores",
        "spectrum",
        "projection",
        "by layer",
        "heat",
        "results",
    ]
    poisons = [row["poisons"] for row in found["models"]["rows"]]
    assert poisons == [POISONS]
    rows = found["results"]["rows"]
    assert [row["row"] for row in rows] == [
        "undefended",
        "random, as many as spectral",
        "random, as many as activation-clustering",
        "perfect",
        "perfect, as few as spectral",
        "perfect, as few as activation-clustering",
        "spectral",
        "activation-clustering",
        "fine-tuning",
    ]
    first = {row["row"]: row for row in rows}
    removed = {row["filter"]: row["removed"] for row in found["filters"]["rows"]}
    assert removed.pop("spectre:layer=16") > 0  # only scored
    for name, count in removed.items():
        assert first[name]["trained"] == first[f"random, as many as {name}"]["trained"] == 480 - count
        assert first[f"perfect, as few as {name}"]["trained"] <= 480 - count
    assert first["perfect"]["trained"] == 480 - POISONS
    assert (
        found["models"]["rows"][0]["asr"] == first["undefended"]["asr"]
    )  # the stored model is the one that was judged
    tried = [sample for sample in load_data("road-signs", "test", 100).labels.tolist() if sample != 0]
    assert first["undefended"]["asr"]["n"] == len(tried)
    assert {row["layer"]: row["d"] for row in found["by layer"]["rows"]}.keys() == {"20", "16"}
    assert not (place / "run" / "parts").exists()


def test_scores_and_ids_are_data(place: Path) -> None:
    rows = list(csv.DictReader((place / "run" / "scores" / "0-spectral.csv").read_text().splitlines()))
    again = poison(load_data("road-signs", "train", 480), "badnets", 0.2, "stop", 0, of="target")
    assert [int(row["id"]) for row in rows if row["poison"] == "1"] == again.changed_ids
    gone = [row for row in rows if row["removed"] == "1"]
    spectral = next(row for row in sections(place / "run")["filters"]["rows"] if row["filter"] == "spectral")
    assert len(gone) == spectral["removed"] and sum(row["poison"] == "0" for row in gone) == spectral["clean_removed"]
    histogram = next(row for row in sections(place / "run")["scores"]["rows"] if row["filter"] == "spectral")
    stops = sum(int(row["label"]) == again.target for row in rows)
    assert sum(histogram["poison"]) == POISONS and sum(histogram["clean"]) == stops - POISONS


def test_a_poisoned_model_is_a_model(place: Path) -> None:
    model = load_model(str(place / "run" / "models" / "seed-0.toml"))
    assert model.classes is not None and model.classes[0] == "stop"


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """Two seeds, scored only."""
    assert main([*SCORED, "whole"]) == 0
    return place / "whole"


def test_interrupted_and_resumed(place: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = BackdoorRun.write_part, [4]  # trigger, two models, one filter

    def interrupted(self: BackdoorRun, name: str, value: Any) -> None:
        write(self, name, value)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BackdoorRun, "write_part", interrupted)
        assert main([*SCORED, "part"]) == 130
    assert not json.loads((place / "part" / "run.json").read_text())["finished"]
    monkeypatch.setattr(BackdoorRun, "write_model", None)  # what was finished is not done again
    assert main([*SCORED, "part", "--resume"]) == 0
    assert sections(place / "part") == sections(whole)


def test_two_processes_find_what_one_finds(place: Path, whole: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *torchrun, "-m", "robustlab", *SCORED, "two"]
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # as the one process
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sections(place / "two") == sections(whole)


def test_controls_remove_as_many_of_each_class() -> None:
    data = poison(load_data("road-signs", "train", 300), "badnets", 0.1, "stop", 0)
    removed = torch.rand(300, generator=torch.Generator().manual_seed(1)) < 0.2
    drawn, knowing = (as_many(data, removed, 3, knowing=each) for each in (False, True))
    assert torch.equal(data.labels[drawn].bincount(minlength=16), data.labels[removed].bincount(minlength=16))
    assert bool((knowing | ~data.changed).all())
    other = data.take(torch.arange(299, -1, -1))
    assert torch.equal(as_many(other, removed.flip(0), 3, knowing=False), drawn.flip(0))


def test_without_a_target_class_scores_are_compared_inside_classes() -> None:
    """Scores of another class may have another scale."""
    data = poison(load_data("road-signs", "train", 300), "badnets", 0.2, relation="all-to-all")
    scores = data.labels.float() * 100 + data.changed.float() * 10 + torch.rand(300)
    found = row_of(data, Scores(scores, {}, torch.zeros(300, dtype=torch.bool), "nothing"))
    assert found["auroc"] > 0.9 and found["removed"] == 0 and found["left"] == 60


def test_a_filter_is_told_the_true_share_and_the_table_says_so(place: Path) -> None:
    rows = {row["filter"]: row for row in sections(place / "run")["filters"]["rows"]}
    assert rows["spectral"]["knew"] == "the true share of poisons"
    share = sections(place / "run")["models"]["rows"][0]["share"]
    counts = poison(load_data("road-signs", "train", 480), "badnets", 0.2, "stop", 0, of="target").labels.bincount()
    assert rows["spectral"]["removed"] == sum(round(1.5 * share * int(count)) for count in counts)
    assert read_filter("spectral:eps=0.01").made(eps=0.3).eps == 0.01


def test_scores_that_are_missing_or_equal_do_not_count_as_found() -> None:
    data = poison(load_data("road-signs", "train", 300), "badnets", 0.2, relation="all-to-all")
    nothing = torch.zeros(300, dtype=torch.bool)
    assert row_of(data, Scores(torch.ones(300), {}, nothing, ""))["auroc"] == pytest.approx(0.5, abs=0.03)
    missing = torch.where(data.changed, torch.nan, 1.0)
    assert row_of(data, Scores(missing, {}, nothing, ""))["auroc"] is None


def test_which_filters_share_a_control() -> None:
    alike = ("spectral", "spectre", "beatrix")
    own = ("spectral:variant=original-code", "spectral:target=3", "spectral:eps=0.1", "robust-z")
    assert [read_filter(text).alike for text in (*alike, *own)] == [True] * 3 + [False] * 4


def test_numbers_of_classes_are_numbers_and_words_names() -> None:
    classes = ("1", "10", "2")
    assert with_numbers(Setting(target=2), classes).target == "2"
    assert with_numbers(Setting(target="10"), classes).target == "10"
    assert with_numbers(Setting(target=0), classes).target == "1"


def test_a_run_that_replaces_another_looks_at_its_own_model(tmp_path: Path) -> None:
    about: dict[str, Any] = {"config": {"seed": 0}, "about": {}, "resume": False, "say": print}
    for number in (0, 1):
        network = cnn(2, (1, 8, 8))
        with torch.no_grad():
            network[-1].bias.fill_(number)
        save_file(network.state_dict(), tmp_path / "model.safetensors")
        card = 'architecture = "cnn"\nweights = "model.safetensors"\nclasses = 2\nshape = [1, 8, 8]\n'
        (tmp_path / "model.toml").write_text(card)
        with BackdoorRun.create(tmp_path / "run", **about, overwrite=bool(number)) as run:
            run.write_model("seed-0", tmp_path)
            assert run.model("seed-0").module[-1].bias.tolist() == [number, number]
            if not number:
                run.finish([], {})


def test_flags_override_a_card(tmp_path: Path) -> None:
    card = tmp_path / "mine.toml"
    card.write_text('[backdoor]\ntrigger = "badnets"\nrate = 0.2\n[backdoor.parameters]\npattern = "l"\n')
    assert read_setting(str(card), {"rate": None}).made.pattern == "l"
    assert read_setting(str(card), {"rate": 0.3}).rate == 0.3
    assert read_setting(str(card), {"trigger": "badnets:size=4"}).made.size == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--target", "stopp"], "There is no class 'stopp'"),
        ([], "needs a target class. Classes: "),
        (["--target", "stop", "--rate", "0"], "rate must be above 0"),
        (["--target", "stop", "--rate", "0.99"], "Choose a lower rate"),
        (["--target", "stop", "--trigger", "badnets:size=40"], "needs 41x41 pixels"),
        (["--target", "stop", "--trigger", "badges"], "did you mean"),
        (["--target", "stop", "--trigger", "badnets:sise=3"], "sise"),
        (["--target", "stop", "--filter", "spectre:eps=0.9"], "0 and below 2/3"),
        (["--target", "stop", "--filter", "random"], "random is a control"),
        (["--target", "stop", "--filter", "spectrum"], "did you mean"),
        (["--target", "stop", "--filter", "spectral", "--filter", "spectral"], "given twice"),
        (["--target", "stop", "--layer", "fc9"], "The model has no layer 'fc9'"),
        (["--target", "stop", "--filter", "spectre:eps=0.64"], "would be left for a covariance"),
        (["--target", "stop", "--model", "cmm"], "--model is cnn"),
        (["--target", "stop", "--repair", "prayer"], "repair"),
        (["--target", "stop", "--resume"], "--resume needs --output"),
        (["--card", "fgsm"], "is for another command: robustlab attack --suite fgsm"),
    ],
)
def test_refused(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    limit = "480" if {"--filter", "--layer"} & set(words) else "160"
    assert main(["backdoor", "--limit", limit, "--test-limit", "20", *words]) == 2
    said = capsys.readouterr().err
    assert says.lower() in said.lower() and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_trigger_in_colour_on_grey_images(data_root: Path) -> None:
    words = ["backdoor", "--data", "mnist", "--data-root", str(data_root), "--limit", "500", "--target", "1"]
    assert main([*words, "--trigger", "badnets:pattern=square,colour=[1,0,0]"]) == 2


def test_too_few_images_of_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["backdoor", "--limit", "60", "--test-limit", "20", "--target", "stop"]) == 2
    assert "of each class. Give more" in capsys.readouterr().err


def test_poisons_of_a_missing_class_are_refused() -> None:
    data = load_data("road-signs", "train", 60)
    with pytest.raises(UserError, match="has no image of the target class"):
        poison(data.take(data.labels != 0), "badnets", 0.1, "stop")
