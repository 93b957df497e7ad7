"""What axe-core, run in a real browser, finds in the pages: nothing that keeps somebody from reading or using them.

The pages of a scan, an explanation and a patch are tested where they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robustlab.reporting import report

pytestmark = pytest.mark.browser
STICKER = Path(__file__).parents[2] / "reports" / "example-sticker"
Barriers = Callable[[Path], list[str]]


def test_of_models_under_attack_side_by_side(
    write_run: Callable[..., Path], tmp_path: Path, barriers: Barriers
) -> None:
    runs = [write_run(tmp_path / name, n=n) for name, n in (("one", 40), ("other", 24))]  # not comparable
    assert barriers(report(runs, tmp_path / "report.html")) == []


def test_of_a_backdoor(write_backdoor: Callable[..., Path], tmp_path: Path, barriers: Barriers) -> None:
    assert barriers(report([write_backdoor(tmp_path / "run")], tmp_path / "report.html")) == []


def test_of_a_sticker(tmp_path: Path, barriers: Barriers) -> None:
    assert barriers(report([STICKER], tmp_path / "report.html")) == []


def test_a_barrier_is_noticed(tmp_path: Path, barriers: Barriers) -> None:
    page = tmp_path / "page.html"
    page.write_text('<html lang="en"><title>t</title><main><h1>t</h1><img src="data:,"><p style="color: #ddd">pale</p>')
    found = barriers(page)
    assert [one.split(": ")[1] for one in found if one.startswith("light")] == ["color-contrast", "image-alt"]
