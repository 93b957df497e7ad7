"""The audit on the page, in the command's table and in its JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import robustlab
from robustlab.attacks.suite import load_suite
from robustlab.evaluation.listener import Listener
from robustlab.reporting import report, terminal_table
from robustlab.runs import read_run, results

QUIET = Listener(say=lambda text: None)


def run(models: Any, data: Any, folder: Path, **options: Any) -> Path:
    suite = load_suite(attacks=["pgd:steps=15"], norm="linf", eps=0.1)
    given: dict[str, Any] = {"audit": 6, "curve": [], "keep": 0} | options
    robustlab.evaluate(models, data, suite, output=folder, listener=QUIET, **given)
    return folder


def text_of(*folders: Path) -> str:
    return report(folders, folders[0] / "page.html", overwrite=True).read_text()


@pytest.fixture
def softened(world: Any) -> nn.Module:
    return nn.Sequential(world.plain(), nn.Softmax(1))


def test_failures_and_passes_are_shown(softened: nn.Module, world: Any, tmp_path: Path) -> None:
    folder = run({"<net>": softened}, world.patterns(24, seed=1), tmp_path / "run")
    page = text_of(folder)
    record = read_run(folder).info["audit"]["<net>"]
    section = page[page.index('id="audit"') : page.index('id="confusion"')]
    section = re.sub("</?a(?: [^>]*)?>", "", section)  # terms of the glossary
    assert "&lt;net&gt;" in section and "<net>" not in section
    for check in record["checks"]:
        assert check["title"] in section and check["source"] in section
        shown = check["advice"].replace("'", "&#39;") in section
        assert shown == (check["status"] in ("warn", "fail"))
    assert section.count('class="verdict fail"') == sum(c["status"] == "fail" for c in record["checks"]) > 0
    assert section.count('class="verdict pass"') == sum(c["status"] == "pass" for c in record["checks"]) > 5
    verdict = page[page.index('id="verdict"') : page.index('id="attacks"')]
    assert "the audit of the attack says not to believe these numbers" in verdict
    assert "the outputs are logits" in verdict and 'role="alert"' in verdict


def test_an_honest_model_raises_no_alarm(world: Any, tmp_path: Path) -> None:
    page = text_of(run({"net": world.plain()}, world.patterns(24, seed=1), tmp_path / "run"))
    assert "not to believe" not in page and 'class="verdict fail"' not in page


def test_not_run_is_said(world: Any, tmp_path: Path) -> None:
    folder = run({"net": world.plain()}, world.patterns(24, seed=1), tmp_path / "run", audit=0)
    assert "Not run: whether the attack itself is to be believed was not asked" in text_of(folder)
    info = json.loads((folder / "run.json").read_bytes())
    del info["audit"], info["config"]["audit"]  # a run of an older robustlab
    (folder / "run.json").write_text(json.dumps(info))
    assert "Not run: whether the attack itself is to be believed was not asked" in text_of(folder)
    assert "audit of the attack: not run" in terminal_table(results(read_run(folder)))


def test_audits_of_several_runs_stand_on_one_page(softened: nn.Module, world: Any, tmp_path: Path) -> None:
    data = world.patterns(24, seed=1)
    one = run({"net": world.plain()}, data, tmp_path / "one")
    two = run({"net": softened}, data, tmp_path / "two")
    page = text_of(one, two)
    section = page[page.index('id="audit"') : page.index('id="confusion"')]
    assert "net (one)" in section and "net (two)" in section
    assert "net (two): the audit of the attack says" in page and "net (one): the audit" not in page


def test_the_table_says_it_in_one_line(softened: nn.Module, world: Any, tmp_path: Path) -> None:
    folder = run({"net": softened}, world.patterns(24, seed=1), tmp_path / "run")
    found = results(read_run(folder))
    assert found["results"][0]["audit"]["checks"][0]["status"] == "fail"
    table = " ".join(terminal_table(found).split())
    assert "failed (outputs" in table and "; n = 6" in table
    assert json.loads(json.dumps(found)) == found
