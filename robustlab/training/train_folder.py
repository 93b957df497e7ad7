"""The folder that training writes.

model.safetensors, model.toml   the best epoch's weights and the card that names them
history.json, curve.png, .svg   loss and accuracy by epoch
prepared.json                   what the defense did to the training images, where it did anything
run.json                        what was trained; `finished` is true when everything above is there
last.pt                         the checkpoint to resume from, until then
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec
import torch

from robustlab.base.errors import UserError
from robustlab.base.files import SCHEMA_VERSION, Json, Kind, OutputFolder
from robustlab.base.files.directory import Directory
from robustlab.base.reading import read_json
from robustlab.models.card import ModelCard, read_model_card
from robustlab.runs import config_hash
from robustlab.runs.resuming import check_same

Entry = dict[str, Any]
_CHECKPOINT, PREPARED = "last.pt", "prepared.json"
_FILES = ("model.safetensors", "model.toml", "history.json", "curve.png", "curve.svg")


def _older(info: Json, place: Directory) -> Iterator[str]:
    """A training of an older version has all of its files, or is not finished and then has no run.json."""
    yield from (name for name in (*_FILES, _CHECKPOINT) if place.is_file(name))


TRAINING = Kind("train", (*_FILES, PREPARED, _CHECKPOINT), {}, _older)


class TrainFolder:
    """An output folder, held by one process. Existing files need `resume` (same configuration) or `overwrite`.

    With `overwrite`, the training that is there stays until the new one is finished. A training that ends before its
    first checkpoint leaves nothing.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, command: str = "", resume: bool, overwrite: bool
    ) -> None:
        self._output = OutputFolder(folder, TRAINING, resume=resume, overwrite=overwrite)
        self.folder, self.config = self._output.folder, dict(msgspec.to_builtins(config))
        try:
            found = self._output.info
            if found is not None:
                check_same(found, self.config, self.folder, "training")
            self._info = found or self._first_info(command)
            if found is None:
                self._output.start(self._info)
        except BaseException:
            self._output.close()
            raise

    def _first_info(self, command: str) -> Json:
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": TRAINING.name,
            "command": command,
            "finished": False,
            "config": self.config,
            "config_hash": config_hash(self.config),
            "seed": self.config["seed"],
        }

    @property
    def finished(self) -> bool:
        return bool(self._info.get("finished", True))  # older versions wrote run.json when they were done

    @property
    def replaces(self) -> bool:
        """Is there a training that this one will take the place of?"""
        return self._output.replaces

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.finished and not self._output.has(_CHECKPOINT):
            self._output.abandon()
        self._output.close()

    def checkpoint(self) -> dict[str, Any] | None:
        """What `save_checkpoint` wrote last, or None."""
        content = self._output.read(_CHECKPOINT)
        if content is None:
            return None
        try:
            return cast("dict[str, Any]", torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        except Exception as error:  # torch.load raises whatever the damaged part makes it raise
            raise UserError(
                f"{self.folder / _CHECKPOINT} is damaged ({type(error).__name__}). Train again with --overwrite."
            ) from error

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self._output.write(_CHECKPOINT, buffer.getvalue())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        self._output.write(name, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")

    def write(self, name: str, content: bytes) -> None:
        self._output.write(name, content)

    def finish(self, **found: Any) -> None:
        """Write run.json with what was found, drop the checkpoint, and take the place of what was to be replaced."""
        self._info = {**self._info, **msgspec.to_builtins(found), "finished": True}
        self._output.finish(self._info, [*_FILES, PREPARED] if self._output.has(PREPARED) else _FILES)

    def read(self) -> tuple[ModelCard, list[Entry], int, float, list[str]]:
        """Card, history, best epoch, seconds and warnings of a finished training."""
        history = read_json("history.json", folder=self.folder)
        card, run = read_model_card(self.folder / "model.toml"), self._info
        return card, history["epochs"], run["best_epoch"], run["seconds"], run["warnings"]
