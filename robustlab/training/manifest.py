"""Which files a training may have. Imports no torch.

model.safetensors, model.toml   the best epoch's weights and the card that names them
history.json, curve.png, .svg   loss and accuracy by epoch
prepared.json                   what the defense did to the training images, where it did anything
run.json                        what was trained; `finished` is true when everything above is there
last.pt                         the checkpoint to resume from, until then
"""

from __future__ import annotations

from collections.abc import Iterator

from robustlab.base.files import Json, Kind
from robustlab.base.files.directory import Directory

CHECKPOINT, PREPARED = "last.pt", "prepared.json"
FILES = ("model.safetensors", "model.toml", "history.json", "curve.png", "curve.svg")


def _older(info: Json, place: Directory) -> Iterator[str]:
    """A training of an older version has all of its files, or is not finished and then has no run.json."""
    yield from (name for name in (*FILES, CHECKPOINT) if place.is_file(name))


TRAINING = Kind("train", (*FILES, PREPARED, CHECKPOINT), {}, _older)
