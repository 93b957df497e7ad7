"""Patches: one picture that, wherever it lies in an image, makes a classifier answer with the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from robustlab.base.draws import pixel_ids, uniform
from robustlab.base.errors import UserError
from robustlab.base.files import write_output
from robustlab.base.given import check_classes, check_images, check_range, class_number, labels_of
from robustlab.base.reading import read_bounded
from robustlab.base.typed import check_whole
from robustlab.oracle import NO_GRADIENT, NoGradientError, ask, undisturbed
from robustlab.physical.fitted import State, Watch, adam, head, unwatched
from robustlab.physical.placement import Placement, keyed

LARGEST = 2048  # texels across
PATCH_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Patch(Placement):
    """A picture to be pasted into images, and how it is placed there.

    texture: (C, t, t) in [0, 1], at its own resolution. target: the class that images with it are to be read as; None
    for any other than their own.

    >>> patch = Patch(torch.ones(3, 8, 8), target=1, share=0.05)
    >>> patch.on(torch.zeros(2, 3, 40, 30), torch.arange(2), seed=0).amax().item()
    1.0
    """

    texture: Tensor
    target: int | None = None

    def on(self, images: Tensor, ids: Tensor | None = None, seed: int = 0) -> Tensor:
        """The images (N, C, H, W) with the patch, each at a place keyed by (seed, id), rounded to 8 bits.

        ids: (N,); left out, they come from the pixels. UserError: other channels, a patch that does not fit.
        """
        _check(self, images, len(self.texture))
        ids = pixel_ids(images) if ids is None else ids
        with torch.no_grad():
            pasted = self.pasted(images, self.texture.to(images), keyed(seed, ids.to(images.device), "judge"))
        return (pasted * 255).round() / 255

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, with target and placement."""
        write_output(Path(path), self.encoded())

    def encoded(self) -> bytes:
        """The bytes of its safetensors file."""
        about = msgspec.json.encode({"target": self.target, **_placement_of(self)}).decode()
        return save({"texture": self.texture.contiguous()}, {"patch": about})

    @classmethod
    def load(cls, path: str | Path) -> Patch:
        """Read what `save` has written. UserError: it is no patch, or damaged."""
        try:
            return cls.decoded(read_bounded(Path(path), PATCH_BYTES), str(path))
        except OSError as error:
            raise UserError(f"{path} is no patch that robustlab has saved: {error.strerror or error}.") from error

    @classmethod
    def decoded(cls, data: bytes, name: str) -> Patch:
        """A patch from the bytes of its file. UserError: they are none, or damaged. name: what an error calls it."""
        try:
            about = msgspec.convert(head(data, "patch"), _About)
            texture = load(data)["texture"]
            fine = texture.ndim == 3 and texture.shape[1] == texture.shape[2] and texture.dtype == torch.float32
            if not (fine and 0 < texture.numel() and texture.shape[1] <= LARGEST):
                raise ValueError("its texture cannot be used")
            check_range(texture, "its texture")
            return cls(texture, **asdict(about))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            why = str(error).removesuffix(".")
            raise UserError(f"{name} is no patch that robustlab has saved: {why}.") from error


@dataclass
class _About:
    target: int | None
    shape: str
    share: float
    scale: tuple[float, float]
    rotation: float
    place: tuple[float, float] | None


@dataclass(frozen=True)
class PatchAttack(Placement):
    """The adversarial patch (Brown et al. 2017, arXiv:1712.09665): universal, targeted or not, on any images.

    The mean of the loss over images, places, scales and rotations is minimised (expectation over transformation,
    Athalye et al. 2018, arXiv:1707.07397).

    target: a class number or name; None for any other than the image's own. texels: of a side. batch: images in each
    step, without those of the target class.

    >>> images, labels = torch.rand(8, 1, 28, 28), torch.arange(8) % 2
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2))
    >>> PatchAttack(target=1, steps=2).fit(net, images, labels).texture.shape
    torch.Size([1, 64, 64])
    """

    target: int | str | None = None
    steps: int = 500
    batch: int = 64
    lr: float = 0.05
    texels: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch", "texels"):
            check_whole(name, getattr(self, name), 1)
        if self.texels > LARGEST:
            raise UserError(f"texels must be at most {LARGEST}, got {self.texels}.")
        if not 0 < self.lr < float("inf"):
            raise UserError(f"lr must be above 0 and finite, got {self.lr:g}.")

    def fit(
        self,
        classifier: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        state: State | None = None,
        watch: Watch = unwatched,
    ) -> Patch:
        """The fitted patch. classifier: images (N, C, H, W) in [0, 1] -> logits (N, K).

        images, labels: of the training or validation split. ids: (N,); left out, they come from the pixels. classes:
        the names of the outputs, for a target by name; left out, those of the classifier. state: of a fit that was
        stopped, as `watch` got it; the result is the same as of one that was not. watch: is told each step, its loss
        and the state after it.
        """
        _check(self, images)
        labels = labels_of(labels, len(images)).cpu()
        target = self.number(classes or getattr(classifier, "classes", None) or ())
        ids = (pixel_ids(images) if ids is None else ids).cpu()
        other = (labels != (-1 if target is None else target)).nonzero()[:, 0]
        if not len(other):
            raise UserError(f"All images are of the target class {self.target!r}: a patch is fitted on others.")
        z = torch.full((images.shape[1], self.texels, self.texels), 0.5, device=images.device)
        moving = {"z": z, "m": torch.zeros_like(z), "v": torch.zeros_like(z), "step": torch.tensor(0)}
        if state is not None:
            moving = {key: value.to(moving[key].device, copy=True) for key, value in state.items()}
        with undisturbed(classifier), torch.enable_grad():
            for step in range(int(moving["step"]), self.steps):
                order = uniform(keyed(seed, ids[other], "batch", step), (1,))[:, 0]
                index = other[order.argsort(stable=True)[: self.batch]]
                z = moving["z"].requires_grad_(True)
                key = keyed(seed, ids[index], "fit", step).to(images.device)
                x = self.pasted(images[index.to(images.device)], z, key)
                y = labels[index] if target is None else torch.full((len(index),), target)
                loss = _loss(ask(classifier, x).float(), y.to(images.device), target)
                if not loss.requires_grad:
                    raise NoGradientError(NO_GRADIENT)
                (gradient,) = torch.autograd.grad(loss, z)
                moving = adam(moving, gradient, self.lr)
                moving["z"] = moving["z"].clamp(0, 1)
                watch(step, float(loss.detach()), moving)
        texture = (moving["z"].detach().cpu() * 255).round() / 255
        return Patch(texture, target, **_placement_of(self))

    def number(self, classes: Sequence[str]) -> int | None:
        """The class number of the target; None for any other. UserError: there is no such class."""
        return class_number(self.target, classes)


def _placement_of(patch: Placement) -> dict[str, Any]:
    """The fields of a patch that say how it is placed."""
    return {each.name: getattr(patch, each.name) for each in fields(Placement)}


def _loss(logits: Tensor, y: Tensor, target: int | None) -> Tensor:
    """What is minimised: the cross-entropy to the target, or less that to the label, up to 10 an image."""
    check_classes(int(y.min()), int(y.max()), logits.shape[1], "labels" if target is None else "the target")
    if target is not None:
        return F.cross_entropy(logits, y)
    return -F.cross_entropy(logits, y, reduction="none").clamp(max=10).mean()


def _check(placement: Placement, images: Tensor, channels: int | None = None) -> None:
    check_images(images)
    check_range(images)
    if channels is not None and images.shape[1] != channels:
        raise UserError(f"The patch has {channels} channels and the images have {images.shape[1]}: they must agree.")
    placement.check_fits(*images.shape[-2:])
