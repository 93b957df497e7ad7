"""What all tests share: the folder with real data, the number of threads, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by playwright; the test skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        pytest.skip("no browser: the page was not tried (needs chromium and the package playwright)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def barriers(browser: Any) -> Callable[[Path], list[str]]:
    """barriers(page): what axe-core calls serious or critical in it: light on a desktop, dark on a phone."""
    from axe_playwright_python.sync_playwright import Axe

    def found(page: Path) -> list[str]:
        said = []
        for width, scheme in ((1200, "light"), (390, "dark")):
            view = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            view.goto(page.resolve().as_uri())
            view.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            for finding in Axe().run(view).response["violations"]:
                if finding["impact"] in ("serious", "critical"):
                    said += [f"{scheme}: {finding['id']}: {node['html'][:200]}" for node in finding["nodes"]]
            view.close()
        return said

    return found


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
