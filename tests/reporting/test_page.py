"""The page as a whole: self-contained, escaped, the same bytes from the same folder, and true to run.json."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from robustlab.errors import UserError
from robustlab.reporting import report
from robustlab.runs import read_run

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "link", "img"}


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
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|import\(", re.sub(r'base64,[^"]*', "", html))


def test_the_same_folder_gives_the_same_bytes_wherever_it_lies(run_folder: Path, tmp_path: Path) -> None:
    first = report([run_folder], tmp_path / "a.html").read_bytes()
    moved = shutil.copytree(run_folder, tmp_path / "elsewhere" / "moved")
    assert report([moved], tmp_path / "b.html").read_bytes() == first
    assert str(run_folder.parent).encode() not in first


def test_every_section_is_there_and_linked(html: str) -> None:
    outline = Outline(html)
    ids = {attributes.get("id") for tag, attributes in outline.tags if tag == "section"}
    assert ids == {"verdict", "curve", "attacks", "gallery", "provenance", "data"}
    linked = {a["href"] for tag, a in outline.tags if tag == "a"}
    assert linked == {f"#{name}" for name in ids}


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


def test_the_embedded_json_is_run_json(html: str, run_folder: Path) -> None:
    (stored,) = [text for attributes, text in Outline(html).scripts if attributes.get("type") == "application/json"]
    assert msgspec.json.decode(stored) == read_run(run_folder).info


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
    assert [attributes.get("type") for attributes, _ in outline.scripts] == ["application/json", None]
    for tag, attributes in outline.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        assert tag != "img" or (attributes["src"] or "").startswith("data:image/png;base64,")
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
    info["images"] = []
    (folder / "run.json").write_bytes(msgspec.json.encode(info))
    outline = Outline(report([folder], tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "not run" in outline.words and "it was not attacked" in outline.words and "not a checkout" in outline.words
    assert {a.get("id") for tag, a in outline.tags if tag == "section"} == {"verdict", "provenance", "data"}


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
    assert len([a for a, _ in outline.scripts if a.get("type") == "application/json"]) == 2


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


@pytest.mark.browser
def test_a_browser_shows_it_without_complaint(html: str, tmp_path: Path) -> None:
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)  # noqa: E501 # fmt: skip
    if browser is None:
        pytest.skip("no chromium here: the page was not tried in a browser")
    # what the click on the download button saves, and every error, is written into the page's title
    probe = """<script>
      const seen = [];
      addEventListener("error", (event) => seen.push(String(event.message || event.target.src)), true);
      const click = HTMLAnchorElement.prototype.click;
      HTMLAnchorElement.prototype.click = function () {
        fetch(this.href).then((got) => got.json()).then((run) => {
          const loaded = [...document.images].every((image) => image.complete && image.naturalWidth === 32);
          document.title = JSON.stringify([this.download, run.config_hash, loaded, seen,
            performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")
              && !entry.name.startsWith("blob:")).length,
            document.documentElement.scrollWidth <= innerWidth]);
        });
      };
      addEventListener("load", () => document.querySelector("button[data-save]").click());
    </script>"""
    page = tmp_path / "probe.html"
    page.write_text(html.replace("<head>", "<head>" + probe, 1), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--window-size=500,900"]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [browser, *flags, "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title, done.stderr
    file, config_hash, loaded, errors, requests, fits = _title(title.group(1))
    assert (file, len(config_hash), loaded, errors, requests, fits) == ("road-signs-demo.json", 16, True, [], 0, True)


def _title(text: str) -> Any:
    return msgspec.json.decode(text.replace("&quot;", '"'))
