"""The wrapper around any module, and the check of what goes in and comes out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError, spelled
from robustlab.base.given import check_images, check_range, of_other_type
from robustlab.base.memory import of_the_machine
from robustlab.base.outputs import (
    ROUNDED,
    UNROUNDED,
    Form,
    Squashed,
    logits_of_probabilities,
    rounded,
    rows,
    unlike_logits,
    unpacked,
)
from robustlab.base.words import distinct
from robustlab.models.hashing import pieces
from robustlab.models.repeats import repeats
from robustlab.oracle import ask

RANDOMISED = (  # a warning of `check`
    "Two evaluations of the same images differ: the model is randomised. One gradient is then one draw of many, and one"
    " answer no verdict: attacks have to average over draws (EOT), and several evaluations have to judge."
)
KEEPS_STATE = (
    "The model keeps state: it changes buffers when it is asked, and then answers otherwise. Every attack starts from"
    " the buffers as they were given, but what it finds depends on the batches before, and so on --batch-size. Freeze"
    " what changes (observers, running means, codebooks)."
)
DEPENDS_ON_BATCH = (
    "The answer to an image depends on the other images of its batch (BatchNorm on the statistics of the batch, dynamic"
    " quantisation, a mean or softmax over the batch). One attacked image then changes the answers to others, and all"
    " numbers depend on --batch-size."
)


class Classifier(nn.Module):
    """Images in [0, 1] (N, C, H, W) -> logits (N, K), with the normalisation inside.

    mean, std: one value, or one a channel, in the units of the images; left out: none. classes: the names of the K
    outputs; those that occur several times get their number behind them, as in `crane (134)`. shape: (C, H, W) that the
    module expects, where known. data: the name of the data set it was trained on. outputs: what the module returns,
    logits, or the probabilities of a softmax or of one sigmoid a class, of which the classifier then returns the
    logits. For other forms that are taken see `robustlab.base.outputs.rows`.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> model = Classifier(net, mean=[0.5], std=[0.25], classes=["a", "b", "c"], shape=(3, 2, 2))
    >>> model(torch.rand(4, 3, 2, 2)).shape
    torch.Size([4, 3])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        classes: Sequence[str] | None = None,
        shape: tuple[int, int, int] | None = None,
        name: str = "model",
        data: str = "",
        outputs: Form = "logits",
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise UserError(f"A classifier is made from a torch.nn.Module, got {type(module).__name__}.")
        if (mean is None) != (std is None):
            raise UserError("mean and std come together: give both, or neither for a module that takes raw images.")
        self.module = module
        self.normalised = mean is not None
        for key, values in (("mean", [0.0] if mean is None else mean), ("std", [1.0] if std is None else std)):
            channels = 1 if shape is None else shape[0]
            if len(values) != 1 and shape is not None and len(values) != channels:
                raise UserError(f"{key} needs 1 or {channels} values (one a channel), got {len(values)}.")
            self.register_buffer(key, torch.tensor([float(v) for v in values]).view(1, -1, 1, 1))
        if not bool((self.std > 0).all()) or not bool(torch.isfinite(self.mean).all()):
            raise UserError(f"std must be positive and mean finite, got mean {mean} and std {std}.")
        self.classes = classes
        self.shape = shape
        self.name = name
        self.data = data
        self.divided = ""  # of a part of a folder that it was trained on: the hash of its names, see `ModelCard`
        if outputs not in get_args(Form):
            raise UserError(f"outputs must be one of {', '.join(get_args(Form))}, got {outputs!r}.")
        self.outputs: Form = outputs
        self.trained: dict[
            str, Any
        ] = {}  # by which defense and how long, where a card says it: see `ModelCard.trained`
        self.notes: list[str] = []  # what a run has to say about it
        self.source: dict[str, Any] | None = None  # how `load_model` can load it again; set there

    def described_as(self, other: Classifier) -> Classifier:
        """Itself, with all that is known of another classifier: names, shape, data, training and notes."""
        for key in ("classes", "shape", "name", "data", "divided", "trained", "notes"):
            setattr(self, key, getattr(other, key))
        return self

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the outputs, each once; None where they have none."""
        return self._classes

    @classes.setter
    def classes(self, names: Sequence[str] | None) -> None:
        self._classes = None if names is None else distinct(names)

    def forward(self, x: Tensor) -> Tensor:
        if self.normalised:
            x = (x - self.mean) / self.std
        if self.outputs == "logits":
            return rows(self.module(x), x)
        with Squashed() as squashed:
            out = unpacked(self.module(x))
        before = squashed.before(out, self.outputs)
        return logits_of_probabilities(rows(out, x), self.outputs, None if before is None else rows(before, x))

    def hash(self) -> str:
        """32 hex digits of the SHA-256 over names, shapes, types and bytes of parameters, buffers and other state."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} ".encode())
            for piece in pieces(value):
                digest.update(piece)
        return digest.hexdigest()[:32]


class Checked(NamedTuple):
    """What `check` found: the warnings, and whether two evaluations of the classifier differ."""

    warnings: list[str]
    randomised: bool


def check(classifier: nn.Module, images: Tensor, labels: Tensor | None) -> Checked:
    """Look at one batch before a run: what is wrong is a `UserError`, what is suspicious comes back as a warning.

    Errors: shape or range of the images, a module that raises, outputs that are not (N, K) finite logits, labels or
    class names that do not fit K. Warnings: outputs that are hardly logits; answers
    that are others in a second evaluation, after the first, or among other images.
    images: (N, C, H, W) float in [0, 1]. labels: (N,) int64, or None where the model's own answers count. The module
    is evaluated in eval mode and left as it was.
    """
    shape = getattr(classifier, "shape", None)
    _check_images(images, shape)
    for key in ("mean", "std"):
        values = getattr(classifier, key, None)
        if isinstance(values, Tensor) and values.numel() not in (1, images.shape[1]):
            raise UserError(
                f"{key} has {values.numel()} values, and the images have {images.shape[1]} channels: give one value, or"
                " one a channel."
            )
    modes = [(m, m.training) for m in classifier.modules()]
    devices = [images.device] if images.is_cuda else []
    try:
        # a module may draw random numbers: under a forked generator, so that the caller's is not moved on
        with torch.no_grad(), torch.random.fork_rng(devices):
            classifier.eval()
            quiet = [(name, m) for name, m in classifier.named_modules() if not m.training]
            found = repeats(classifier, images, lambda x: _logits(classifier, x))
            _check_modes(quiet)
    finally:
        for module, training in modes:
            module.training = training
    first = found.first
    _check_labels(labels, first.shape[1], getattr(classifier, "classes", None))

    warnings = [text] if (text := unlike_logits(first)) else []
    form: Form = getattr(classifier, "outputs", "logits")
    if form != "logits" and (gone := int(rounded(first, form).sum())):
        warnings.append(f"{ROUNDED.format(k=gone, n=f'{len(first)} images')} {UNROUNDED}")
    if found.randomised:
        warnings.append(RANDOMISED)
    if found.state:
        warnings.append(KEEPS_STATE)
    if found.batch:
        warnings.append(DEPENDS_ON_BATCH)
    return Checked(warnings, found.randomised)


def _check_images(images: Tensor, shape: tuple[int, int, int] | None) -> None:
    check_images(images)
    if shape is not None and tuple(images.shape[1:]) != tuple(shape):
        raise UserError(
            f"The model expects images of shape {tuple(shape)} (channels, height, width), the data has"
            f" {tuple(images.shape[1:])}. Choose the data or the size that the model was trained on."
        )
    check_range(images)


def _logits(classifier: nn.Module, images: Tensor) -> Tensor:
    try:
        logits = ask(classifier, images)
    except Exception as error:
        if of_the_machine(error) or isinstance(error, UserError):
            raise
        raise UserError(
            f"The model cannot take images of shape {tuple(images.shape)}: {type(error).__name__}: {error}"
            f"{of_other_type(classifier, images)}"
        ) from error
    if not bool(torch.isfinite(logits).all()):
        raise UserError("The model returned NaN or infinite logits. Check its weights and its mean and std.")
    return logits


def _check_modes(quiet: Sequence[tuple[str, nn.Module]]) -> None:
    if turned := [name or "the model" for name, module in quiet if module.training]:
        raise UserError(
            f"The model's forward puts parts of it into training mode ({turned[0]}), so that dropout and BatchNorm"
            " would decide its answers. Remove train() from forward. Where randomness is meant, write it there:"
            " torch.nn.functional.dropout(x, p, training=True)."
        )


def _check_labels(labels: Tensor | None, outputs: int, classes: tuple[str, ...] | None) -> None:
    low, high = (0, 0) if labels is None else (int(labels.min()), int(labels.max()))
    if low < 0 or high >= outputs:
        raise UserError(
            f"The labels go from {low} to {high}, but the model has {outputs} classes. Choose a model for this data, or"
            f" attack the model's own answers: {spelled('labels', 'predicted')}."
        )
    if classes is not None and len(classes) != outputs:
        raise UserError(f"The model has {outputs} outputs, but {len(classes)} class names.")
