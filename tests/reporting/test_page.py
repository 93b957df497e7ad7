"""The page as a whole: self-contained, escaped, the same bytes from the same folder, and true to run.json."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from robustlab.base.errors import UserError
from robustlab.reporting import report
from robustlab.reporting.sections import curve, data, gallery
from robustlab.reporting.sections.gallery import in_turns
from robustlab.reporting.source import PageRun
from robustlab.runs import read_run

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "link", "img", "input"}


class Outline(HTMLParser):
    """Tags with their attributes, text and scripts; every element must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.last = dict(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append((self.last, data))
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def html(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report([run_folder], tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


def test_it_needs_nothing_from_outside(html: str) -> None:
    outline = Outline(html)
    for tag, attributes in outline.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    own = re.sub(r"base64,[^\"]*|'sha256-[^']*'", "", html)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|import\(", own)


def test_only_its_own_script_may_run(html: str) -> None:
    outline = Outline(html)
    (policy,) = [a["content"] or "" for tag, a in outline.tags if tag == "meta" and "http-equiv" in a]
    (script,) = [text for attributes, text in outline.scripts if "type" not in attributes]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}';" in policy


def test_the_same_folder_gives_the_same_bytes_wherever_it_lies(run_folder: Path, tmp_path: Path) -> None:
    first = report([run_folder], tmp_path / "a.html").read_bytes()
    moved = shutil.copytree(run_folder, tmp_path / "elsewhere" / "moved")
    assert report([moved], tmp_path / "b.html").read_bytes() == first
    assert str(run_folder.parent).encode() not in first


def test_every_section_is_there_and_linked(html: str) -> None:
    outline = Outline(html)
    ids = [attributes.get("id") for tag, attributes in outline.tags if tag == "section"]
    assert ids == [
        *("verdict", "side-by-side", "curve", "attacks", "audit", "confusion", "gallery", "factors", "confidence"),
        *("verification", "provenance", "data", "glossary"),
    ]
    links = [a["href"] for tag, a in outline.tags if tag == "a" and a.get("class") != "term"]
    assert links == [f"#{name}" for name in ids]


def test_numbers_are_those_of_the_run(html: str, run_folder: Path) -> None:
    words = Outline(html).words.replace("\u00a0", " ")
    aggregates = read_run(run_folder).info["aggregates"]
    for model in aggregates["models"]:
        for share in (model["clean_accuracy"], model["robust_accuracy"], model["attacks"][1]["left"]):
            low, high = 100 * share["low"], 100 * share["high"]
            assert f"{100 * share['value']:.1f} % {low:.1f}–{high:.1f}" in words
    robust = aggregates["pairs"][0]["robust"]
    assert f"+{100 * robust['value']:.1f} +{100 * robust['low']:.1f} to +{100 * robust['high']:.1f}" in words
    assert "n = 300" in words and "< 0.001" in words


def embedded(html: str) -> dict[str, Any]:
    return {
        str(attributes["id"]): msgspec.json.decode(text)
        for attributes, text in Outline(html).scripts
        if attributes.get("type") == "application/json"
    }


def test_the_embedded_json_is_run_json(html: str, run_folder: Path) -> None:
    assert embedded(html)["run-1"] == read_run(run_folder).info


def test_the_embedded_columns_are_the_lines_at_the_headline_budget(html: str, run_folder: Path) -> None:
    run = read_run(run_folder)
    stored = embedded(html)["samples-1"]
    assert stored["id"] == [line["id"] for line in run.data_lines]
    assert stored["label"] == [line["label"] for line in run.data_lines]
    lines = {(line.model, line.attack, line.id): line for line in run.lines if line.eps in (0, 8 / 255)}
    seen = set()
    for model in stored["models"]:
        assert model["prediction"] == [lines[model["name"], "clean", id].clean for id in stored["id"]]
        for attack in model["attacks"]:
            tried = iter(zip(attack["prediction"], attack["confidence"], strict=True))
            for id, code in zip(stored["id"], attack["outcome"], strict=True):
                line = lines.get((model["name"], attack["name"], id))
                seen.add(stored["outcomes"][code])
                assert (line is None) == (code == "-")
                if line:
                    assert next(tried) == (line.adv, round(line.confidence or 0, 3))
                    assert (code in "fr") == line.succeeded and (code == "r") == (line.success_8bit is False)
            assert next(tried, None) is None
    assert seen == {"not tried", "withstood", "fooled", "fooled, not after rounding"}


def test_the_embedded_attack_table_is_csv(html: str, run_folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(embedded(html)["attacks-1"])))
    attacks = [a for model in read_run(run_folder).info["aggregates"]["models"] for a in model["attacks"]]
    assert [int(row["broken"]) for row in rows] == [attack["broken"] for attack in attacks]


def test_names_cannot_become_markup(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        n=40,
        classes=[EVIL, "</style>", '"><img src=x onerror=alert(1)>', "<!--"],
        models={f"m{EVIL}": (0.9, 1.0), 'n" onload="alert(1)': (0.9, 9.0)},
        command=f"robustlab attack {EVIL}",
        warnings=[EVIL, "</title>"],
        sections=[{"name": EVIL, "columns": [{"key": "a", "label": EVIL}], "rows": [{"a": EVIL}], "note": EVIL}],
    )
    html = report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    outline = Outline(html)
    assert [attributes.get("type") for attributes, _ in outline.scripts] == [*["application/json"] * 3, None]
    for tag, attributes in outline.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        assert tag != "img" or attributes["src"].startswith("data:image/png;base64,")
        assert tag != "image" or (attributes["href"] or "").startswith("data:image/png;base64,")
    assert outline.words.count(EVIL) >= 6
    assert "<!--" not in html


def test_folders_of_the_machine_do_not_show(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        n=20,
        models={"/home/somebody/secret/net.py:make": (0.9, 1.0)},
        command="robustlab attack /home/somebody/secret/net.py:make --data=npz:/data/somebody/set.npz --eps 8/255",
    )
    html = report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "somebody" not in html
    assert "robustlab attack net.py:make --data=npz:set.npz --eps 8/255" in html


def test_what_was_not_run_is_said(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", n=20, git=None)
    info = msgspec.json.decode((folder / "run.json").read_bytes())
    for model in info["aggregates"]["models"]:
        model.update(robust_accuracy=None, robust_accuracy_8bit=None, attacks=[], worst_class=None, curve=[])
    info["aggregates"]["pairs"][0]["robust"] = None
    info["config"]["attacks"] = info["images"] = []
    (folder / "run.json").write_bytes(msgspec.json.encode(info))
    outline = Outline(report([folder], tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "not run" in outline.words and "it was not attacked" in outline.words and "not a checkout" in outline.words
    sections = {a.get("id") for tag, a in outline.tags if tag == "section"}
    assert not sections & {"curve", "attacks", "gallery", "verification"}


def test_the_gallery_has_the_heatmaps_that_were_made_and_says_why_others_were_not(html: str, run_folder: Path) -> None:
    outline = Outline(html)
    views = [a["data-view"] for tag, a in outline.tags if tag == "svg" and "data-view" in a]
    first = in_turns(_images(run_folder, "road-signs/cnn"))
    assert views.count("heat_clean") == views.count("heat_adv") == views.count("heat_same") == len(first)
    assert views.count("adv") == len(first) + len(in_turns(_images(run_folder, "road-signs/cnn-robust")))
    assert "Grad-CAM at layer body.6" in outline.words
    assert "Where the prediction changed, left and middle differ" in outline.words
    assert "Grad-CAM: not run: no layer has a spatial output." in outline.words
    labels = [a["aria-label"] or "" for tag, a in outline.tags if a.get("data-view") == "heat_same"]
    zero = [image for image in first if image["heat_zero"]]
    assert zero and sum(label.endswith("zero everywhere") for label in labels) == len(zero)


def _images(folder: Path, model: str) -> list[dict[str, Any]]:
    return [image for image in read_run(folder).images if image["model"] == model]


def test_own_answers_as_labels_are_said(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", n=40)
    info = msgspec.json.decode((folder / "run.json").read_bytes())
    info["config"]["labels"] = "predicted"
    (folder / "run.json").write_bytes(msgspec.json.encode(info))
    words = Outline(report([folder], tmp_path / "report.html").read_text(encoding="utf-8")).words.replace("\u00a0", " ")
    assert "as the model itself answered on the clean image" in words and "Own answer" in words
    assert "road-signs/cnn keeps its own answer on" in words and "of 40 images under attack" in words
    words = words.rpartition("Glossary")[0]
    assert "classifies" not in words and "points of clean accuracy" not in words


def test_labels_that_nobody_used_are_not_in_the_download(write_run: Callable[..., Path], tmp_path: Path) -> None:
    run = PageRun.read(write_run(tmp_path / "run", n=40))
    assert data.columns(run)["label"] == [line["label"] for line in run.data_lines]
    run.info["config"]["labels"] = "predicted"
    assert data.columns(run)["label"] == [None] * 40
    assert "no <code>label</code>" in data.render([run])


def test_the_curve_of_a_targeted_run_has_no_chance(run_folder: Path) -> None:
    run = PageRun.read(run_folder)
    assert "chance, 1 of 8" in curve.render([run]) and 'class="chance"' in curve.render([run])
    run.info["config"]["threat"] |= {"targeted": True, "target": "random"}
    html = curve.render([run])
    assert "chance" not in html and "still classified" not in html
    assert "classified right and not turned into their targets by pgd with each budget" in html


def test_the_gallery_does_not_call_robust_what_nobody_knows(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", n=40, models={"m": (0.95, 9.0)})
    lines = [msgspec.json.decode(line) for line in (folder / "samples.jsonl").read_bytes().splitlines()]
    left = next(i for i in read_run(folder).images if i["robust"] and i["attack"] == "pgd")["id"]
    dead = {"error": "died", "adv": None, "confidence": None}
    lines = [line | dead if (line["id"], line["attack"]) == (left, "pgd-margin") else line for line in lines]
    (folder / "samples.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    info = msgspec.json.decode((folder / "run.json").read_bytes())
    info["images"] = [
        image | {"robust": image["robust"] and image["id"] != left}
        for image in info["images"]
        if (image["id"], image["attack"]) != (left, "pgd-margin")
    ]
    (folder / "run.json").write_bytes(msgspec.json.encode(info))
    outline = Outline(gallery.render([PageRun.read(folder)]))
    (item,) = [a for tag, a in outline.tags if tag == "li" and a["data-id"] == str(left)]
    assert item["data-outcome"] == "open" and item["data-attack"] == "0 1"
    assert f"withstood fgsm and pgd, ended in an error in pgd-margin · sample {left}" in outline.words
    assert "error or not tried" in outline.words  # in the filter
    assert f"withstood all, last pgd · sample {left}" not in outline.words


def test_the_gallery_counts_what_was_kept_and_says_why_some_are_not_shown(
    write_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "run", n=40, models={"m": (0.9, 9.0)})
    images = read_run(folder).images
    shown = len(in_turns(images))
    assert shown < len(images)

    def said() -> str:
        return Outline(gallery.render([PageRun.read(folder)])).words

    assert f"{shown} of {len(images)} kept examples." in said() and "too large" not in said()
    (folder / in_turns(images)[0]["adv"]).unlink()
    assert f"{shown - 1} of {len(images)} kept examples; 1 without a picture." in said()
    monkeypatch.setattr(gallery, "BYTES", 12_000)
    assert "; more would make the page too large." in said() and "without" in said()


def test_samples_that_are_too_many_stay_in_the_folder(
    write_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "run", n=40)
    monkeypatch.setattr(data, "BYTES", 100)
    html = report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "samples-1" not in html and "were left out" in html and "run-1" in embedded(html)


def test_a_missing_or_damaged_picture_leaves_the_rest(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", n=40)
    images = read_run(folder).images
    (folder / images[0]["adv"]).unlink()
    (folder / images[1]["adv"]).write_bytes(b"no picture")
    (folder / images[2]["delta"]).unlink()
    words = Outline(report([folder], tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert "no perturbation" in words


def test_two_runs_on_one_page(run_folder: Path, write_run: Callable[..., Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other-run", n=40, models={"road-signs/resnet20": (0.9, 2.0)})
    outline = Outline(report([run_folder, other], tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "other-run" in outline.words and "road-signs-demo" in outline.words and "resnet20" in outline.words
    assert {a.get("id") for a, _ in outline.scripts} >= {"run-1", "run-2", "samples-1", "samples-2"}


def test_what_cannot_be_built_is_said(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        report([run_folder], tmp_path)
    with pytest.raises(UserError, match="no run.json"):
        report([tmp_path], tmp_path / "report.html")
    with pytest.raises(UserError, match="at least one"):
        report([], tmp_path / "report.html")


def test_it_is_light_and_quick(run_folder: Path, tmp_path: Path) -> None:
    start = time.perf_counter()
    page = report([run_folder], tmp_path / "report.html")
    assert time.perf_counter() - start < 5
    assert page.stat().st_size < 500_000
