"""The training loop: plain training, or what a defense makes of each batch. Resumable, and repeatable after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustlab.base.environment import resolve_device
from robustlab.base.errors import RunError, UserError
from robustlab.base.processes import World
from robustlab.base.typed import check_whole
from robustlab.data import Data, load_data
from robustlab.defenses import make_defense, parameters
from robustlab.models.card import ModelCard
from robustlab.models.classifier import check
from robustlab.models.suitable import size_for
from robustlab.models.zoo import card_path
from robustlab.threat.model import ThreatModel
from robustlab.training.manifest import PREPARED
from robustlab.training.recipe import Recipe
from robustlab.training.result import divided, finish, keep_model
from robustlab.training.session import Diverged, Entry, Session, Told, first_of
from robustlab.training.start import begin, card_of
from robustlab.training.train_folder import TrainFolder

DEFAULT_EPS = 8 / 255


@dataclass(frozen=True)
class Trained:
    """What training left: its folder, the card of the best model, and one entry of the history an epoch."""

    output: Path
    card: ModelCard
    history: list[Entry]
    best_epoch: int
    seconds: float
    warnings: list[str]


def train(
    architecture: str,
    data: str | tuple[Data, Data],
    recipe: Recipe | None = None,
    *,
    output: str | Path,
    name: str = "model",
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    data_root: str | Path | None = None,
    download: bool = False,
    size: int | tuple[int, int] | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    command: str = "",
    on_epoch: Callable[[Entry], None] | None = None,
    told: Told | None = None,
    given: Collection[str] | None = None,
    drawn: bool = True,
    world: World | None = None,
) -> Trained:
    """Train a classifier and write model, card, history and curve into the folder `output`.

    architecture: a registered one, `torchvision:NAME`, `timm:NAME`, `FILE.py:function`, or a model card, whose weights
    are trained further; see `robustlab.training.start.begin`. data: a name for `load_data` (which also takes data_root,
    download, size, workers and skip_bad), or (training data, validation data). The kept checkpoint is that of the epoch
    with the best validation accuracy: under PGD where the recipe has a defense with a budget `eps`, else on clean
    images. on_epoch: is shown each entry of the history; told: batches and warnings, too. given: the fields of the
    recipe that somebody chose; the others are then fitted to a small folder that is divided for the training
    (`Recipe.for_few`). drawn: is the curve to be drawn? world: the processes that train it together, each of which
    makes the same call; default: those of torchrun. Only the first one writes, and calls `told` and `on_epoch`. With
    the same seed, machine and number of threads a resumed run ends with the same weights as an uninterrupted one; with
    another number of processes they agree up to rounding (dropout aside, whose draws are the process's own). CUDA
    trains in bfloat16 autocast. Raises UserError and RunError.

    >>> import tempfile
    >>> recipe = Recipe(epochs=1, train_size=64, val_size=32, check_size=16)
    >>> done = train("cnn", "road-signs", recipe, output=Path(tempfile.mkdtemp()) / "run", device="cpu")
    >>> done.best_epoch, sorted(path.name for path in done.output.iterdir())
    (1, ['curve.png', 'curve.svg', 'history.json', 'model.safetensors', 'model.toml', 'run.json'])
    """
    recipe = recipe or Recipe()
    check_whole("seed", seed, 0)
    world = World.join() if world is None else world
    place = world.device(resolve_device(device))
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place)
    make_defense(recipe.defense)  # a bad table is said before data are read
    architecture = card_path(architecture)
    card = card_of(architecture)
    if card is not None and card.weights and not recipe.init:
        recipe = replace(recipe, init=architecture)
    if isinstance(data, str):
        options: dict[str, Any] = {"data_root": data_root, "download": download}
        options |= {"size": size, "workers": workers, "skip_bad": skip_bad}
        train_data, val_data = _loaded(data, recipe, card.shape if card is not None else None, options)
    else:
        train_data, val_data = (first_of(d, n) for d, n in zip(data, (recipe.train_size, recipe.val_size), strict=True))
    if bool((train_data.labels < 0).any()):
        raise UserError(
            f"{train_data.name} has no class folders, and so nothing to learn: put images into one a class."
        )
    _enough(train_data)
    if given is not None and divided(train_data) and (few := recipe.for_few(len(train_data), given)) != recipe:
        train_data, recipe = replace(train_data, notes=(*train_data.notes, _fitted(few, recipe, train_data))), few
    threat = train_data.threat if train_data.threat.norm == "linf" else ThreatModel("linf", DEFAULT_EPS)
    if "eps" in parameters(recipe.defense):  # the data set's own budget, unless the recipe or a flag says otherwise
        recipe = replace(recipe, defense=_with_eps(recipe.defense, threat))
    train_data = replace(train_data, notes=(*train_data.notes, *recipe.doubts(min(train_data.images.shape[2:]))))
    start = begin(architecture, train_data, recipe, seed, Path(output))
    for each in (train_data, val_data):
        check(start.model, each.images[:2], each.labels)
    config = {
        "architecture": start.architecture,
        "options": start.options,
        "init_hash": start.bare.hash(),
        "data": train_data.name,
        "data_hash": [train_data.hash, val_data.hash],
        "n": [len(train_data), len(val_data)],
        "recipe": recipe.record(),
        "seed": seed,
        **({"code": start.code} if start.code else {}),
        **start.defense.record(train_data),
    }
    listening = told or Told()
    if on_epoch is not None:
        listening = replace(listening, epoch=on_epoch)
    if not world.first:
        listening = Told()
    if world.agree(config) != config:
        raise UserError("The processes of this training were started with different models, data or recipes.")
    say, output = listening.warning, Path(output)
    with ExitStack() as stack:
        folder = None
        if world.first:
            folder = TrainFolder.open(output, config, command=command, resume=resume, overwrite=overwrite, say=say)
            stack.enter_context(folder)
        if not world.agree(folder is not None and folder.finished):
            prepared = start.defense.prepare(train_data)
            _enough(prepared.data)
            _enough_for(world, prepared.data, recipe)
            if folder is not None and prepared.about:
                folder.write_json(PREPARED, prepared.about)
            threat = start.defense.threat or threat
            session = Session(start, prepared.data, val_data, recipe, threat, seed, place, listening, world)
            _run(session, folder, config, name, drawn)
        found = world.agree(None if folder is None else Trained(folder.folder, *folder.read()))
        assert found is not None  # the first process has a folder
        return found


def _with_eps(defense: dict[str, Any], threat: ThreatModel) -> dict[str, Any]:
    """The table of a defense that has a budget, with a budget."""
    norm = defense.get("norm", "linf")
    if "eps" not in defense and norm != threat.norm:
        raise UserError(f"The data have a default eps only for {threat.norm}, and the recipe is for {norm}: add --eps.")
    return {"eps": threat.eps, **defense}


def _loaded(
    name: str, recipe: Recipe, shape: tuple[int, int, int] | None, options: dict[str, Any]
) -> tuple[Data, Data]:
    """Training and validation data of a set. shape: of the images that the model takes, where it is known."""
    if options["size"] is None:
        options["size"] = size_for(name, shape)
    if shape is not None:
        options["channels"] = shape[0]
    train_data = load_data(name, "train", recipe.train_size, **options)
    if not isinstance(train_data.images, Tensor):  # files of any kind: as those that are trained on
        options |= {"size": tuple(train_data.images.shape[2:]), "channels": train_data.images.shape[1]}
    return train_data, load_data(name, "val", recipe.val_size, **options)


def _run(session: Session, folder: TrainFolder | None, config: dict[str, Any], name: str, drawn: bool) -> None:
    """All epochs and what they leave; of a training that diverges, the best model before."""
    try:
        session.run(folder)
    except Diverged as error:
        # what is there stays until it is replaced as a whole
        kept = folder is not None and session.history and not folder.replaces
        if folder is not None and kept:
            session.keep_best()
            keep_model(folder, session, config, name)
        session.world.wait()  # torchrun ends all processes where one has ended
        if folder is None or not kept:
            raise
        card = folder.folder / "model.toml"
        raise RunError(
            f"{error} The best epoch before, {session.best_entry['epoch']}, is kept: {card}. --resume would end here"
            " again, and other values are another training, which needs another --output. It can start from what is"
            f" kept: robustlab train {card}."
        ) from error
    if folder is not None:
        finish(folder, session, config, name, drawn)


def _enough(data: Data) -> None:
    if len(data) < 2:
        raise UserError(" ".join([f"Training needs at least 2 images, got {len(data)}.", *data.notes]))


def _enough_for(world: World, data: Data, recipe: Recipe) -> None:
    """Every process has its share of every batch, and all have the same data."""
    least = len(data) // math.ceil(len(data) / recipe.batch_size)
    if least < world.size:
        raise UserError(
            f"{world.size} processes share each batch, and a batch has {least} images: take larger batches"
            f" (--set batch_size={8 * world.size}), or fewer processes."
        )
    if not torch.equal(world.agree(data.ids), data.ids):
        raise UserError("The processes of this training keep different images of the training data.")


def _fitted(few: Recipe, recipe: Recipe, data: Data) -> str:
    names = {"batch_size": "batches of", "lr": "lr", "epochs": "epochs"}
    changed = [
        f"{what} {getattr(few, key)} (not {getattr(recipe, key)})"
        for key, what in names.items()
        if getattr(few, key) != getattr(recipe, key)
    ]
    return f"For {len(data)} images the training takes {', '.join(changed)}, or it would have few steps; --set decides."
