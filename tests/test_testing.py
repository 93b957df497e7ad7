"""assert_robust in a test suite of somebody else: what it says, what it keeps, what it costs when unused."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustlab.attacks.suite import load_suite
from robustlab.base.errors import UserError
from robustlab.runs import StoredRun
from robustlab.testing import assert_robust

ROOT = Path(__file__).resolve().parents[1]


class Bright(nn.Module):
    """Two classes, told by the mean of an image: below 0.5 the first. Of known distance to the other class."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(1) - 0.5
        return torch.stack([-10 * mean, 10 * mean], 1)


def images(means: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey images; all are labelled as the second class."""
    return torch.tensor(means)[:, None, None, None].expand(-1, 1, 4, 4).clone(), torch.ones(len(means)).long()


# under linf 0.1: five stay right, three fall (ids 5, 6, 7), two are wrong already (8, 9)
DATA = images([0.9, 0.8, 0.7, 0.65, 0.62, 0.55, 0.53, 0.51, 0.4, 0.3])


def robust(**more: Any) -> StoredRun:
    return assert_robust(Bright(), DATA, load_suite("fgsm", eps="0.1"), **more)


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_it_passes_at_the_share_that_stays_right_and_leaves_nothing(tmp_path: Path) -> None:
    run = robust(at_least=0.5)
    assert run.info["aggregates"]["models"][0]["robust_accuracy"]["value"] == 0.5
    assert len(run.lines) > 10 and not list(tmp_path.iterdir())


def test_the_message_names_attacks_images_and_a_page(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as error:
        robust(at_least=0.6)
    said = str(error.value)
    assert said.startswith("Robust accuracy is 50.0\u00a0% (95 %: 23.7–76.3, n = 10), and at least 60 % were asked for")
    assert ": 1 image too few." in said and "clean accuracy 80.0" in said
    assert "wrong without an attack: 2 images, ids 8, 9" in said
    assert "fgsm: broke 3 of 8 images, ids 5, 6, 7" in said
    page = Path(re.search(r"the page, with their pictures: (.*)", said)[1])  # type: ignore[index]
    assert page.read_text().startswith("<!DOCTYPE html>") and page.is_relative_to(tmp_path)
    assert "data:image/png" in page.read_text()


def test_a_folder_keeps_the_run(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=str(tmp_path / "kept" / "report.html")):
        robust(at_least=0.6, output=tmp_path / "kept")
    assert (tmp_path / "kept" / "run.json").is_file()


@pytest.mark.parametrize("at_least", [40, -0.1, "0.4", True])
def test_what_cannot_be_asked_for(at_least: object) -> None:
    with pytest.raises(UserError, match="at_least is a fraction"):
        robust(at_least=at_least)


def pytest_of(folder: Path, text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A test file of somebody else, in a process of its own, with the plugin as its entry point would load it."""
    (folder / "test_mine.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *flags]
    return subprocess.run([*command, "test_mine.py"], cwd=folder, capture_output=True, text=True)


def test_an_unused_plugin_imports_nothing(tmp_path: Path) -> None:
    heavy = ("torch", "numpy", "scipy", "rich", "cyclopts", "msgspec")
    text = f"""
import sys

def test_modules():
    assert "robustlab.testing" in sys.modules
    loaded = [name for name in sys.modules if name.split(".")[0] in {heavy}]
    assert loaded == []
    assert sorted(n for n in sys.modules if n.startswith("robustlab.")) == [
        "robustlab.base", "robustlab.base.lazy", "robustlab.testing"
    ]
"""
    done = pytest_of(tmp_path, text)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_plugin_puts_pages_where_it_is_told_and_lists_them(tmp_path: Path) -> None:
    text = """
import torch
from robustlab.testing import assert_robust

def test_mine():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    assert_robust(net, (torch.rand(4, 3, 2, 2), torch.zeros(4).long()), "fgsm", at_least=1.0)
"""
    done = pytest_of(tmp_path, text, "--robust-pages", "pages")
    (page,) = (tmp_path / "pages").glob("*/report.html")
    assert done.returncode == 1 and "test_mine.py-test_mine" in page.parent.name
    assert "pages of assert_robust" in done.stdout and str(page) in done.stdout


def test_the_entry_point_is_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"robustlab": "robustlab.testing"}
