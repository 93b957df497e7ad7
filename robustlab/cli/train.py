"""`robustlab train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from robustlab.base.cards import card_names, parse_value
from robustlab.base.errors import UserError
from robustlab.base.typed import check_device, check_whole
from robustlab.base.words import counted, visible
from robustlab.cli.app import app, command_line
from robustlab.cli.flags import DATA_PANEL, SEVERAL, DataFlags, Flag, OutputFlags
from robustlab.models import ARCHITECTURES


@app.command
def train(
    model: Annotated[
        str,
        Parameter(
            help=f"What to train: an architecture ({', '.join(ARCHITECTURES)}), torchvision:NAME, timm:NAME or"
            " FILE.py:function, from random weights; a zoo name, again as its card says; or a model card (or its"
            " folder), further from its weights. The function gets the number of classes and (channels, height, width)"
            " if it has parameters named classes and shape, and its network gets images in [0, 1]: normalisation"
            " belongs inside."
        ),
    ],
    /,
    *,
    data: Annotated[str | None, Parameter(group=DATA_PANEL)] = None,
    recipe: Annotated[
        str | None,
        Parameter(
            help=f"A card, by name or path: {', '.join(card_names('defenses', 'recipe'))} (default: plain,"
            " or the zoo entry's own)."
        ),
    ] = None,
    set: Annotated[list[str] | None, SEVERAL] = None,
    epochs: int | None = None,
    eps: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    limit: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    precision: str | None = None,
    compile: Flag = False,
    files: DataFlags = DataFlags(),
    output: OutputFlags = OutputFlags(),
) -> int:
    """Train a classifier, plain or by a defense, and write a model card that `robustlab attack` takes.

    Parameters
    ----------
    data
        As --data of `robustlab attack`; default: the card's, or road-signs. A folder:PATH of class folders, without
        train and test, is divided 80/10/10 by a key of the images' names; an attack then uses the last tenth only.
    set
        Other fields of the recipe or its defense: key=value, such as lr=0.01 batch_size=32 clip=1.
    epochs
        Passes over the training images.
    eps
        Budget of the defense.
    limit
        Train on the first N images.
    seed
        Key of all random draws (default: the zoo entry's, or 0).
    device
        auto, cpu, cuda or cuda:N.
    precision
        float32, bfloat16 (autocast; the result differs by rounding), or auto: bfloat16 on CUDA, float32 elsewhere.
    compile
        Let torch.compile make the model faster; it needs a compiler, and minutes before the first step.
    """
    from robustlab.training import recipe_for

    flags = {"epochs": epochs, "eps": eps, "train_size": limit, "precision": precision}
    flags |= {"compile": "true"} if compile else {}
    settings = parse_settings([*(set or ()), *(f"{key}={value}" for key, value in flags.items() if value is not None)])
    plan = recipe_for(model, data=data, recipe=recipe, overrides=settings)
    output.check("training")
    files.check(plan.data)
    check_whole("seed", seed, 0)
    check_device(device)

    from robustlab.base.files import default_folder, resumable
    from robustlab.base.processes import World
    from robustlab.cli.train_clock import Shown
    from robustlab.training import train  # imports torch, which takes seconds
    from robustlab.training.session import Diverged, Told

    name, world = named(model), World.join()
    folder = output.output or world.agree(default_folder("train", name) if world.first else Path())
    start = f"{plan.architecture}{', from its weights,' * (plan.recipe.init == plan.architecture)}"
    say = _say if world.first else lambda text: None
    say(f"Training {start} on {plan.data}, {counted(plan.recipe.epochs, 'epoch')}, into {folder}")
    said: list[str] = []

    def warn(text: str) -> None:
        if text not in said:
            said.append(text)
            say(f"Warning: {text}")

    with resumable(folder, output.overwrite), ExitStack() as stack:
        shown = Shown(stack, say)
        try:
            done = train(
                plan.architecture,
                plan.data,
                plan.recipe,
                output=folder,
                name=name,
                seed=plan.seed if seed is None else seed,
                device=device,
                resume=output.resume,
                overwrite=output.overwrite,
                **files.arguments,
                command=command_line(),
                told=Told(epoch=shown.epoch, batch=shown.batch, warning=warn),
                # a card of one's own was fitted when it was trained; a recipe that is named is meant as it is
                given=None if recipe is not None or plan.architecture.endswith(".toml") else settings,
                world=world,
            )
        except Diverged:
            if world.first:
                raise
            return 1  # the first process says why
    for warning in done.warnings:
        warn(warning)
    say(f"Best epoch {done.best_epoch}. Attack it with: robustlab attack {folder}")
    return 0


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping.

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
        found[key] = parse_value(value)
    return found


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
