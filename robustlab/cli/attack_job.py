"""`robustlab attack` behind its flags: resolve names, evaluate, build the page, print the table."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from robustlab.attacks.suite import load_suite
from robustlab.base.environment import resolve_device
from robustlab.base.files import default_folder, resumable
from robustlab.base.progress import bar
from robustlab.base.words import visible, visible_json
from robustlab.cli.asked import Request, parse_limit
from robustlab.data import load_data, parse_size
from robustlab.evaluation.evaluate import Listener, evaluate
from robustlab.evaluation.options import Options
from robustlab.evaluation.processes import World
from robustlab.models import load_model
from robustlab.models.suitable import suitable
from robustlab.reporting import report, terminal_table, terminal_width
from robustlab.runs import results


def attack(request: Request, options: Options, command: str) -> int:
    """Do it; returns the exit code. request: checked."""
    limit, names = parse_limit(request.limit), request.names
    load_suite(request.suite, attacks=request.attacks, **request.threat)  # whether it is right, before all else
    world = World.join()
    options = replace(options, device=str(resolve_device(options.device)))
    models = [
        load_model(name, weights=request.weights, mean=request.mean, std=request.std, download=request.download)
        for name in names
    ]
    surrogates = [load_model(name, download=request.download) for name in request.surrogates or ()]
    wanted = request.data or models[0].data or "road-signs"
    fit = suitable(wanted, models)
    chosen = load_data(
        wanted,
        "test",
        limit,
        ids=request.ids or (),
        classes=request.classes or (),
        data_root=request.data_root,
        download=request.download,
        **fit | ({} if request.size is None else {"size": parse_size(request.size)}),
        workers=request.workers,
        skip_bad=request.skip_bad,
    )
    suite = load_suite(request.suite, attacks=request.attacks, default=chosen.threat, **request.threat)

    folder = request.output or world.agree(default_folder(chosen.name) if world.first else Path())
    with resumable(folder):
        run = evaluate(
            models,
            chosen,
            suite,
            output=folder,
            surrogate=surrogates or None,
            resume=request.resume,
            overwrite=request.overwrite,
            command=command,
            listener=_listener(request.quiet or not world.first),
            **{name: getattr(options, name) for name in asdict(options)},
        )
    if not world.first:
        return 0
    page = report([run.folder], run.folder / "report.html")
    found = results(run)
    if request.json:
        written = msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
        sys.stdout.buffer.write(visible_json(written).encode() + b"\n")
    print(terminal_table(found, terminal_width(sys.stderr)), file=sys.stderr)
    print(f"Page: {visible(page)}", file=sys.stderr)
    return _threshold(found, request.fail_under)


def _threshold(found: dict[str, Any], least: float | None) -> int:
    if least is None:
        return 0
    missed = [r for r in found["results"] if r["robust_accuracy"]["value"] < least]
    for result in missed:
        value = result["robust_accuracy"]["value"]
        print(f"{visible(result['model'])}: robust accuracy {value:.4f} is under {least:g}.", file=sys.stderr)
    return 1 if missed else 0


def _listener(quiet: bool) -> Listener:
    """Sentences and progress on stderr: a bar if it is a terminal, otherwise a line a minute."""
    if quiet:
        return Listener(
            say=lambda text: print(visible(text), file=sys.stderr) if text.startswith("Warning") else None,
            watch=lambda clock, say: nullcontext(),
        )
    if not sys.stderr.isatty():
        return Listener()
    return Listener(watch=lambda clock, say: bar(clock))
