"""What all tests share: the folder with real data, and the number of threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

DATA_ROOT = Path(os.environ.get("ROBUSTLAB_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def pytest_configure(config: pytest.Config) -> None:
    if "OMP_NUM_THREADS" not in os.environ:  # more threads than two only get in each other's way on 32 x 32 images
        torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets; the test skips where there is none."""
    if not DATA_ROOT.is_dir():
        pytest.skip(f"no real data in {DATA_ROOT} (set ROBUSTLAB_DATA)")
    return DATA_ROOT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if DATA_ROOT.is_dir():
        return
    skipped = [one for one in terminalreporter.stats.get("skipped", []) if "no real data in" in str(one.longrepr)]
    terminalreporter.section("REAL DATA ABSENT", sep="!", red=True, bold=True)
    terminalreporter.line(
        f"{len(skipped)} tests were skipped: there is no folder {DATA_ROOT}. Set ROBUSTLAB_DATA to one that holds"
        " MNIST/ and FashionMNIST/ (torchvision's layout) and gtsrb32.npz.",
        red=True,
    )
