"""What both directions share: the range of the pixels, metadata, arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustlab.base.errors import UserError

Range = tuple[float, float]
SLACK = 1e-4  # of the range: what rounding may add to a pixel
KIND = "a MAITE image-classification"


def range_of(given: Any) -> Range:
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise UserError(f"pixel_range is the lowest and the highest value of a pixel, such as (0, 255); got {given!r}.")
    return low, high


def from_unit(x: Tensor, between: Range) -> Tensor:
    low, high = between
    return x if between == (0.0, 1.0) else low + x * (high - low)


def to_unit(values: Tensor, between: Range) -> Tensor:
    """Images in [0, 1]; a `UserError` for values that lie outside of what was said."""
    low, high = between
    x = values if between == (0.0, 1.0) else (values - low) / (high - low)
    if not bool(((x >= -SLACK) & (x <= 1 + SLACK)).all()):
        raise UserError(
            f"Pixels go from {values.min().item():.4g} to {values.max().item():.4g}, and pixel_range says {low:g} to"
            f" {high:g}. MAITE leaves the range open: say the one of these images. Normalised images have to be given"
            " raw."
        )
    return torch.where((x < 0) | (x > 1), x.clamp(0, 1), x)  # at 0 and 1 clamp would lose the gradient


def metadata_of(thing: Any, what: str) -> Mapping[str, Any]:
    metadata = getattr(thing, "metadata", None)
    if isinstance(thing, type) or not isinstance(metadata, Mapping) or not isinstance(metadata.get("id"), str):
        raise UserError(f"{KIND} {what} has metadata with an id, a text; {called(thing)} has {metadata!r}.")
    return metadata


def names_of(metadata: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names of metadata, None where it has none."""
    names = metadata.get("index2label")
    if names is None:
        return None
    if not isinstance(names, Mapping) or sorted(names) != list(range(len(names))):
        raise UserError(
            f"index2label of {metadata['id']!r} must name the classes 0 to K - 1, got {str(names)[:80]}. Correct it, or"
            " take it out of the metadata."
        )
    return tuple(str(names[k]) for k in range(len(names)))


def described(name: str, classes: Sequence[str] | None) -> Any:
    return {"id": name} | ({} if classes is None else {"index2label": dict(enumerate(classes))})


def array_of(value: Any) -> npt.NDArray[Any]:
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    return array if array.dtype.kind in "biuf" else np.empty(0)  # rows of different lengths, or no numbers


def called(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
