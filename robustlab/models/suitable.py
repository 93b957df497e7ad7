"""How to load data for models: in the size that they expect, and without the images that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustlab.data import SQUARE, Data
from robustlab.data.division import same_folder
from robustlab.data.layout import files_hash
from robustlab.models.classifier import Classifier


def suitable(name: str, models: Sequence[Classifier]) -> dict[str, Any]:
    """Arguments of `load_data` for what these models are to see of the data set `name`: size, channels, divided."""
    shape = next((model.shape for model in models if model.shape is not None), None)
    channels = None if shape is None else shape[0]
    return {"size": size_for(name, shape), "channels": channels, "divided": bool(trained_on(name, models))}


def size_for(name: str, shape: tuple[int, int, int] | None) -> int | tuple[int, int] | None:
    """The size at which to render or scale: what a model expects (C, H, W), where the set can be had at that."""
    if shape is not None and name.startswith("folder:"):
        return shape[1:]
    return shape[1] if shape is not None and name in SQUARE and shape[1] == shape[2] else None


def trained_on(name: str, models: Sequence[Classifier]) -> list[str]:
    """The models that were trained on a part of this folder, or of a copy; it has no folders train and test.

    What they may be attacked with is then the part that training held out.
    """
    mine = [model for model in models if model.divided]
    if not mine or not name.startswith("folder:") or not (files := files_hash(name)):
        return []
    return [model.name for model in mine if model.divided == files or same_folder(model.data, name)]


def elsewhere(data: Data, models: Sequence[Classifier]) -> list[str]:
    """A remark where a model was trained on a part of some folder, and this is another one."""
    if not data.name.startswith("folder:") or (data.source or {}).get("divided"):
        return []
    known = trained_on(data.name, models)
    return [
        f"{model.name} was trained on a part of {model.data}; {data.name} has other files, which all count as new."
        for model in models
        if model.divided and model.name not in known
    ]


def learned_from(data: Data, models: Sequence[Classifier]) -> list[str]:
    """A warning where data that somebody loaded hold images that a model was trained on."""
    if not data.source or data.source.get("divided") or not data.name.startswith("folder:"):
        return []
    return [
        f"{name} was trained on images of {data.name}, and these are among the attacked ones: its numbers say nothing"
        " about new images. Load what training held out: load_data(..., divided=True)."
        for name in trained_on(data.name, models)
    ]
