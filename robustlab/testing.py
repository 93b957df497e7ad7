"""Robustness in a test suite: `assert_robust`, and the pytest plugin that keeps its pages.

The plugin adds one option, --robust-pages DIR: where the page of a failed assertion goes (default: a folder in the
system's temporary one), and lists these pages at the end. It imports nothing until an assertion is made.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from robustlab.runs import StoredRun

__all__ = ["assert_robust"]

_SHOWN = 10  # ids of an attack
_pages: list[Path] = []  # of what failed in this process
_folder: Path | None = None  # --robust-pages


def assert_robust(
    classifier: Any,
    data: Any = "road-signs",
    suite: Any = "linf-standard",
    *,
    at_least: float,
    limit: int | None = 200,
    output: str | Path | None = None,
    **options: Any,
) -> StoredRun:
    """Attack a classifier, and fail where less than `at_least` of the images stay right under every attack.

    classifier, data, suite: as `robustlab.evaluate` takes them; one model. at_least: a fraction in [0, 1], compared
    with the counted share of all images. limit: of a data set given by name, the first images. output: a folder that
    keeps the run, passed or failed; else only that of a failure is kept. options: more of `robustlab.evaluate`; no
    audit and no curve unless asked for. Returns the run.

    Raises AssertionError, whose message names the attacks, the ids of the images and the page; UserError for bad input.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> images = torch.rand(8, 3, 2, 2)
    >>> run = assert_robust(net, (images, net(images).argmax(1)), "fgsm", at_least=0.0)
    >>> run.info["aggregates"]["models"][0]["clean_accuracy"]["value"]
    1.0
    """
    import tempfile

    from robustlab.base.errors import UserError
    from robustlab.evaluation.evaluate import evaluate
    from robustlab.evaluation.listener import Listener

    if not isinstance(at_least, int | float) or isinstance(at_least, bool) or not 0 <= at_least <= 1:
        raise UserError(f"at_least is a fraction between 0 and 1 (40 % is 0.4), got {at_least!r}.")
    chosen = {"audit": 0, "curve": [], "listener": Listener(say=lambda text: None), **options}
    with tempfile.TemporaryDirectory(prefix="robustlab-") as scratch:
        run = evaluate(classifier, data, suite, limit=limit, output=output or Path(scratch, "run"), **chosen)
        models = run.info["aggregates"]["models"]
        if len(models) != 1:
            raise UserError(f"assert_robust takes one model, got {len(models)}. Call it once for each.")
        (model,) = models
        _ = run.lines, run.data_lines  # read before the folder is gone
        if model["robust_accuracy"]["value"] >= at_least:
            return run
        page = _page(run, None if output is None else Path(output))
    raise AssertionError("\n".join(_message(run, model, at_least, page)))


def _page(run: StoredRun, output: Path | None) -> Path:
    """The page of a failed run, built where it stays."""
    import tempfile

    from robustlab.reporting import report

    if output is None:
        test = re.sub(r"[^\w.-]+", "-", os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]).strip("-")
        if _folder is not None:
            _folder.mkdir(parents=True, exist_ok=True)
        output = Path(tempfile.mkdtemp(prefix=f"{test[-100:] or 'robustlab'}-", dir=_folder))
    page = report([run.folder], output / "report.html", overwrite=True)
    _pages.append(page)
    return page


def _message(run: StoredRun, model: dict[str, Any], at_least: float, page: Path) -> Iterator[str]:
    """What a person needs: how far off, which attacks, which images, and where to look."""
    from math import ceil

    from robustlab.base.words import counted, interval, percent, some, visible
    from robustlab.reporting.text import NORMS, budget

    share, numbers = model["robust_accuracy"], run.info["aggregates"]
    n = share["n"]
    short = ceil(at_least * n - 1e-9) - round(share["value"] * n)
    yield (
        f"Robust accuracy is {percent(share)} (95 %: {interval(share)}, n = {n:,}), and at least"
        f" {100 * at_least:.4g} % were asked for: {counted(short)} too few."
    )
    data, suite = run.info["data"], run.info.get("suite", "attacks")
    eps = budget(numbers["eps"], numbers["norm"])
    yield (
        f"  {visible(suite)} on {visible(data['name'])}, {NORMS[numbers['norm']]} eps {eps}, seed"
        f" {run.info['config']['seed']}; clean accuracy {percent(model['clean_accuracy'])}"
    )
    wrong = [line.id for line in run.lines if line.attack == "clean" and (line.error or line.clean != line.label)]
    if wrong:
        yield f"  wrong without an attack: {counted(len(wrong))}, ids {some(list(map(str, wrong)), _SHOWN)}"
    for attack in model["attacks"]:
        at_headline = [line for line in run.lines if line.attack == attack["name"] and line.eps == numbers["eps"]]
        fell = [str(line.id) for line in at_headline if line.succeeded]
        ids = f", ids {some(fell, _SHOWN)}" if fell else ""
        yield f"  {visible(attack['name'])}: broke {len(fell):,} of {counted(attack['attempted'])}{ids}"
    yield f"  the page, with their pictures: {visible(page)}"


def pytest_addoption(parser: Any) -> None:
    """The plugin's option."""
    group = parser.getgroup("robustlab")
    group.addoption("--robust-pages", metavar="DIR", help="Where assert_robust puts the page of a failure.")


def pytest_configure(config: Any) -> None:
    """Remember where pages go."""
    global _folder
    given = config.getoption("--robust-pages", None)
    _folder = Path(given).resolve() if given else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the pages of what failed."""
    if _pages:
        terminalreporter.section("pages of assert_robust")
        for page in _pages:
            terminalreporter.line(str(page))
