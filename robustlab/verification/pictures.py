"""The kept examples: which ones, and their PNGs against the data and the stored adversarials."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from PIL import Image
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.pictures import to_picture
from robustlab.base.reading import read_bounded
from robustlab.data import Loaded
from robustlab.runs.stored import PICTURE_BYTES
from robustlab.verification.checks import Compared, differences

Json = dict[str, Any]


def compare_choice(check: Compared, listed: Sequence[Json], chosen: Sequence[Json]) -> None:
    """run.json's `images` against all that the rule chooses of the recomputed lines, whether it has files or not."""
    stored, again = ({_key(image): image for image in images} for images in (listed, chosen))
    for key, image in again.items():
        if key in stored:
            # heatmaps were drawn when the run was finished
            entry = {name: value for name, value in stored[key].items() if not name.startswith("heat")}
            check.record(_said(key), list(differences(entry, image)))
        else:
            check.record(_said(key), ["the rule keeps it, and run.json does not list it"])
    for key in stored.keys() - again.keys():
        check.record(_said(key), ["run.json lists it, and the rule does not keep it"])
    in_order = [_key(image) for image in listed if _key(image) in again] == [key for key in again if key in stored]
    check.record("order", [] if in_order else ["run.json lists them in another order, or one of them twice"])


def compare_clean(check: Compared, folder: Path, kept: Sequence[Json], chunk: Loaded) -> None:
    """The pictures of clean images. kept: of run.json's `images`, those of one model; some may be of another chunk."""
    at = {id: i for i, id in enumerate(chunk.ids.tolist())}
    for image in kept:
        if image["id"] in at:
            _compare(check, folder, image, "clean", chunk.images[at[image["id"]]])


def compare_attacked(
    check: Compared, folder: Path, kept: Sequence[Json], chunk: Loaded, points: Mapping[int, Tensor], scale: float
) -> None:
    """The pictures of adversarial images, and of perturbations: half grey is no change, `scale` is full colour."""
    at = {id: i for i, id in enumerate(chunk.ids.tolist())}
    for image in kept:
        if image["id"] in points:
            clean, adversarial = chunk.images[at[image["id"]]], points[image["id"]]
            _compare(check, folder, image, "adv", adversarial)
            _compare(check, folder, image, "delta", 0.5 + (adversarial - clean) / (2 * scale))


def _key(image: Json) -> tuple[str, str, int]:
    return str(image["model"]), str(image["attack"]), int(image["id"])


def _said(key: tuple[str, str, int]) -> str:
    return f"{key[0]}, {key[1]}, id {key[2]}"


def _compare(check: Compared, folder: Path, image: Json, kind: str, tensor: Tensor) -> None:
    name, shown = str(image.get(kind)), to_picture(tensor)
    try:
        content = read_bounded(name, PICTURE_BYTES, folder=folder)
        with catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=["PNG"]) as stored:
            same = (stored.mode, stored.size) == (shown.mode, shown.size)  # before its pixels take memory
            check.record(name, [] if same and stored.tobytes() == shown.tobytes() else ["it shows something else"])
    except (MemoryError, UserError):  # UserError: it is a link, or no file
        raise
    except Exception as error:  # Pillow's readers raise many kinds on broken files
        check.record(name, [f"it cannot be read ({error})"])
