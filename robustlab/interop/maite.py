"""Image classification in MAITE's protocols: models and data sets both ways.

MAITE (https://github.com/mit-ll-ai-technology/maite, `pip install "robustlab[maite]"`) says what a model and a data set
look like to a tool: images are arrays (C, H, W), targets are arrays (K,), a batch is a sequence of these. It does not
say in which range pixels lie, nor whether a model returns logits or probabilities. Whoever calls has to say both.
Objects that follow the protocols are enough: nothing here imports MAITE.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.outputs import Form
from robustlab.base.typed import check_choice, check_whole
from robustlab.data import Data
from robustlab.data.arrays import content_hash
from robustlab.interop.maite_common import (
    KIND,
    Range,
    array_of,
    called,
    from_unit,
    metadata_of,
    names_of,
    range_of,
    to_unit,
)
from robustlab.interop.maite_out import to_dataset, to_model
from robustlab.interop.maite_parts import parts_of
from robustlab.models.classifier import Classifier
from robustlab.oracle import NO_GRADIENT, NoGradientError
from robustlab.threat.model import ThreatModel

if TYPE_CHECKING:
    from maite.protocols import image_classification as ic


__all__ = ["from_dataset", "from_model", "to_dataset", "to_model"]


def from_model(model: ic.Model, *, pixel_range: Range, outputs: Form, gradient: bool = False) -> Classifier:
    """A MAITE model as a classifier: images in [0, 1] (N, C, H, W) -> logits (N, K).

    pixel_range: the lowest and the highest value of a pixel as the model wants it, such as (0, 255). outputs: what it
    returns: "logits", or the probabilities of a "softmax" or of "sigmoids", of which attacks then see the logits.
    gradient: hand it torch tensors, through which a gradient flows if the model computes with torch alone. Otherwise it
    gets NumPy arrays (float32) and gives no gradient: only attacks that ask scores or labels work, such as square.
    Torch modules in the model's attributes, and in lists, mappings and objects there, are put into eval mode. They, and
    arrays there, count in the classifier's hash; where there are none, a warning says so. Raises UserError.

    >>> class Mean:
    ...     metadata = {"id": "mean", "index2label": {0: "dark", 1: "bright"}}
    ...     def __init__(self):
    ...         self.slope = np.array([-1.0, 1.0])
    ...     def __call__(self, batch):
    ...         return [self.slope * (np.mean(image) - 127.5) for image in batch]
    >>> mean = from_model(Mean(), pixel_range=(0, 255), outputs="logits")
    >>> mean(torch.ones(1, 3, 2, 2)).tolist(), mean.classes
    ([[-127.5, 127.5]], ('dark', 'bright'))
    """
    metadata = metadata_of(model, "model")
    if not callable(model):
        raise UserError(f"{KIND} model is called with a batch of images, and {type(model).__name__} cannot be called.")
    check_choice("outputs", outputs, get_args(Form))
    module = _Module(model, metadata["id"], range_of(pixel_range), gradient)
    return Classifier(module, classes=names_of(metadata), name=metadata["id"], outputs=outputs)


def from_dataset(dataset: ic.Dataset, *, pixel_range: Range, limit: int | None = None) -> Data:
    """A MAITE data set as data, read into memory: images (C, H, W) of one size, targets (K,) -> labels.

    pixel_range: the lowest and the highest value that a pixel may have, such as (0, 255). The label is the class with
    the largest entry of the target, which must be one class. An id is the position in the data set. limit: only the
    first. Class names are those of the metadata's index2label, else numbers. Raises UserError.

    >>> class Two:
    ...     metadata = {"id": "two"}
    ...     def __len__(self):
    ...         return 2
    ...     def __getitem__(self, at):
    ...         return np.full((1, 2, 2), 255 * at), np.eye(3)[at + 1], {"id": at}
    >>> two = from_dataset(Two(), pixel_range=(0, 255))
    >>> two.images.amax((1, 2, 3)).tolist(), two.labels.tolist(), two.classes
    ([0.0, 1.0], [1, 2], ('0', '1', '2'))
    """
    metadata, between = metadata_of(dataset, "data set"), range_of(pixel_range)
    check_whole("limit", limit, 1)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UserError(f"{KIND} data set has a length and gives samples by number; {type(dataset).__name__} has not.")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if not count:
        raise UserError(f"The MAITE data set {metadata['id']!r} is empty.")
    images: list[npt.NDArray[np.float32]] = []
    targets: list[npt.NDArray[np.float64]] = []
    for at in range(count):
        image, target = _sample(dataset[at], at)
        if images and image.shape != images[0].shape:
            raise UserError(f"Images must have one size: 0 is {images[0].shape}, {at} is {image.shape}. Scale them.")
        if targets and target.shape != targets[0].shape:
            raise UserError(f"Targets must have one length: 0 has {len(targets[0])}, {at} has {len(target)} classes.")
        images.append(image)
        targets.append(target)
    labels = np.stack(targets).argmax(1)
    pixels = to_unit(torch.from_numpy(np.stack(images)), between)
    classes = names_of(metadata) or tuple(str(k) for k in range(len(targets[0])))
    if len(classes) != len(targets[0]):
        raise UserError(
            f"index2label of {metadata['id']!r} has {len(classes)} names, targets {len(targets[0])} classes."
        )
    return Data(
        name=metadata["id"],
        split="test",
        images=pixels,
        labels=torch.from_numpy(labels),
        ids=torch.arange(count),
        classes=classes,
        hash=content_hash([str(images[0].shape).encode(), pixels.numpy().tobytes(), labels]),
        threat=ThreatModel(),
    )


class _Module(nn.Module):
    """A MAITE model as a module: images in [0, 1] (N, C, H, W) -> (N, K)."""

    def __init__(self, model: Any, name: str, between: Range, gradient: bool) -> None:
        super().__init__()
        self.between, self.gradient = between, gradient
        self.held = [(name, model)]  # in a list: a module in it is registered once, below
        found = parts_of(model)
        if not found:
            warnings.warn(
                f"The model {name!r} shows no weights: no torch module, no array. So two such models with other weights"
                " look like one model to resume and compare. Keep the weights in its attributes, or its ids apart.",
                stacklevel=3,
            )
        self.parts = nn.ModuleList(part for part in found.values() if isinstance(part, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        model, values = self.held[0][1], from_unit(x, self.between)
        try:
            out = model(list(values.unbind()) if self.gradient else list(values.detach().cpu().numpy()))
        except RuntimeError as error:
            if self.gradient and "requires grad" in str(error):
                raise NoGradientError(f"{NO_GRADIENT} Give gradient=False to from_model.") from error
            raise
        return _rows(out, len(x), x.device)

    def get_extra_state(self) -> dict[str, Any]:
        """For the hash: weights that are no torch modules."""
        name, model = self.held[0]
        found = parts_of(model)
        arrays = {where: part for where, part in found.items() if not isinstance(part, nn.Module)}
        kind = type(model).__qualname__
        return {"id": name, "kind": kind, "pixel_range": self.between, "parts": list(found), "arrays": arrays}

    def set_extra_state(self, state: Any) -> None:
        """Nothing: the model is the one that was given."""


def _rows(out: Any, n: int, device: torch.device) -> Tensor:
    """(N, K) float32 of the targets that a model returned for n images."""
    try:
        each = [one if isinstance(one, Tensor) else torch.from_numpy(np.array(one, np.float32)) for one in out]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{KIND} model returns a sequence of arrays (K,), one an image; this one returned {type(out).__name__}:"
            f" {error}."
        ) from error
    shapes = sorted({tuple(one.shape) for one in each})
    if len(each) != n or len(shapes) != 1 or len(shapes[0]) != 1:
        raise UserError(
            f"{KIND} model returns a sequence of arrays (K,), one an image; for {n} images this one returned"
            f" {len(each)} of the shapes {', '.join(map(str, shapes)) or 'none'}."
        )
    return torch.stack([one.to(device) for one in each]).float()


def _sample(sample: Any, at: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Image and target of a sample of a data set."""
    if not isinstance(sample, tuple | list) or len(sample) != 3:
        raise UserError(f"Sample {at} of {KIND} data set must be (image, target, metadata), got {called(sample)}.")
    image, target = (array_of(value) for value in sample[:2])
    if image.ndim != 3 or not image.size:
        raise UserError(f"Image {at} must be an array (C, H, W), got the shape {image.shape}.")
    if image.shape[0] not in (1, 3, 4) and image.shape[2] in (1, 3, 4):
        raise UserError(f"Image {at} must be an array (C, H, W); {image.shape} looks like (H, W, C). Transpose it.")
    if target.ndim != 1 or not target.size:
        raise UserError(
            f"Target {at} must be an array (K,), one number a class, got the shape {target.shape}. One-hot of a label:"
            " np.eye(K)[label]."
        )
    if not np.isfinite(target).all() or (target == target.max()).sum() != 1:
        raise UserError(f"Target {at} names no single class: its largest number is not the only one, or not finite.")
    return image.astype(np.float32), target.astype(np.float64)
