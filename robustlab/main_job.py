"""`robustlab attack` behind its flags: resolve names, evaluate, build the page, print the table."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from robustlab.attacks.suite import load_suite
from robustlab.data import SQUARE, load_data, parse_size
from robustlab.distributed import World
from robustlab.environment import resolve_device
from robustlab.errors import UserError
from robustlab.evaluation import Listener, evaluate
from robustlab.files import default_folder, resumable
from robustlab.models import load_model
from robustlab.models.card import read_model_card
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import zoo_names
from robustlab.options import Options
from robustlab.reporting import report, terminal_table
from robustlab.runs import results

DEFAULT_MODELS = ("road-signs/cnn", "road-signs/cnn-robust")


@dataclass(frozen=True)
class Request:
    """The flags of `robustlab attack` that say what to do; `Options` says how. See the command's help."""

    models: Sequence[str]
    suite: str | None
    attacks: Sequence[str]
    surrogates: Sequence[str] | None
    data: str | None
    threat: dict[str, Any]
    limit: str
    ids: Sequence[int] | None
    classes: Sequence[str] | None
    weights: Path | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    data_root: Path | None
    download: bool
    size: str | None
    workers: int | None
    skip_bad: bool
    output: Path | None
    resume: bool
    overwrite: bool
    json: bool
    quiet: bool
    fail_under: float | None


def attack(request: Request, options: Options, command: str) -> int:
    """Do it; returns the exit code."""
    limit = parse_limit(request.limit)
    for flag in ("surrogates", "ids", "classes", "mean", "std"):
        if getattr(request, flag) == []:
            raise UserError(f"--{flag.removesuffix('s') if flag == 'surrogates' else flag} was given without a value.")
    if request.surrogates and not request.models:
        raise UserError(
            "--surrogate takes every name after it. Give the model to attack before: MODEL --surrogate NAME."
        )
    names = list(request.models) or list(DEFAULT_MODELS)
    if len(names) > 1 and (request.weights or request.mean or request.std):
        raise UserError(f"--weights, --mean and --std belong to exactly one model; {len(names)} were given.")
    _check_normalisation(names[0], request.mean, request.std)
    if request.fail_under is not None and not 0 <= request.fail_under <= 1:
        raise UserError(f"--fail-under is a fraction between 0 and 1, got {request.fail_under:g}.")
    if request.suite and request.attacks:
        raise UserError("Give either --suite or --attack, not both.")
    if request.resume and request.output is None:
        raise UserError("--resume needs --output: name the run folder to go on with (ls reports).")
    if request.threat.get("target") and not request.threat.get("targeted"):
        raise UserError("--target needs --targeted.")
    load_suite(request.suite, attacks=request.attacks, **request.threat)  # whether it is right, before all else
    world = World.join()
    options = replace(options, device=str(resolve_device(options.device)))
    models = [
        load_model(name, weights=request.weights, mean=request.mean, std=request.std, download=request.download)
        for name in names
    ]
    surrogates = [load_model(name, download=request.download) for name in request.surrogates or ()]
    wanted = request.data or models[0].data or "road-signs"
    chosen = load_data(
        wanted,
        "test",
        limit,
        ids=request.ids or (),
        classes=request.classes or (),
        data_root=request.data_root,
        download=request.download,
        size=_size(wanted, models) if request.size is None else parse_size(request.size),
        channels=None if models[0].shape is None else models[0].shape[0],
        workers=request.workers,
        skip_bad=request.skip_bad,
    )
    suite = load_suite(request.suite, attacks=request.attacks, default=chosen.threat, **request.threat)

    folder = request.output or world.agree(default_folder(chosen.name))
    with _listener(request.quiet or not world.first) as listener, resumable(folder):
        run = evaluate(
            models,
            chosen,
            suite,
            output=folder,
            surrogate=surrogates or None,
            resume=request.resume,
            overwrite=request.overwrite,
            command=command,
            listener=listener,
            **{name: getattr(options, name) for name in asdict(options)},
        )
    if not world.first:
        return 0
    page = report([run.folder], run.folder / "report.html")
    found = results(run)
    if request.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    print(terminal_table(found), file=sys.stderr)
    print(f"Page: {page}", file=sys.stderr)
    return _threshold(found, request.fail_under)


def _check_normalisation(name: str, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """--mean and --std make sense together, in units of [0, 1], and for a model that has none of its own."""
    if mean is None and std is None:
        return
    if mean is None or std is None:
        raise UserError("--mean and --std come together: give both, in the units of images in [0, 1].")
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        values = f"got --mean {' '.join(map(str, mean))} --std {' '.join(map(str, std))}"
        raise UserError(f"Images are in [0, 1], so mean and std are, too; {values}. Divide values of 0 to 255 by 255.")
    if name in zoo_names() or (name.endswith(".toml") and read_model_card(name).mean):
        raise UserError(f"{name} brings its own normalisation: leave out --mean and --std.")


def parse_limit(text: str) -> int | None:
    """`all` as None, otherwise a positive number.

    >>> parse_limit("all"), parse_limit("20")
    (None, 20)
    """
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--limit is a number of samples of at least 1, or all; got {text!r}.")
    return int(text)


def _size(data: str, models: Sequence[Classifier]) -> int | tuple[int, int] | None:
    """The size at which to render or scale: what the model expects, where the set can be had at that."""
    shape = models[0].shape
    if shape is not None and data.startswith("folder:"):
        return shape[1:]
    return shape[1] if shape is not None and data in SQUARE and shape[1] == shape[2] else None


def _threshold(found: dict[str, Any], least: float | None) -> int:
    if least is None:
        return 0
    missed = [r for r in found["results"] if r["robust_accuracy"]["value"] < least]
    for result in missed:
        value = result["robust_accuracy"]["value"]
        print(f"{result['model']}: robust accuracy {value:.4f} is under {least:g}.", file=sys.stderr)
    return 1 if missed else 0


@contextmanager
def _listener(quiet: bool) -> Iterator[Listener]:
    """Sentences on stderr, and a progress bar there if it is a terminal."""
    if quiet:
        yield Listener(say=lambda text: print(text, file=sys.stderr) if text.startswith("Warning") else None)
        return
    if not sys.stderr.isatty():
        yield Listener()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield Listener(
            say=lambda text: bar.console.print(text, markup=False, highlight=False),
            advance=lambda done, total, text: bar.update(task, completed=done, total=total, description=text),
        )
