"""What a caller gives as images, labels, targets and data, as tensors; a UserError where the meaning is not clear."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils.data import DataLoader, Dataset

from robustlab.base.errors import UserError, did_you_mean

PAIR = "data is a name, a `Data`, a pair (images, labels), or a Dataset or DataLoader of such pairs"


def check_floats(images: Tensor, what: str = "images") -> None:
    """A `UserError` for images in whole numbers, which nearly always go from 0 to 255."""
    if not images.is_floating_point():
        raise UserError(
            f"{what} must be floats in [0, 1], got {images.dtype}. Divide values of 0 to 255 by 255: images / 255."
        )


def check_range(images: Tensor, what: str = "images") -> None:
    """A `UserError` unless all values lie in [0, 1]."""
    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError(
                f"{what} must lie in [0, 1], and some values are NaN or infinite. Look at how they were made."
            )
        if low >= 0 and 2 <= high <= 255:
            raise UserError(f"{what} must lie in [0, 1], got [{low:.3g}, {high:.3g}]. Divide by 255: images / 255.")
        raise UserError(
            f"{what} must lie in [0, 1], got [{low:.3g}, {high:.3g}]. If they are normalised, give the raw images, and"
            " the normalisation to the model: --mean and --std, or robustlab.models.Classifier(module, mean, std)."
        )


def check_images(images: Tensor) -> None:
    """A `UserError` unless these are floats of the shape (N, C, H, W), and one at least."""
    check_floats(images)
    if images.ndim != 4 or not len(images):
        raise UserError(
            f"images must be floats of shape (N, C, H, W), N at least 1; got {images.dtype} {tuple(images.shape)}."
        )


def images_of(value: Any) -> Tensor:
    """(N, C, H, W) float in [0, 1] from a tensor, a NumPy array or a list of either, of one size each.

    >>> images_of([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)]).shape
    torch.Size([2, 3, 2, 2])
    """
    if hasattr(value, "shape") and hasattr(value, "only"):
        value = value[:]  # images that lie on the disk, as those of folder:PATH
    images = _tensor(value, "images", "floats of shape (N, C, H, W) in [0, 1], as a tensor or an array")
    shape = tuple(images.shape)
    if images.ndim == 3:
        raise UserError(
            f"images must have the shape (N, C, H, W), got {shape}. A single image: images[None]; grey images without"
            " a channel: images[:, None]."
        )
    if images.ndim == 4 and images.dtype == torch.uint8:
        raise UserError("images must be floats in [0, 1], got torch.uint8. Divide by 255: images.float() / 255.")
    if images.ndim != 4 or not images.is_floating_point():
        raise UserError(f"images must be floats of shape (N, C, H, W), got {images.dtype} {shape}.")
    if images.is_meta:
        raise UserError("images lie on the device 'meta', which holds no values. Load them on another.")
    if images.numel():
        check_range(images)
    elif len(images):
        raise UserError(f"images must have at least one pixel and one channel, got the shape {shape}.")
    return images


def labels_of(value: Any, n: int, what: str = "labels") -> Tensor:
    """(n,) int64 from whole numbers in a tensor, an array or a list, of shape (n,) or (n, 1).

    >>> labels_of([[2.0], [0.0]], 2)
    tensor([2, 0])
    """
    labels = _tensor(value, what, f"whole numbers of shape ({n},), one an image")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 0 and n == 1:
        labels = labels[None]
    shape = tuple(labels.shape)
    if labels.ndim == 2 and len(labels) == n:
        raise UserError(
            f"{what} must have the shape ({n},), one class number an image, got {shape}. Of one-hot {what}, or"
            f" probabilities, the number is {what}.argmax(1)."
        )
    if labels.ndim == 1 and len(labels) != n:
        raise UserError(f"There are {n} images and {len(labels)} {what}: one an image is needed.")
    if labels.ndim != 1 or labels.is_complex():
        raise UserError(f"{what} must be whole numbers of shape ({n},), one an image, got {labels.dtype} {shape}.")
    if labels.is_floating_point():
        if not bool((labels == labels.floor()).all()) or not bool(torch.isfinite(labels).all()):
            odd = labels[(labels != labels.floor()) | ~torch.isfinite(labels)][0].item()
            raise UserError(f"{what} must be whole numbers, one an image, got {odd:g}.")
        if labels.numel() and float(labels.abs().max()) >= 2**53:
            raise UserError(f"{what} must be class numbers, got {labels.abs().max().item():g}.")
    return labels.to(torch.int64)


def check_classes(lowest: int, highest: int, outputs: int | None, what: str = "labels") -> None:
    """Class numbers lie in 0 to K - 1. outputs: K where it is known.

    >>> check_classes(0, 9, 10)
    """
    if lowest >= 0 and (outputs is None or highest < outputs):
        return
    known = f"0 to {outputs - 1}, since the model has {outputs} classes" if outputs is not None else "0 to K - 1"
    hint = " Where yours count from 1, subtract 1." if lowest > 0 and highest == outputs else ""
    raise UserError(f"{what} must be class numbers from {known}; got {lowest} to {highest}.{hint}")


def pair_of(data: Any) -> tuple[Tensor, Tensor]:
    """Images and labels from a pair of them, or from a Dataset or DataLoader, all of which is read into memory.

    torch's generator is left as it was, so that a loader that shuffles does so alike each time.
    """
    if isinstance(data, Dataset | DataLoader):
        batched = isinstance(data, DataLoader) and data.batch_sampler is not None
        with torch.random.fork_rng(devices=[]):
            images, labels = _collected(data, type(data).__name__, batched)
    elif isinstance(data, tuple | list):
        if len(data) != 2:
            raise UserError(
                f"A pair (images, labels) was expected, got {len(data)} things. Give data[0], data[1] only."
            )
        images, labels = data
    elif hasattr(data, "__fspath__"):
        raise UserError(f"A path is given as text: 'folder:{data}' or 'npz:{data}'.")
    else:
        raise UserError(f"{PAIR}; got {_called(data)}.")
    x = images_of(images)
    return x, labels_of(labels, len(x))


def _collected(data: Any, name: str, batched: bool) -> tuple[Tensor, Tensor]:
    """All images and labels of a data set, or of a loader's batches."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    sized = isinstance(data, Dataset) and hasattr(data, "__len__") and hasattr(data, "__getitem__")
    items: Iterable[Any] = (data[i] for i in range(len(data))) if sized else iter(data)
    for item in items:
        if not isinstance(item, tuple | list) or len(item) != 2:
            got = f"{len(item)} things" if isinstance(item, tuple | list) else _called(item)
            raise UserError(
                f"{'A batch' if batched else 'An item'} of the {name} must be a pair (image, label), got {got}. Make"
                " pairs of them, or give (images, labels) as two tensors."
            )
        image = _tensor(item[0], f"images of the {name}", "tensors of shape (C, H, W)")
        label = _tensor(item[1], f"labels of the {name}", "whole numbers")
        images.append(image if batched else image[None])
        labels.append(label if batched else label[None])
        if images[-1].shape[1:] != images[0].shape[1:]:
            raise UserError(
                f"The images of the {name} have different shapes: {tuple(images[0].shape[1:])} and"
                f" {tuple(images[-1].shape[1:])}. Scale them in its transform (Resize, CenterCrop)."
            )
        if labels[-1].shape[1:] != labels[0].shape[1:]:
            raise UserError(f"The labels of the {name} have different shapes. Give one class number an image.")
    if not images:
        raise UserError(f"The {name} is empty: there is no sample to attack.")
    return torch.cat(images), torch.cat(labels)


def _tensor(value: Any, what: str, wanted: str) -> Tensor:
    """A tensor, an array, a number or a list of such, as a strided tensor without a gradient."""
    if isinstance(value, Tensor):
        return value.detach() if value.layout == torch.strided else value.detach().to_dense()
    if isinstance(value, tuple | list) and value and all(isinstance(v, Tensor) or hasattr(v, "dtype") for v in value):
        parts = [_tensor(v, what, wanted) for v in value]
        if len({part.shape for part in parts}) > 1:
            raise UserError(f"{what} have different shapes: {', '.join(str(tuple(p.shape)) for p in parts[:4])}, ...")
        return torch.stack(parts)
    if type(value).__module__.startswith("PIL."):
        raise UserError(f"{what} must be {wanted}, got a PIL image. Use torchvision.transforms.ToTensor().")
    if isinstance(value, tuple | list | int | float) or hasattr(value, "__array__"):
        try:
            import numpy as np

            array = np.array(value)  # a copy: read-only arrays and negative strides are no tensors
            if array.dtype.kind in "biufc":
                return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
        except (ValueError, TypeError, OverflowError):  # ragged lists, numbers that no type holds, types torch lacks
            pass
    raise UserError(f"{what} must be {wanted}; got {_called(value)}.")


def _called(value: Any) -> str:
    """A value in a message: its type, and short texts and numbers themselves."""
    short = repr(value) if isinstance(value, str | int | float | None) else ""
    return short if 0 < len(short) <= 60 else f"{type(value).__module__}.{type(value).__qualname__}"


# --- models -----------------------------------------------------------------------------------------------------------


def check_module(model: Any, device: torch.device | None = None) -> None:
    """A UserError where `model` cannot be asked. device: that of the images, if the model is not moved there."""
    if isinstance(model, type):
        raise UserError(f"The class {model.__name__} was given as a model, not an instance of it: {model.__name__}().")
    if not callable(model):
        load = f" Load it: robustlab.load_model({model!r})." if isinstance(model, str) else ""
        raise UserError(f"A model is a torch.nn.Module, or a function of images; got {_called(model)}.{load}")
    if not isinstance(model, nn.Module):
        return
    homes: set[torch.device] = set()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(value, UninitializedParameter | UninitializedBuffer):
            raise UserError(
                f"{name} of the model has no size yet (a lazy layer): ask the model once, model(images[:2]), and load"
                " its weights."
            )
        if value.is_meta:
            raise UserError(
                f"{name} of the model lies on the device 'meta', which holds no values: model.to_empty(device='cpu'),"
                " and load its weights."
            )
        homes.add(value.device)
    if device is not None and homes and device not in homes:
        home = next(iter(homes))
        raise UserError(
            f"The model lies on {home} and the images on {device}: model.to('{device}'), or images.to('{home}')."
        )


def of_other_type(model: Any, images: Tensor) -> str:
    """What to do where a model raises because its weights are of another type than the images; empty if they are not.

    Converting them here would be another model than the one that was given, and float16 is slow on most CPUs.
    """
    if not isinstance(model, nn.Module):
        return ""
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()} - {images.dtype}
    if not kinds:
        return ""
    return f" Its weights are {next(iter(kinds))}, the images {images.dtype}: convert the model, model.float()."


def class_number(target: int | str | None, classes: Sequence[str]) -> int | None:
    """A class by name or number, as its number; None stays. classes: the names, or none where nobody knows them.

    >>> class_number("cat", ["dog", "cat"])
    1
    """
    if target is None:
        return None
    if isinstance(target, int):
        if target < 0 or (classes and target >= len(classes)):
            known = f": they are numbered from 0 to {len(classes) - 1}" if classes else ""
            raise UserError(f"There is no class {target}{known}.")
        return target
    if target not in classes:
        known = f" Known: {', '.join(classes)}." if classes else " The classifier has no names: give the number."
        raise UserError(f"There is no class {target!r}.{did_you_mean(target, classes)}{known}")
    return list(classes).index(target)
