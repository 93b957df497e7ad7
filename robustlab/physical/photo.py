"""A sticker on photographs, for data without a renderer: fitted in image space, inside four given corners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from robustlab.base.files import check_output, write_output
from robustlab.base.files.single import check_folder
from robustlab.base.given import check_classes, check_images, check_range, class_number, labels_of
from robustlab.base.reading import read_bounded
from robustlab.base.typed import check_whole
from robustlab.oracle import NO_GRADIENT, NoGradientError, ask, undisturbed
from robustlab.physical.fitted import State, Watch, adam, head, unwatched
from robustlab.physical.masks import SEARCH, best_blocks, mask_of
from robustlab.physical.palette import PRINTABLE, hard, mixed, total_variation
from robustlab.physical.photo_view import Camera, corners_of, keyed, light_of, pasted, rectified, viewed

FACE = 256  # pixels of a side, of masks and faces
LARGEST = 2048
STICKER_BYTES = 64 << 20
SHARP = 10.0  # how much sharper the mixtures are in the end


@dataclass(frozen=True, eq=False)
class PhotoSticker:
    """What is printed, and put on a thing in photographs; it is stretched over the quadrilateral of their corners.

    Where the thing is darker than its face, the sticker is darker by as much: light falls on both.

    texture: (3, t, t) sRGB in [0, 1], t a divisor of P. mask: (P, P) bool. face: (3, P, P), the thing seen from the
    front, the mean of the photographs that were fitted. target: a class number; None for any other than their own.

    >>> black = PhotoSticker(torch.zeros(3, 8, 8), torch.ones(64, 64, dtype=torch.bool), torch.ones(3, 64, 64))
    >>> corners = torch.tensor([[4, 4], [12, 4], [12, 12], [4, 12]])
    >>> round(black.on(torch.ones(2, 3, 16, 16), corners).mean().item(), 3)  # a quarter of each image
    0.75
    """

    texture: Tensor
    mask: Tensor
    face: Tensor
    target: int | None = None

    def on(self, images: Tensor, corners: Tensor) -> Tensor:
        """The images (N, 3, H, W) with the sticker at corners (4, 2) or (N, 4, 2), rounded to 8 bits.

        UserError: other channels, corners that cross or lie outside.
        """
        _check(images)
        places = corners_of(corners, images)
        with torch.no_grad():
            light = light_of(images, places, self.face.to(images))
            found = pasted(images, places, self.texture.to(images), self.weight.to(images), light)
        return (found * 255).round() / 255

    @property
    def weight(self) -> Tensor:
        """(t, t): which share of each texel is sticker."""
        return F.adaptive_avg_pool2d(self.mask[None].float(), self.texture.shape[-1])[0]

    def print(self, folder: str | Path, paper: str = "a4", width: float = 0.75, *, overwrite: bool = False) -> None:
        """Write `sticker.pdf` and `sticker.png`, for a square thing `width` metres wide; see `printing`.

        paper: a4 or letter. UserError: nothing to print, an unknown paper or width, files that are there.
        """
        from robustlab.physical.printing import printed  # imports matplotlib, which takes a second

        check_folder(Path(folder), Path(folder))
        files = [Path(folder) / name for name in ("sticker.pdf", "sticker.png")]
        for file in files:
            check_output(file, replace=overwrite)
        solid = torch.cat([self.face, torch.ones_like(self.face[:1])])
        title = "to be read as " + ("any other class" if self.target is None else f"class {self.target}")
        for file, data in zip(files, printed(solid, self.texture, self.mask, title, paper, width), strict=True):
            write_output(file, data, replace=overwrite)

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, with its target."""
        write_output(Path(path), self.encoded())

    def encoded(self) -> bytes:
        """The bytes of its safetensors file."""
        tensors = {name: getattr(self, name).contiguous() for name in ("texture", "mask", "face")}
        return save(tensors, {"photo": msgspec.json.encode({"target": self.target}).decode()})

    @classmethod
    def load(cls, path: str | Path) -> PhotoSticker:
        """Read what `save` has written. UserError: it is no sticker for photographs, or damaged."""
        try:
            return cls.decoded(read_bounded(Path(path), STICKER_BYTES), str(path))
        except OSError as error:
            why = error.strerror or error
            raise UserError(f"{path} is no sticker for photographs that robustlab has saved: {why}.") from error

    @classmethod
    def decoded(cls, data: bytes, name: str) -> PhotoSticker:
        """One from the bytes of its file. UserError: they are none, or damaged. name: what an error calls it."""
        try:
            about, tensors = msgspec.convert(head(data, "photo"), dict[str, int | None]), load(data)
            texture, mask, face = (tensors[name] for name in ("texture", "mask", "face"))
            t, p = texture.shape[-1], mask.shape[-1]
            shapes = texture.shape == (3, t, t) and mask.shape == (p, p) and face.shape == (3, p, p)
            kinds = texture.dtype == face.dtype == torch.float32 and mask.dtype == torch.bool
            if not (shapes and kinds and 0 < t <= p <= LARGEST and p % t == 0):
                raise ValueError("its texture, mask or face cannot be used")
            check_range(texture, "its texture")
            check_range(face, "its face")
            return cls(texture, mask, face, about["target"])
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
            why = str(error).removesuffix(".")
            raise UserError(f"{name} is no sticker for photographs that robustlab has saved: {why}.") from error


@dataclass(frozen=True)
class PhotoAttack:
    """RP2 (Eykholt et al. 2018, arXiv:1707.08945) in image space, in printable colours by construction.

    The mean of the loss over photographs and over what another camera would change in them is minimised (expectation
    over transformation, Athalye et al. 2018, arXiv:1707.07397). Each texel is a mixture of printable colours that grows
    sharper with the steps, and is one of them in the end. All of the quadrilateral counts as the thing's face.

    target: a class number or name; None for any other than the image's own. mask: see `masks.MASKS`, the path of a
    picture, or `search`: see `RP2`. batch: images in each step; fewer photographs are taken several times, under
    different cameras. camera: `STILL` fits the photographs as they are.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
    >>> corners = torch.tensor([[4, 4], [12, 4], [12, 12], [4, 12]])
    >>> attack = PhotoAttack(target=1, mask="bars", steps=2, batch=4)
    >>> attack.fit(net, torch.rand(3, 3, 16, 16), corners, torch.zeros(3)).texture.shape
    torch.Size([3, 32, 32])
    """

    target: int | str | None = None
    mask: str = SEARCH
    share: float = 0.20
    pieces: int = 6
    blocks: int = 16  # of a side, in the search
    steps: int = 300
    batch: int = 32
    lr: float = 0.3
    variation: float = 0.02  # weight of the total variation
    sparse: float = 0.5  # weight of the L1 penalty, in the search
    texels: int = 32
    camera: Camera = Camera()

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "texels", "blocks", "pieces"):
            check_whole(name, getattr(self, name), 1)
        for name in ("texels", "blocks"):
            if FACE % getattr(self, name):
                raise UserError(f"{name} must divide {FACE}, got {getattr(self, name)}: 16, 32 or 64 are usual.")
        if not 0 < self.lr < float("inf"):
            raise UserError(f"lr must be above 0 and finite, got {self.lr:g}.")
        if not 0 < self.share <= 1:
            raise UserError(f"share must be above 0 and at most 1, got {self.share:g}.")

    @property
    def fits(self) -> int:
        """How often all steps are taken: a search fits the whole face first."""
        return 2 if self.mask == SEARCH else 1

    def fit(
        self,
        classifier: Callable[[Tensor], Tensor],
        images: Tensor,
        corners: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        state: State | None = None,
        watch: Watch = unwatched,
    ) -> PhotoSticker:
        """The fitted sticker. classifier: images (N, 3, H, W) in [0, 1] -> logits (N, K).

        images, labels: the photographs and their classes; those of the target class are left out. corners: (4, 2) or
        (N, 4, 2), see `photo_view`. ids: (N,); left out, they come from the pixels. classes: the names of the outputs,
        for a target by name; left out, those of the classifier. state: of a fit that was stopped, as `watch` got it;
        the result is the same as of one that was not. watch: is told each step, its loss and the state after it.
        """
        _check(images)
        target = self.number(classes or getattr(classifier, "classes", None) or ())
        given = labels_of(labels, len(images)).to(images.device)
        known = pixel_ids(images) if ids is None else ids.to(images.device)
        other = (given != (-1 if target is None else target)).nonzero()[:, 0]
        if not len(other):
            raise UserError(f"All photographs are of the target class {self.target!r}: a sticker is fitted on others.")
        places = corners_of(corners, images)
        parts = (rectified(images[part], places[part], FACE).sum(0) for part in other.split(64))
        colours = torch.stack(list(parts)).sum(0).div(len(other)).clamp(0, 1)
        light = light_of(images[other], places[other], colours)
        face = torch.cat([colours, torch.ones_like(colours[:1])]).cpu()
        own = images[other], places[other], light, given[other], known[other]
        fit = _Fit(self, classifier, *own, face, target, seed)
        with undisturbed(classifier), torch.enable_grad():
            if self.mask != SEARCH:
                mask = mask_of(self.mask, face)
                logits = fit.run(mask, state, watch, sparse=0.0, first=0)
            else:
                if state is None or "mask" not in state:
                    logits = fit.run(torch.ones(FACE, FACE, dtype=torch.bool), state, watch, self.sparse, first=0)
                    step = FACE // self.texels
                    large = hard(logits, PRINTABLE).repeat_interleave(step, 1).repeat_interleave(step, 2)
                    change = (large - face[:3]).abs().sum(0)
                    mask, state = best_blocks(change, face, self.share, self.blocks, self.pieces), None
                else:
                    mask = state["mask"].cpu()
                logits = fit.run(mask, state, watch, sparse=0.0, first=self.steps)
        return PhotoSticker(hard(logits, PRINTABLE), mask, face[:3].contiguous(), target)

    def number(self, classes: Sequence[str]) -> int | None:
        """The class number of the target; None for any other. UserError: there is no such class."""
        return class_number(self.target, classes)


@dataclass(frozen=True)
class _Fit:
    """What all steps of a fit share. images: (N, 3, H, W). corners: (N, 4, 2). light, labels, ids: (N,)."""

    attack: PhotoAttack
    classifier: Callable[[Tensor], Tensor]
    images: Tensor
    corners: Tensor
    light: Tensor
    labels: Tensor
    ids: Tensor
    face: Tensor
    target: int | None
    seed: int

    def run(self, mask: Tensor, state: State | None, watch: Watch, sparse: float, first: int) -> Tensor:
        """(K, t, t) logits over the palette, on the CPU, after all steps."""
        attack, device = self.attack, self.images.device
        t, palette = attack.texels, PRINTABLE.to(self.images)
        weight = F.adaptive_avg_pool2d(mask[None].float(), t)[0].to(device)
        small = F.adaptive_avg_pool2d(self.face[None, :3], t)[0].to(device)
        z = (-10 if sparse else -2) * torch.cdist(small.permute(1, 2, 0).reshape(-1, 3), palette).T.reshape(-1, t, t)
        moving = {"z": z, "m": torch.zeros_like(z), "v": torch.zeros_like(z), "step": torch.tensor(0)}
        if state is not None:
            moving = {name: state[name].to(value.device, copy=True) for name, value in moving.items()}
        for step in range(int(moving["step"]), attack.steps):
            z = moving["z"].requires_grad_(True)
            texture = mixed(z, palette, SHARP ** (step / attack.steps))
            loss = self._loss(texture, weight, first + step) + attack.variation * total_variation(texture, weight)
            if sparse:
                loss = loss + sparse * ((texture - small).abs().sum(0) * weight).sum() / weight.sum()
            (gradient,) = torch.autograd.grad(loss, z)
            moving = adam(moving, gradient, attack.lr)
            watch(first + step, float(loss.detach()), moving | ({"mask": mask} if first else {}))
        return moving["z"].detach().cpu()

    def _loss(self, texture: Tensor, weight: Tensor, step: int) -> Tensor:
        """The cross-entropy to the target, or less that to the label, up to 10 an image, over one batch."""
        order = uniform(keyed(self.seed, self.ids, "batch", step), (1,))[:, 0].argsort(stable=True)
        turn = torch.arange(self.attack.batch, device=order.device)
        index = order[turn % len(order)]
        key = keyed(self.seed, self.ids[index], "fit", step, turn // len(order))
        sticker = texture, weight, self.light[index]
        x = viewed(self.images[index], self.corners[index], self.attack.camera, key, sticker)
        logits = ask(self.classifier, x).float()
        if not logits.requires_grad:
            raise NoGradientError(NO_GRADIENT)
        y = self.labels[index] if self.target is None else torch.full_like(index, self.target)
        check_classes(int(y.min()), int(y.max()), logits.shape[1], "labels" if self.target is None else "the target")
        if self.target is None:
            return -F.cross_entropy(logits, y, reduction="none").clamp(max=10).mean()
        return F.cross_entropy(logits, y)


def _check(images: Any) -> None:
    check_images(images)
    check_range(images)
    if images.shape[1] != 3:
        raise UserError(f"A sticker is printed in colours: the photographs need 3 channels, got {images.shape[1]}.")
