"""A sticker: a printable texture inside a mask on the face of a sign."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.files import check_output, write_output
from robustlab.base.files.single import check_folder
from robustlab.base.reading import read_bounded
from robustlab.physical.fitted import head
from robustlab.worlds.road_signs import CLASSES, Scenes, faces, prepare, render
from robustlab.worlds.road_signs.scenes import WIDTH

LARGEST = 2048  # pixels across a face

STICKER_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Sticker:
    """What is printed, and put on the sign.

    texture: (3, t, t) sRGB in [0, 1], stretched over the whole face, t a divisor of P. mask: (P, P) bool. source: the
    class of the sign. target: the class that it is to be read as; empty for any other.

    >>> sticker = Sticker(torch.zeros(3, 64, 64), torch.ones(256, 256, dtype=torch.bool), "stop", "speed limit 45")
    >>> sticker.on(faces()[0]).shape
    torch.Size([4, 256, 256])
    """

    texture: Tensor
    mask: Tensor
    source: str
    target: str = ""

    @property
    def face(self) -> Tensor:
        """(4, P, P): the bare face of its sign."""
        return faces(self.mask.shape[-1])[CLASSES.index(self.source)]

    def on(self, face: Tensor) -> Tensor:
        """The face (4, P, P) with the sticker on it; alpha stays, since a sticker does not reach over the edge."""
        return stuck(self.texture, self.mask, face)

    def render(self, scenes: Scenes, size: int = 32) -> Tensor:
        """(B, 3, size, size): the sign with the sticker in each scene, rounded to 8 bits as a camera's file."""
        with torch.no_grad():
            return seen(self.on(self.face), scenes, size)

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, with source and target."""
        write_output(Path(path), self.encoded())

    def encoded(self) -> bytes:
        """The bytes of its safetensors file."""
        about = msgspec.json.encode({"source": self.source, "target": self.target}).decode()
        # one entry of metadata: the order of several is another one each time
        return save({"texture": self.texture.contiguous(), "mask": self.mask.contiguous()}, {"sticker": about})

    def print(self, folder: str | Path, paper: str = "a4", width: float = WIDTH, *, overwrite: bool = False) -> None:
        """Write `sticker.pdf` and `sticker.png`, at its real size on a sign `width` metres wide; see `printing`.

        paper: a4 or letter. UserError: nothing to print, an unknown paper or width, files that are there.
        """
        from robustlab.physical.printing import printed  # imports matplotlib, which takes a second

        check_folder(Path(folder), Path(folder))
        files = [Path(folder) / name for name in ("sticker.pdf", "sticker.png")]
        for file in files:
            check_output(file, replace=overwrite)
        title = f"{self.source}, to be read as {self.target or 'any other sign'}"
        for file, data in zip(files, printed(self.face, self.texture, self.mask, title, paper, width), strict=True):
            write_output(file, data, replace=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Sticker:
        """Read what `save` has written. UserError: it is no sticker, or damaged."""
        try:
            return cls.decoded(read_bounded(Path(path), STICKER_BYTES), str(path))
        except OSError as error:
            raise UserError(f"{path} is no sticker that robustlab has saved: {error.strerror or error}.") from error

    @classmethod
    def decoded(cls, data: bytes, name: str) -> Sticker:
        """A sticker from the bytes of its file. UserError: they are none, or damaged. name: what an error calls it."""
        try:
            tensors, known = load(data), head(data, "sticker")
            about = {key: str(known[key]) for key in ("source", "target")}
            texture, mask = tensors["texture"], tensors["mask"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            why = str(error).removesuffix(".")
            raise UserError(f"{name} is no sticker that robustlab has saved: {why}.") from error
        signs = about["source"] in CLASSES and about["target"] in ("", *CLASSES)
        p, t = mask.shape[-1] if mask.ndim else 0, texture.shape[-1] if texture.ndim else 0
        shapes = mask.shape == (p, p) and texture.shape == (3, t, t) and 0 < p <= LARGEST and 0 < t and p % t == 0
        kinds = mask.dtype == torch.bool and texture.dtype == torch.float32
        if not (signs and shapes and kinds and bool(((texture >= 0) & (texture <= 1)).all())):
            raise UserError(f"{name} is no sticker that robustlab has saved: sign, texture or mask cannot be used.")
        return cls(texture, mask, about["source"], about.get("target", ""))


def stuck(texture: Tensor, mask: Tensor, face: Tensor) -> Tensor:
    """The face (4, P, P) with a texture (3, t, t) where the mask (P, P) is; differentiable in the texture."""
    step = face.shape[-1] // texture.shape[-1]
    large = texture.repeat_interleave(step, 1).repeat_interleave(step, 2)
    colours = torch.where(mask, large, face[:3])
    return torch.cat([colours, face[3:]])


def seen(face: Tensor, scenes: Scenes, size: int) -> Tensor:
    """(B, 3, size, size): one face (4, P, P) in scenes, rounded to k / 255."""
    prepared = prepare(face[None], size)
    parts = [render(prepared, scenes.take(i)) for i in torch.arange(len(scenes)).split(128)]
    return (torch.cat(parts) * 255).round() / 255
