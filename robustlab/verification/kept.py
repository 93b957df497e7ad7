"""The kept examples' PNGs against the data and the stored adversarials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from robustlab.data import Loaded
from robustlab.pictures import to_picture
from robustlab.verification.checks import Check

Json = dict[str, Any]


def compare_clean(check: Check, folder: Path, kept: Sequence[Json], chunk: Loaded) -> None:
    """The pictures of clean images. kept: of run.json's `images`, those of one model; some may be of another chunk."""
    at = {id: i for i, id in enumerate(chunk.ids.tolist())}
    for image in kept:
        if image["id"] in at:
            _compare(check, folder, image, "clean", chunk.images[at[image["id"]]])


def compare_attacked(
    check: Check, folder: Path, kept: Sequence[Json], chunk: Loaded, points: Mapping[int, Tensor], scale: float
) -> None:
    """The pictures of adversarial images, and of perturbations: half grey is no change, `scale` is full colour."""
    at = {id: i for i, id in enumerate(chunk.ids.tolist())}
    for image in kept:
        if image["id"] in points:
            clean, adversarial = chunk.images[at[image["id"]]], points[image["id"]]
            _compare(check, folder, image, "adv", adversarial)
            _compare(check, folder, image, "delta", 0.5 + (adversarial - clean) / (2 * scale))


def without_heatmaps(image: Json) -> Json:
    """An entry of run.json's `images` without what was drawn for it when the run was finished."""
    return {key: value for key, value in image.items() if not key.startswith("heat")}


def _compare(check: Check, folder: Path, image: Json, kind: str, tensor: Tensor) -> None:
    name = str(image.get(kind))
    try:
        with Image.open(folder / name) as stored:
            shown = to_picture(tensor)
            same = (stored.mode, stored.size, stored.tobytes()) == (shown.mode, shown.size, shown.tobytes())
            check.record(name, [] if same else ["it shows something else"])
    except OSError as error:
        check.record(name, [f"it cannot be read ({error})"])
