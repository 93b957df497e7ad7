"""Several runs on one page: comparable ones as one, the others apart and said to be so."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.reporting import report
from robustlab.reporting.comparison import compare, one_group, read_runs
from robustlab.reporting.source import PageRun
from robustlab.reporting.tables import written
from robustlab.runs import read_run

Json = dict[str, Any]
Write = Callable[..., Path]
PLAIN, ROBUST = {"road-signs/cnn": (0.97, 1.2)}, {"road-signs/cnn-robust": (0.93, 12.0)}


@pytest.fixture(scope="module")
def plain(write_run: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "plain", n=120, models=PLAIN)


@pytest.fixture(scope="module")
def robust(write_run: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "robust", n=120, models=ROBUST)


def changed(folder: Path, copy: Path, change: Callable[[Json], None]) -> Path:
    """A copy of a run whose run.json says something else."""
    shutil.copytree(folder, copy)
    info = msgspec.json.decode((folder / "run.json").read_bytes())
    info["name"] = copy.name
    change(info)
    (copy / "run.json").write_bytes(msgspec.json.encode(info))
    return copy


def without_terms(page: Path) -> str:
    """The page's HTML without the links to its glossary."""
    return re.sub(r'<a class="term" [^>]*>([^<]*)</a>', r"\1", page.read_text(encoding="utf-8"))


def test_two_runs_have_the_numbers_that_one_run_of_both_models_has(
    plain: Path, robust: Path, write_run: Write, tmp_path: Path
) -> None:
    both = PageRun.read(write_run(tmp_path / "both", n=120, models=PLAIN | ROBUST))
    (merged,), notices = compare(read_runs([plain, robust]))
    assert notices == [] and merged.name == "plain and robust"
    assert merged.numbers == both.numbers and len(merged.numbers["pairs"]) == 1
    assert merged.lines == both.lines and merged.data_lines == both.data_lines
    for part in ("passes", "eps_typed", "seed"):
        assert str(merged.info[part]) == str(both.info[part])
    assert [m["name"] for m in merged.info["models"]] == [*PLAIN, *ROBUST]


def test_images_come_from_their_own_folders(plain: Path, robust: Path) -> None:
    runs = read_runs([plain, robust])
    (merged,), _ = compare(runs)
    images = merged.info["images"]
    assert len(images) == sum(len(run.info["images"]) for run in runs) > 10
    for image in images:
        run = runs[image["model"] in ROBUST]
        (own,) = [i for i in run.info["images"] if (i["id"], i["attack"]) == (image["id"], image["attack"])]
        for kind in ("clean", "adv", "delta"):
            assert merged.picture(image[kind]) == run.picture(own[kind]) is not None
    assert merged.picture(None) is None


def test_one_run_stays_as_it_is(plain: Path) -> None:
    (run,), notices = compare(read_runs([plain]))
    assert notices == [] and run.info == read_run(plain).info


def test_a_model_that_occurs_twice_is_told_by_its_run(plain: Path, tmp_path: Path) -> None:
    other = changed(plain, tmp_path / "again", lambda info: None)
    run, _ = one_group([plain, other])
    names = ["road-signs/cnn (plain)", "road-signs/cnn (again)"]
    assert [model["name"] for model in run.models] == names
    assert {line.model for line in run.lines} == {image["model"] for image in run.info["images"]} == set(names)
    (pair,) = run.numbers["pairs"]
    assert (pair["first"], pair["second"]) == tuple(names) and pair["robust"]["only_first"] == 0 == pair["clean"][
        "value"
    ]


def test_what_both_runs_say_is_said_once(plain: Path, robust: Path, tmp_path: Path) -> None:
    for name, folder in (("one", plain), ("two", robust)):
        changed(folder, tmp_path / name, lambda info: info["warnings"].append("the data are odd"))
    changed(plain, tmp_path / "apart", _eps)
    page = report([tmp_path / "one", tmp_path / "two"], tmp_path / "page.html").read_text()
    assert page.count(">the data are odd<") == 1 and page.count('<p class="note">Attacks search on a copy') == 1
    page = report([plain, tmp_path / "apart"], tmp_path / "apart.html").read_text()
    assert page.count('<p class="note">Each number is a share of all n images') == 1
    assert page.count('aria-label="Accuracy of each model"') == 2


def test_runs_from_other_surrogates_are_said_to_be(plain: Path, robust: Path, tmp_path: Path) -> None:
    def crafted(*names: str) -> Callable[[Json], None]:
        return lambda info: info["config"]["models"][0].update(surrogates=[{"name": name} for name in names])

    one = changed(plain, tmp_path / "one", crafted("a", "b", "c"))
    two = changed(robust, tmp_path / "two", crafted("a", "b", "d"))
    (run,), notices = compare(read_runs([one, two]))
    assert not run.same_surrogates and "the surrogates may be the reason" in notices[0]
    same = changed(robust, tmp_path / "same", crafted("a", "b", "c"))
    (run,), notices = compare(read_runs([one, same]))
    assert run.same_surrogates and run.crafted_on == "3 surrogates" and not notices


def test_runs_of_the_same_name_are_numbered(plain: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(plain, tmp_path / "twin")  # run.json still calls it plain
    runs = read_runs([plain, twin])
    assert [run.name for run in runs] == ["plain #1", "plain #2"]
    (merged,), _ = compare(runs)
    assert [model["name"] for model in merged.models] == ["road-signs/cnn (plain #1)", "road-signs/cnn (plain #2)"]


def _hash(info: Json) -> None:
    info["config"]["data"]["hash"] = info["data"]["hash"] = "0" * 16
    info["config"]["data"]["name"] = info["data"]["name"] = "gtsrb"
    info["data"]["classes"] = ["other"]


def _eps(info: Json) -> None:
    info["config"]["threat"]["eps"] = info["aggregates"]["eps"] = 4 / 255
    info["eps_typed"] = "4/255"


def _norm(info: Json) -> None:
    info["config"]["threat"]["norm"] = info["aggregates"]["norm"] = "l2"


def _targeted(info: Json) -> None:
    info["config"]["threat"] |= {"targeted": True, "target": "least-likely"}


UNLIKE: dict[str, tuple[Callable[[Json], None], str]] = {
    "data": (_hash, "data: gtsrb, test split instead of road-signs, test split)"),
    "ids": (lambda info: info["config"]["data"].update(ids="abc"), "samples: both n = 120, but not the same"),
    "shape": (lambda info: info["data"].update(shape=[1, 8, 8]), "image size: 1 × 8 × 8 instead of 3 × 32 × 32"),
    "classes": (lambda info: info["data"].update(classes=["a", "b"]), "classes: 2 instead of 8"),
    "labels": (lambda info: info["config"].update(labels="predicted"), "labels: predicted instead of given"),
    "eps": (_eps, "threat: L∞ ε = 4/255 instead of L∞ ε = 8/255"),
    "norm": (_norm, "threat: L2 ε = 8/255 instead of L∞ ε = 8/255"),
    "target": (_targeted, "threat: L∞ ε = 8/255, targeted (least-likely) instead of L∞ ε = 8/255"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_is_not_comparable_stands_apart_and_is_said_to(
    what: str, plain: Path, robust: Path, tmp_path: Path
) -> None:
    change, why = UNLIKE[what]
    other = changed(robust, tmp_path / "other", change)
    groups, notices = compare(read_runs([plain, other, robust]))
    assert [group.name for group in groups] == ["plain and robust", "other"]
    (notice,) = (notice.replace("\u00a0", " ") for notice in notices)
    assert notice.startswith("other cannot be compared with plain (") and why in notice
    with pytest.raises(UserError, match="other cannot be compared with plain .* Give runs of the same data"):
        one_group([plain, other])


EXAMPLES = Path(__file__).parents[2] / "reports"


def test_runs_of_other_kinds_stand_on_the_page_and_are_said_to_be_others(
    plain: Path, robust: Path, tmp_path: Path
) -> None:
    folders = [plain, EXAMPLES / "example-sticker", robust, EXAMPLES / "example-backdoor"]
    page = without_terms(report(folders, tmp_path / "page.html"))
    for name, kind in (("example-sticker", "sticker"), ("example-backdoor", "backdoor")):
        assert f"{name} cannot be compared with plain (another kind of run: {kind} instead of attack)" in page
        assert f'<section id="{kind}"' in page
    assert "Models side by side" in page and page.count("cannot be compared") == 2


@pytest.mark.parametrize(
    ("example", "change", "why"),
    [
        ("example-sticker", {}, ""),
        ("example-sticker", {"seed": 7}, ""),
        ("example-backdoor", {"rate": 0.9}, "rate: 0.9 instead of 0.15"),
        ("example-backdoor", {"target": None}, "target: every class instead of yield"),
        ("example-backdoor", {"trigger": {"name": "badnets"}}, "trigger: badnets instead of physical"),
    ],
)
def test_runs_of_one_kind_are_compared_by_what_they_were_asked(
    example: str, change: Json, why: str, tmp_path: Path
) -> None:
    other = changed(EXAMPLES / example, tmp_path / "other", lambda info: info["config"].update(change))
    groups, notices = compare(read_runs([EXAMPLES / example, other]))
    assert len(groups) == 2 and all(f"other cannot be compared with {example} ({why})" in said for said in notices)
    assert len(notices) == bool(why)


def test_a_sticker_of_a_run_without_heat_has_a_page(tmp_path: Path) -> None:
    """An unfinished study, or a run of an older version."""
    other = changed(
        EXAMPLES / "example-sticker",
        tmp_path / "other",
        lambda info: info.update(sections=[section for section in info["sections"] if section["name"] != "heat"]),
    )
    assert "Drive-by" in report([other], tmp_path / "page.html").read_text()


def _suite(info: Json) -> None:
    del info["config"]["attacks"][2]
    del info["aggregates"]["models"][0]["attacks"][2]
    info["images"] = [image for image in info["images"] if image["attack"] != "pgd-margin"]


def _steps(info: Json) -> None:
    info["config"]["attacks"][1]["parameters"] = {"steps": 100}


CAUTIONS: dict[str, tuple[Callable[[Json], None], str]] = {
    "suite": (_suite, r"not attacked as plain was \(fgsm, pgd instead of fgsm, pgd, pgd-margin\)"),
    "parameters": (_steps, r"not attacked as plain was \(pgd with steps 100 instead of the default\)"),
    "seed": (
        lambda info: info["config"].update(seed=7) or info.update(seed=7),
        "other was attacked with seed 7, plain",
    ),
    "full": (lambda info: info["config"].update(full=True), "In other every attack ran on every image, in plain only"),
    "curve": (lambda info: info["config"]["curve"].update(attack="apgd"), "curve of other is from apgd, that of plain"),
}


@pytest.mark.parametrize("what", CAUTIONS)
def test_another_attack_is_allowed_and_said(what: str, plain: Path, robust: Path, tmp_path: Path) -> None:
    change, said = CAUTIONS[what]
    other = changed(robust, tmp_path / "other", change)
    (merged,), (notice,) = compare(read_runs([plain, other]))
    assert re.search(said, notice)
    page = without_terms(report([plain, other], tmp_path / "page.html"))
    assert page.count('class="alarm"') == 1 and notice.replace("'", "&#39;") in page
    # the suite of each model is its own
    views = {model["name"]: [attack["name"] for attack in model["attacks"]] for model in merged.models}
    assert views["road-signs/cnn"] == ["fgsm", "pgd", "pgd-margin"]
    assert len(views["road-signs/cnn-robust"]) == (2 if what == "suite" else 3)


def test_notes_of_merged_runs_hold_for_each(plain: Path, robust: Path, tmp_path: Path) -> None:
    def other(info: Json) -> None:
        info["config"] |= {"keep": 5, "full": True}
        del info["config"]["attacks"][0], info["aggregates"]["models"][0]["attacks"][0]
        info["images"] = [image for image in info["images"] if image["attack"] != "fgsm"]

    second = changed(robust, tmp_path / "second", other)
    words: list[str] = []
    for folders in ([plain, second], [plain, robust], [second]):
        page = report(folders, tmp_path / "page.html", overwrite=True).read_text(encoding="utf-8")
        words.append(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)))
    mixed, alike, full = words
    assert "the 1 (in plain) or 5 (in second) with the smallest keyed hash were kept" in mixed
    assert "the one with the smallest" in alike and "the 5 with the smallest" in full
    assert "the point is what the whole suite left" in alike and "gets one try" not in alike
    assert "right and, in plain, had withstood every attack above" in mixed and "in plain, later attacks of" in mixed
    assert "right and had withstood every attack above" in alike and "; later attacks of the suite" in alike
    assert "had withstood every attack" not in full and "later attacks of" not in full
    run, _ = one_group([plain, second])
    assert "right and, in plain, had withstood the attacks above" in written(run, "attacks", "markdown")


def test_a_run_without_a_curve_leaves_the_others_theirs(plain: Path, robust: Path, tmp_path: Path) -> None:
    def bare(info: Json) -> None:
        del info["config"]["curve"]
        info["aggregates"]["models"][0]["curve"] = []

    other = changed(plain, tmp_path / "bare", bare)
    page = report([other, robust], tmp_path / "page.html").read_text(encoding="utf-8")
    (drawing,) = re.findall(r'<svg class="curve".*?</svg>', page, re.S)
    assert drawing.count('class="line"') == 1 and 'd="MZ"' not in drawing


def test_the_same_folders_give_the_same_bytes_wherever_they_lie(plain: Path, robust: Path, tmp_path: Path) -> None:
    first = report([plain, robust], tmp_path / "a.html").read_bytes()
    moved = [shutil.copytree(folder, tmp_path / "moved" / folder.name) for folder in (plain, robust)]
    assert report(moved, tmp_path / "b.html").read_bytes() == first
    assert report([robust, plain], tmp_path / "c.html").read_bytes() != first


def test_models_named_by_path_keep_their_lines_and_stay_two(write_run: Write, tmp_path: Path) -> None:
    models = {"/home/ann/old/net.py:make": (0.9, 1.0), "/home/ann/new/net.py:make": (0.9, 9.0)}
    run = PageRun.read(write_run(tmp_path / "run", n=40, models=models))
    names = ["old/net.py:make", "new/net.py:make"]
    assert [model["name"] for model in run.models] == [m["name"] for m in run.info["config"]["models"]] == names
    assert [image["model"] for image in run.info["images"]] and "ann" not in str(run.info)
    old = [line.adv for line in run.stored.lines if "old" in line.model]
    assert [line.adv for line in run.lines if line.model == names[0]] == old
    twin = shutil.copytree(run.folder, tmp_path / "twin")
    merged, _ = one_group([run.folder, twin])
    assert [model["name"] for model in merged.models] == [f"{n} (run #{i})" for i in (1, 2) for n in names]
    assert len(merged.lines) == 2 * len(run.lines) and {m["name"] for m in merged.models} == {
        line.model for line in merged.lines
    }


def test_a_folder_given_twice_is_an_error(plain: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(plain)
    with pytest.raises(UserError, match="link is given twice"):
        read_runs([plain, link])


def test_what_somebody_wrote_is_not_overwritten(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.html"
    notes.write_text("<!DOCTYPE html><title>mine</title>")
    assert main(["report", str(plain), "--output", str(notes)]) == 2
    assert "Add --overwrite to replace it" in capsys.readouterr().err
    assert notes.read_text() == "<!DOCTYPE html><title>mine</title>"
    assert main(["report", str(plain), "--output", str(notes), "--overwrite"]) == 0
    assert capsys.readouterr().out == f"{notes}\n"
    assert main(["report", str(plain), "--output", str(notes)]) == 2  # a page, perhaps of other runs
    assert main(["report", str(plain), "--output", "/dev/null"]) == 2
    assert Path("/dev/null").is_char_device()
    assert main(["report", str(plain), "--output", str(notes / "page.html")]) == 1
    assert "Cannot write" in capsys.readouterr().err


def test_the_page_of_a_run_is_rebuilt_in_place(robust: Path) -> None:
    page = robust / "report.html"
    page.unlink(missing_ok=True)
    assert main(["report", str(robust)]) == 0
    whole = page.read_bytes()
    page.write_bytes(whole[:-100])
    assert main(["report", str(robust)]) == 0 and page.read_bytes() == whole
    page.write_text("somebody's own")
    assert main(["report", str(robust)]) == 2 and page.read_text() == "somebody's own"
    assert main(["report", str(robust), "--overwrite"]) == 0 and page.read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give at least one run folder"),
        (["plain", "robust"], "--output is needed for a page of several runs (2 were given)"),
        (["nowhere"], "nowhere is not a run folder"),
    ],
)
def test_a_command_that_cannot_work_says_why(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("robustlab: ") and said in err
