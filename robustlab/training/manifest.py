"""Which files a training may have. Imports no torch.

model.safetensors, model.toml   the best epoch's weights and the card that names them
history.json, curve.png, .svg   loss and accuracy by epoch
prepared.json                   what the defense did to the training images, where it did anything
run.json                        what was trained; `finished` is true when everything above is there
last.pt                         the checkpoint to resume from, until then
"""

from __future__ import annotations

from robustlab.base.files import Kind

CHECKPOINT, PREPARED = "last.pt", "prepared.json"
FILES = ("model.safetensors", "model.toml", "history.json", "curve.png", "curve.svg")


TRAINING = Kind("train", (*FILES, PREPARED, CHECKPOINT), {})
