"""The training loop: plain training, or what a defense makes of each batch. Resumable, and repeatable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from robustlab.base.environment import resolve_device
from robustlab.base.errors import RunError, UserError
from robustlab.base.typed import check_whole
from robustlab.data import Data, load_data
from robustlab.defenses import make_defense
from robustlab.models.card import ModelCard
from robustlab.models.classifier import check
from robustlab.models.suitable import size_for
from robustlab.models.zoo import card_path
from robustlab.training.folder import TrainFolder, divided, finish, keep_model, model_card
from robustlab.training.recipe import Recipe
from robustlab.training.session import Diverged, Entry, Session, Told, first_of
from robustlab.training.start import begin, card_of

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
) -> Trained:
    """Train a classifier and write model, card, history and curve into the folder `output`.

    architecture: a registered one, `torchvision:NAME`, `FILE.py:function`, or a model card, whose weights are trained
    further; see `robustlab.training.start.begin`. data: a name for `load_data` (which also takes data_root, download,
    size, workers and skip_bad), or (training data, validation data). The kept checkpoint is that of the epoch with the
    best validation accuracy: under PGD where the recipe has a defense, else on clean images. on_epoch: is shown each
    entry of the history; told: batches and warnings, too. given: the fields of the recipe that somebody chose; the
    others are then fitted to a small folder that is divided for the training (`Recipe.for_few`). With the same seed,
    machine and number of threads a resumed run ends with the same weights as an uninterrupted one. CUDA trains in
    bfloat16 autocast. Raises UserError and RunError.

    >>> import tempfile
    >>> recipe = Recipe(epochs=1, train_size=64, val_size=32, check_size=16)
    >>> done = train("cnn", "road-signs", recipe, output=Path(tempfile.mkdtemp()) / "run", device="cpu")
    >>> done.best_epoch, sorted(path.name for path in done.output.iterdir())
    (1, ['curve.png', 'curve.svg', 'history.json', 'model.safetensors', 'model.toml', 'run.json'])
    """
    recipe = recipe or Recipe()
    check_whole("seed", seed, 0)
    place = resolve_device(device)
    if recipe.defense:
        make_defense(recipe.defense)  # a bad table is said before data are read
    architecture = card_path(architecture)
    card = card_of(architecture)
    if card is not None and card.weights and not recipe.init:
        recipe = replace(recipe, init=architecture)
    if isinstance(data, str):
        shape = card.shape if card is not None else None
        size = size_for(data, shape) if size is None else size
        options: dict[str, Any] = {"data_root": data_root, "download": download}
        options |= {"channels": shape[0]} if shape is not None else {}
        options |= {"size": size, "workers": workers, "skip_bad": skip_bad}
        train_data = load_data(data, "train", recipe.train_size, **options)
        if not isinstance(train_data.images, Tensor):  # files of any kind: as those that are trained on
            options |= {"size": tuple(train_data.images.shape[2:]), "channels": train_data.images.shape[1]}
        val_data = load_data(data, "val", recipe.val_size, **options)
    else:
        train_data, val_data = (first_of(d, n) for d, n in zip(data, (recipe.train_size, recipe.val_size), strict=True))
    if bool((train_data.labels < 0).any()):
        raise UserError(
            f"{train_data.name} has no class folders, and so nothing to learn: put images into one a class."
        )
    if len(train_data) < 2:
        raise UserError(f"Training needs at least 2 images, got {len(train_data)}.")
    if given is not None and divided(train_data) and (few := recipe.for_few(len(train_data), given)) != recipe:
        train_data, recipe = replace(train_data, notes=(*train_data.notes, _fitted(few, recipe, train_data))), few
    threat = train_data.threat
    eps = threat.eps if threat.norm == "linf" else DEFAULT_EPS
    if recipe.defense:  # the data set's own budget, unless the recipe or a flag says otherwise
        recipe = replace(recipe, defense={"eps": eps, **recipe.defense})
    defense = make_defense(recipe.defense) if recipe.defense else None
    start = begin(architecture, train_data, recipe, seed, Path(output))
    model = start.model
    for each in (train_data, val_data):
        check(model, each.images[:2], each.labels)
    config = {
        "architecture": start.architecture,
        "options": start.options,
        "init_hash": model.hash(),
        "data": train_data.name,
        "data_hash": [train_data.hash, val_data.hash],
        "n": [len(train_data), len(val_data)],
        "recipe": recipe.record(),
        "seed": seed,
        **({"code": start.code} if start.code else {}),
    }
    with TrainFolder(Path(output), config, command=command, resume=resume, overwrite=overwrite) as folder:
        if not folder.finished:
            listening = told or Told()
            if on_epoch is not None:
                listening = replace(listening, epoch=on_epoch)
            budget = defense.eps if defense else eps
            session = Session(start, train_data, val_data, recipe, defense, budget, seed, place, listening)
            try:
                session.run(folder)
            except Diverged as error:
                if not session.history or folder.replaces:  # what is there stays until it is replaced as a whole
                    raise
                session.keep_best()
                best, seconds = session.best_entry, session.seconds
                card = model_card(model, config, train_data, best, session.eps, place, seconds, name)
                keep_model(folder, model, card)
                raise RunError(
                    f"{error} The best epoch before, {best['epoch']}, is kept: {folder.folder / 'model.toml'}. --resume"
                    " would end here again, and other values are another training, which needs another --output. It can"
                    f" start from what is kept: robustlab train {folder.folder / 'model.toml'}."
                ) from error
            best, seconds = session.best_entry, session.seconds
            finish(
                folder,
                model,
                model_card(model, config, train_data, best, session.eps, place, seconds, name),
                history=session.history,
                best_epoch=best["epoch"],
                warnings=session.warnings,
                seconds=seconds,
                device=place,
            )
        card, history, best_epoch, seconds, warnings = folder.read()
    return Trained(folder.folder, card, history, best_epoch, seconds, warnings)


def _fitted(few: Recipe, recipe: Recipe, data: Data) -> str:
    names = {"batch_size": "batches of", "lr": "lr", "epochs": "epochs"}
    changed = [
        f"{what} {getattr(few, key)} (not {getattr(recipe, key)})"
        for key, what in names.items()
        if getattr(few, key) != getattr(recipe, key)
    ]
    return f"For {len(data)} images the training takes {', '.join(changed)}, or it would have few steps; --set decides."
