"""Classifiers and data of robustlab as MAITE's models and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.typed import check_choice
from robustlab.data import Data
from robustlab.interop.maite_common import Range, array_of, described, from_unit, range_of, to_unit
from robustlab.models.classifier import Classifier
from robustlab.oracle import ask, undisturbed

if TYPE_CHECKING:
    from maite.protocols import DatasetMetadata, DatumMetadata, ModelMetadata
    from maite.protocols import image_classification as ic


def to_model(
    classifier: Classifier,
    *,
    pixel_range: Range = (0.0, 1.0),
    outputs: Literal["probabilities", "logits"] = "probabilities",
) -> ic.Model:
    """A classifier as a MAITE model, for MAITE's tools.

    pixel_range: the lowest and the highest value of a pixel in the images that it will be given. outputs: what it
    returns. A batch of torch tensors gives tensors, through which a gradient flows; other arrays give NumPy arrays.
    Raises UserError, also for a batch whose values lie outside of the range.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), name="net")
    >>> model = to_model(net)
    >>> model.metadata, [each.shape for each in model([np.zeros((3, 2, 2))])]
    ({'id': 'net'}, [(3,)])
    """
    if not isinstance(classifier, Classifier):
        raise UserError(
            "to_model takes a robustlab.models.Classifier, such as load_model returns; got"
            f" {type(classifier).__name__}. Of a module: Classifier(module, mean, std, classes=[...])."
        )
    check_choice("outputs", outputs, ("probabilities", "logits"))
    return _MaiteModel(classifier, range_of(pixel_range), outputs)


def to_dataset(data: Data, *, pixel_range: Range = (0.0, 1.0)) -> ic.FieldwiseDataset:
    """Data as a MAITE data set: float32 images (C, H, W), one-hot float32 targets (K,), metadata with the id.

    pixel_range: the lowest and the highest value of a pixel in the images that it gives. Raises UserError.

    >>> from robustlab.data import load_data
    >>> dataset = to_dataset(load_data("road-signs", "test", limit=4), pixel_range=(0, 255))
    >>> image, target, metadata = dataset[3]
    >>> len(dataset), image.shape, target.shape, metadata
    (4, (3, 32, 32), (16,), {'id': 3})
    """
    if not isinstance(data, Data):
        raise UserError(f"to_dataset takes what load_data returns, got {type(data).__name__}.")
    if bool((data.labels < 0).any()):
        raise UserError(f"{data.name} has samples without a label, and MAITE wants a target for each.")
    return _MaiteDataset(data, range_of(pixel_range))


class _MaiteModel:
    def __init__(self, classifier: Classifier, between: Range, outputs: str) -> None:
        self.classifier, self.between, self.outputs = classifier, between, outputs
        self.metadata: ModelMetadata = described(classifier.name, classifier.classes)

    def __call__(self, batch: Sequence[Any], /) -> Sequence[Any]:
        tensors = all(isinstance(each, Tensor) for each in batch)
        given = [
            each if isinstance(each, Tensor) else torch.from_numpy(np.array(array_of(each), np.float32))
            for each in batch
        ]
        shapes = sorted({tuple(each.shape) for each in given})
        if not given:
            return []
        if len(shapes) > 1 or len(shapes[0]) != 3:
            raise UserError(
                f"A batch is a sequence of images (C, H, W) of one size, got {', '.join(map(str, shapes))}."
            )
        home = next((each.device for each in self.classifier.state_dict().values() if isinstance(each, Tensor)), None)
        x = to_unit(torch.stack([each.float() for each in given]).to(home), self.between)
        with undisturbed(self.classifier), nullcontext() if tensors else torch.no_grad():
            out = ask(self.classifier, x)
            out = out.softmax(1) if self.outputs == "probabilities" else out
        return list(out.unbind()) if tensors else list(out.cpu().numpy())


class _MaiteDataset:
    def __init__(self, data: Data, between: Range) -> None:
        self.data, self.between = data, between
        self.metadata: DatasetMetadata = described(f"{data.name}-{data.split}", data.classes)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, at: int, /) -> tuple[Any, Any, DatumMetadata]:
        return self.get_input(at), self.get_target(at), self.get_metadata(at)

    def get_input(self, at: int, /) -> Any:
        at = self._index(at)
        return from_unit(self.data.take(torch.tensor([at])).loaded().images[0], self.between).numpy()

    def get_target(self, at: int, /) -> Any:
        return np.eye(len(self.data.classes), dtype=np.float32)[int(self.data.labels[self._index(at)])]

    def get_metadata(self, at: int, /) -> DatumMetadata:
        return {"id": int(self.data.ids[self._index(at)])}

    def _index(self, at: int) -> int:
        return range(len(self.data))[at]  # an IndexError ends an iteration
