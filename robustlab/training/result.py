"""What a training leaves in its folder: the best model, its card, the history and the curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from robustlab.base.environment import describe_device, git_state, versions
from robustlab.base.files import SCHEMA_VERSION
from robustlab.base.intervals import wilson
from robustlab.base.words import counted
from robustlab.data import Data
from robustlab.data.division import RULE
from robustlab.data.layout import files_hash
from robustlab.models.card import Measured, ModelCard, card_text
from robustlab.models.weights import packed_weights
from robustlab.training.checks import PGD_STEPS
from robustlab.training.curve import drawn_curve
from robustlab.training.session import Session
from robustlab.training.train_folder import TrainFolder


def divided(data: Data) -> bool:
    """Is it a part of a folder without train and test?"""
    return bool(data.source and data.source.get("divided"))


def keep_model(folder: TrainFolder, session: Session, config: Mapping[str, Any], name: str) -> ModelCard:
    """Write the best model and its card."""
    card = _card(session, config, name)
    folder.write(card.weights, packed_weights(session.start.bare.module))
    folder.write("model.toml", card_text(card))
    return card


def finish(folder: TrainFolder, session: Session, config: Mapping[str, Any], name: str, drawn: bool) -> None:
    """Write everything that a finished training leaves, run.json last."""
    card, best_epoch = keep_model(folder, session, config, name), session.best_entry["epoch"]
    folder.write_json("history.json", {"schema_version": SCHEMA_VERSION, "epochs": session.history})
    for file, picture in (drawn_curve(session.history, best_epoch) if drawn else {}).items():
        folder.write(file, picture)
    folder.finish(
        versions=versions(),
        device=describe_device(session.device),
        processes=session.world.size,
        git=git_state(),
        model_hash=card.hash,
        best_epoch=best_epoch,
        warnings=session.warnings,
        seconds=round(session.seconds, 2),
    )


def _card(session: Session, config: Mapping[str, Any], name: str) -> ModelCard:
    """The card of the trained classifier."""
    start, data, bare = session.start, session.train_data, session.start.bare
    assert bare.shape is not None and bare.classes is not None  # `begin` sets both
    return ModelCard(
        name=name,
        architecture=config["architecture"],
        weights="model.safetensors",
        mean=[round(v, 6) for v in bare.mean.flatten().tolist()] if bare.normalised else None,
        std=[round(v, 6) for v in bare.std.flatten().tolist()] if bare.normalised else None,
        classes=list(bare.classes),
        shape=bare.shape,
        options=config["options"],
        wrap={} if start.model is bare else config["recipe"]["defense"],
        data=data.name,
        data_hash=data.hash,
        split=RULE if divided(data) else "",
        files=files_hash(data.name) if divided(data) else "",
        seed=config["seed"],
        hash=start.model.hash(),
        parameters=sum(p.numel() for p in bare.parameters()),
        seconds=round(session.seconds, 1),
        epochs=len(session.history),
        best_epoch=session.best_entry["epoch"],
        hardware=_hardware(session.device, session.world.size),
        recipe=_recipe(config),
        measured=_measured(session, config),
    )


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """As the card has it: without what is empty, and with the number where all validation images were taken."""
    recipe = config["recipe"] | ({"val_size": config["n"][1]} if config["recipe"]["val_size"] is None else {})
    return {key: value for key, value in recipe.items() if value not in (None, "", {}, [])}


def _measured(session: Session, config: Mapping[str, Any]) -> list[Measured]:
    """The shares of the validation images, clean and under PGD, in the kept epoch."""
    typed = config["recipe"]["defense"].get("eps", f"{session.threat.eps:.6g}")
    attack = {"norm": session.threat.norm, "eps": str(typed), "attack": f"PGD-{PGD_STEPS}"}
    measured = []
    for what, about in (("", {}), ("robust_", attack)):
        value, n = session.best_entry[f"val_{what}accuracy"], session.best_entry[f"val_{what}n"]
        low, high = wilson(round(value * n), n)
        metric = f"{'robust' if what else 'clean'} accuracy"
        measured.append(Measured(metric, value, low, high, n, split="val", seed=config["seed"], **about))
    return measured


def _hardware(device: torch.device, processes: int) -> str:
    about = describe_device(device)
    each = str(about["name"])
    if "threads" in about:
        each = f"{each}, {counted(int(str(about['threads'])), 'thread')}"
    return each if processes == 1 else f"{each}, {processes} processes"
