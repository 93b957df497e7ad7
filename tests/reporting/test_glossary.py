"""Terms are marked once a section, never inside names or controls, and each mark leads to an entry of the glossary."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from markupsafe import Markup

from robustlab.reporting import report
from robustlab.reporting.glossary import TERMS, with_terms


def marked(html: str) -> list[str]:
    return re.findall(r'<a class="term" href="#term-[\w-]+">([^<]*)</a>', with_terms(Markup(html)))


def test_each_section_marks_the_first_use() -> None:
    section = "<section><p>The budget; budgets.</p><p>Budget.</p></section>"
    assert marked(section * 2) == ["budget", "budget"]
    assert marked("<h2>One</h2><p>suite, worst case</p><h2>Two</h2><p>Suite</p>") == ["suite", "worst case", "Suite"]


@pytest.mark.parametrize(
    "html",
    [
        '<p title="the suite">sweet</p>',
        "<button>suite</button><h3>suite</h3><code>suite</code><q>suite</q><cite>suite</cite>",
        '<script type="application/json">{"a": "suite > budget"}</script><svg><title>suite</title></svg>',
        "<p>example-backdoor road-signs/suite suite:budget=1 net+suite budgeted L20</p>",
        "<details><summary>The <b>suite</b></summary></details>",
    ],
)
def test_no_mark_in_names_controls_and_code(html: str) -> None:
    assert with_terms(Markup(html)) == html


def test_each_mark_of_a_page_has_its_entry(
    run_folder: Path, write_backdoor: Callable[..., Path], tmp_path: Path
) -> None:
    found = set()
    for folder in (run_folder, write_backdoor(tmp_path / "run")):
        page = report([folder], tmp_path / f"{folder.name}.html").read_text(encoding="utf-8")
        marks, entries = re.findall(r'href="#(term-[\w-]+)"', page), re.findall(r'<div id="(term-[\w-]+)">', page)
        assert set(marks) == set(entries) and len(entries) == len(set(entries)) >= 3
        assert page.count('<a href="#glossary">Glossary</a>') == 1
        found |= set(entries)
    assert len(found) >= 10 and found <= {f"term-{term.key}" for term in TERMS}


def test_a_page_without_terms_has_no_glossary() -> None:
    assert with_terms(Markup("<nav></nav><main><p>Nothing.</p></main>")) == "<nav></nav><main><p>Nothing.</p></main>"


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.key)
def test_an_entry_is_found_by_its_own_name_and_is_short(term: tuple[str, ...]) -> None:
    key, name, _, means = term
    assert f'href="#term-{key}"' in with_terms(Markup(f"<p>{name}</p>"))
    assert 40 < len(means) < 240 and means.endswith(".")
