"""What all tests share: the folder with real data, and the number of threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

DATA_ROOT = Path(os.environ.get("ROBUSTLAB_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and tables would be cut to it
    if "OMP_NUM_THREADS" not in os.environ:  # more threads than two only get in each other's way on 32 x 32 images
        torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets; the test skips where there is none."""
    if not DATA_ROOT.is_dir():
        pytest.skip(f"no real data in {DATA_ROOT} (set ROBUSTLAB_DATA)")
    return DATA_ROOT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    def skipped(reason: str) -> int:
        return sum(reason in str(one.longrepr) for one in terminalreporter.stats.get("skipped", []))

    if not DATA_ROOT.is_dir():
        terminalreporter.section("REAL DATA ABSENT", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{skipped('no real data in')} tests were skipped: there is no folder {DATA_ROOT}. Set ROBUSTLAB_DATA to"
            " one that holds MNIST/ and FashionMNIST/ (torchvision's layout) and gtsrb32.npz.",
            red=True,
        )
    if count := skipped("no browser"):
        terminalreporter.section("BROWSER ABSENT", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{count} tests were skipped: the page was not tried in a browser. They need chromium (or chromium-browser,"
            " or google-chrome) on PATH, and the Python package playwright.",
            red=True,
        )
