"""`robustlab train` behind its flags: resolve the recipe, train, say what came out."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from robustlab.base.errors import UserError
from robustlab.base.files import default_folder, resumable
from robustlab.base.typed import check_device, check_whole
from robustlab.base.words import counted, visible
from robustlab.cli.asked import check_data_flags, check_output
from robustlab.data import parse_size
from robustlab.training import recipe_for


def as_settings(**values: object) -> list[str]:
    """Flags that were given, as `key=value`.

    >>> as_settings(epochs=3, eps=None)
    ['epochs=3']
    """
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping; values are read as TOML, words and fractions stay text.

    >>> parse_settings(["lr=0.05", "eps=4/255", "flip=true"])
    {'lr': 0.05, 'eps': '4/255', 'flip': True}
    """
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise UserError(f"--set expects key=value, got {text!r}.")
        if key in found:
            raise UserError(f"{key} was given twice: {found[key]!r} and {value!r}. Give it once.")
        try:
            found[key] = tomllib.loads(f"v = {value}")["v"]
        except ValueError:  # no TOML, or a number of more digits than Python reads
            found[key] = value
    return found


def train_command(
    model: str,
    *,
    data: str | None,
    recipe: str | None,
    given: Sequence[str],
    output: Path | None,
    seed: int | None,
    device: str,
    data_root: Path | None,
    download: bool,
    size: str | None,
    workers: int | None,
    skip_bad: bool,
    resume: bool,
    overwrite: bool,
    command: str,
) -> int:
    """Do it; returns the exit code."""
    plan = recipe_for(model, data=data, recipe=recipe, overrides=parse_settings(given))
    check_output(output, resume, overwrite, "training")
    check_data_flags(plan.data, data_root=data_root, download=download, size=size, workers=workers, skip_bad=skip_bad)
    check_whole("seed", seed, 0)
    check_device(device)

    from robustlab.cli.train_progress import Shown
    from robustlab.training import train  # imports torch, which takes seconds
    from robustlab.training.session import Told

    name, settings = named(model), parse_settings(given)
    folder = output or default_folder("train", name)
    start = f"{plan.architecture}{', from its weights,' * (plan.recipe.init == plan.architecture)}"
    _say(f"Training {start} on {plan.data}, {counted(plan.recipe.epochs, 'epoch')}, into {folder}")
    said: set[str] = set()

    def warn(text: str) -> None:
        if text not in said:
            _say(f"Warning: {text}")
        said.add(text)

    with resumable(folder), ExitStack() as stack:
        shown = Shown(stack)

        def tell(entry: dict[str, Any]) -> None:
            shown.epoch(entry["epoch"])
            _say(_line(entry))

        done = train(
            plan.architecture,
            plan.data,
            plan.recipe,
            output=folder,
            name=name,
            seed=plan.seed if seed is None else seed,
            device=device,
            resume=resume,
            overwrite=overwrite,
            data_root=data_root,
            download=download,
            size=None if size is None else parse_size(size),
            workers=workers,
            skip_bad=skip_bad,
            command=command,
            told=Told(epoch=tell, batch=shown.batch, warning=warn),
            # a card of one's own was fitted when it was trained; a recipe that is named is meant as it is
            given=None if recipe is not None or plan.architecture.endswith(".toml") else settings,
        )
    for warning in done.warnings:
        warn(warning)
    _say(f"Best epoch {done.best_epoch}. Attack it with: robustlab attack {folder}")
    return 0


def named(model: str) -> str:
    """What the trained model is called: as what it is made from, without folders and endings.

    >>> named("road-signs/cnn"), named("nets/mine.py:make"), named("out/model.toml"), named("torchvision:resnet18")
    ('cnn', 'mine-make', 'out', 'resnet18')
    """
    file, _, function = model.rpartition(":")
    path = Path(model)
    if file.endswith(".py"):
        return f"{Path(file).stem}-{function}"
    if path.suffix == ".toml":
        return path.resolve().parent.name if path.stem == "model" else path.stem
    return function.rpartition("/")[2]


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr)


def _line(entry: dict[str, Any]) -> str:
    return f"epoch {entry['epoch']}: " + ", ".join(
        f"{key} {value:.3f}" for key, value in entry.items() if isinstance(value, float)
    )
