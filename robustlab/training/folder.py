"""The folder that training writes.

model.safetensors, model.toml   the best epoch's weights and the card that names them
history.json, curve.png, .svg   loss and accuracy by epoch
run.json                        written last: a folder with it is finished
last.pt                         the checkpoint to resume from, until then
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec
import torch

from robustlab.data import Data
from robustlab.data.division import RULE
from robustlab.data.layout import files_hash
from robustlab.environment import describe_device, git_state, versions
from robustlab.errors import UserError
from robustlab.files import Lock, disk, replacing
from robustlab.intervals import wilson
from robustlab.models.card import Measured, ModelCard, read_model_card, write_model_card
from robustlab.models.classifier import Classifier
from robustlab.models.weights import save_weights
from robustlab.runs import config_hash
from robustlab.training.checks import PGD_STEPS
from robustlab.training.curve import draw_curve

SCHEMA_VERSION = 1
OURS = ("model.safetensors", "model.toml", "history.json", "curve.png", "curve.svg", "run.json", "last.pt", ".lock")
Entry = dict[str, Any]


class TrainFolder:
    """An output folder, held by one process. Existing files need `resume` (same configuration) or `overwrite`."""

    def __init__(self, folder: Path, config: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        self.folder, self.config, self.hash = folder, config, config_hash(config)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--output {folder} is a file; give the name of a folder.")
        self._lock = Lock(folder, resume=resume, overwrite=overwrite)
        try:
            self._open(resume, overwrite)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, resume: bool, overwrite: bool) -> None:
        there = [name for name in OURS[:-1] if (self.folder / name).exists()]
        if (self.folder / "data.jsonl").exists():
            raise UserError(f"{self.folder} holds a run of `robustlab attack`, no training. Choose another --output.")
        if overwrite and not resume:
            for name in ("run.json", *there):  # run.json first: without it nothing here counts as finished
                (self.folder / name).unlink(missing_ok=True)
        elif there and not resume:
            raise UserError(
                f"{self.folder} already holds a training ({', '.join(there)}). Go on with it (--resume), replace it"
                " (--overwrite), or choose another --output."
            )
        self.finished = (self.folder / "run.json").is_file()
        saved = self._json("run.json") if self.finished else self.checkpoint()
        found = None if saved is None else saved.get("config_hash")
        if saved is not None and found != self.hash:
            raise UserError(
                f"{self.folder} holds a training with another configuration (data, recipe, architecture, seed or"
                " starting weights), so it cannot be resumed. Use the same options, --overwrite, or another --output."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def checkpoint(self) -> dict[str, Any] | None:
        """What `save_checkpoint` wrote last, or None."""
        path = self.folder / "last.pt"
        if not path.is_file():
            return None
        try:
            return cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch.load raises whatever the damaged part makes it raise
            raise UserError(f"{path} is damaged ({type(error).__name__}). Train again with --overwrite.") from error

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save({**state, "config_hash": self.hash}, buffer)
        with disk(self.folder), replacing(self.folder / "last.pt") as file:
            file.write(buffer.getbuffer())

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", msgspec.json.decode((self.folder / name).read_bytes()))
        except ValueError as error:
            raise UserError(f"{self.folder / name} is damaged ({error}). Train again with --overwrite.") from error

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        with disk(self.folder), replacing(self.folder / name) as file:
            file.write(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")

    def read(self) -> tuple[ModelCard, list[Entry], int, float, list[str]]:
        """Card, history, best epoch, seconds and warnings of a finished training."""
        run, history = self._json("run.json"), self._json("history.json")
        card = read_model_card(self.folder / "model.toml")
        return card, history["epochs"], run["best_epoch"], run["seconds"], run["warnings"]


def model_card(
    model: Classifier,
    config: Mapping[str, Any],
    data: Data,
    best: Entry,
    eps: float,
    device: torch.device,
    seconds: float,
    name: str,
) -> ModelCard:
    """The card of a trained classifier; its shares are those of the validation images that chose the epoch."""
    assert model.shape is not None and model.classes is not None  # the loop sets both
    typed = config["recipe"]["defense"].get("eps", f"{eps:.6g}")
    shares: list[tuple[str, str, str, dict[str, str]]] = [("clean accuracy", "val_accuracy", "val_n", {})]
    attack = {"norm": "linf", "eps": str(typed), "attack": f"PGD-{PGD_STEPS}"}
    shares.append(("robust accuracy", "val_robust_accuracy", "val_robust_n", attack))
    measured = []
    for metric, value, count, about in shares:
        n = best[count]
        low, high = wilson(round(best[value] * n), n)
        measured.append(Measured(metric, best[value], low, high, n, split="val", seed=config["seed"], **about))
    divided = bool(data.source and data.source.get("divided"))
    return ModelCard(
        name=name,
        architecture=config["architecture"],
        weights="model.safetensors",
        mean=[round(v, 6) for v in model.mean.flatten().tolist()],
        std=[round(v, 6) for v in model.std.flatten().tolist()],
        classes=list(model.classes),
        shape=model.shape,
        options=config["options"],
        data=data.name,
        data_hash=data.hash,
        split=RULE if divided else "",
        files=files_hash(data.name) if divided else "",
        seed=config["seed"],
        hash=model.hash(),
        seconds=round(seconds, 1),
        hardware=_hardware(device),
        recipe={key: value for key, value in config["recipe"].items() if value not in (None, "", {})},
        measured=measured,
    )


def _hardware(device: torch.device) -> str:
    about = describe_device(device)
    return f"{about['name']}, {about['threads']} threads" if "threads" in about else str(about["name"])


def finish(
    folder: TrainFolder,
    model: Classifier,
    card: ModelCard,
    *,
    history: list[Entry],
    best_epoch: int,
    warnings: list[str],
    seconds: float,
    device: torch.device,
    command: str,
) -> None:
    """Write everything that a finished training leaves, run.json last, then drop the checkpoint."""
    with disk(folder.folder):
        save_weights(model.module, folder.folder / card.weights)
        write_model_card(card, folder.folder / "model.toml")
        folder.write_json("history.json", {"schema_version": SCHEMA_VERSION, "epochs": history})
        draw_curve(history, best_epoch, folder.folder)
        run = {
            "schema_version": SCHEMA_VERSION,
            "kind": "train",
            "command": command,
            "config": dict(folder.config),
            "config_hash": folder.hash,
            "seed": folder.config["seed"],
            "versions": versions(),
            "device": describe_device(device),
            "git": git_state(),
            "model_hash": card.hash,
            "best_epoch": best_epoch,
            "warnings": warnings,
            "seconds": round(seconds, 2),
        }
        folder.write_json("run.json", run)
        (folder.folder / "last.pt").unlink(missing_ok=True)
