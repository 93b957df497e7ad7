"""The folder that training writes: a checkpoint after each epoch, then what `result.finish` leaves."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec
import torch

from robustlab.base.errors import UserError, spelled
from robustlab.base.files import JobFolder
from robustlab.base.reading import read_json
from robustlab.models.card import ModelCard, read_model_card
from robustlab.training.manifest import CHECKPOINT, FILES, PREPARED, TRAINING

Entry = dict[str, Any]


class TrainFolder(JobFolder):
    """With `overwrite`, the training that is there stays until the new one is finished.

    A training that ends before its first checkpoint leaves nothing.
    """

    @classmethod
    def open(
        cls,
        folder: Path,
        config: Mapping[str, Any],
        *,
        command: str,
        resume: bool,
        overwrite: bool,
        say: Callable[[str], None],
    ) -> Self:
        """See `JobFolder.opened`."""
        about = {"command": command}
        return cls.opened(folder, TRAINING, config, about, resume=resume, overwrite=overwrite, say=say)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.finished and not self._output.has(CHECKPOINT):
            self._output.abandon()
        self.close()

    def checkpoint(self) -> dict[str, Any] | None:
        """What `save_checkpoint` wrote last, or None."""
        content = self._output.read(CHECKPOINT)
        if content is None:
            return None
        try:
            return cast("dict[str, Any]", torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        except Exception as error:  # torch.load raises whatever the damaged part makes it raise
            raise UserError(
                f"{self.folder / CHECKPOINT} is damaged ({type(error).__name__}). Train again with"
                f" {spelled('overwrite', True)}."
            ) from error

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self.write(CHECKPOINT, buffer.getvalue())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        self.write(name, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")

    def write(self, name: str, content: bytes) -> None:
        self._output.write(name, content)

    def finish(self, **found: Any) -> None:
        """Write run.json with what was found, drop the checkpoint, and take the place of what was to be replaced."""
        self.info = {**self.info, **msgspec.to_builtins(found), "finished": True}
        self._output.finish(self.info, [name for name in (*FILES, PREPARED) if self._output.has(name)])

    def read(self) -> tuple[ModelCard, list[Entry], int, float, list[str]]:
        """Card, history, best epoch, seconds and warnings of a finished training."""
        history = read_json("history.json", folder=self.folder)
        card, run = read_model_card(self.folder / "model.toml"), self.info
        return card, history["epochs"], run["best_epoch"], run["seconds"], run["warnings"]
