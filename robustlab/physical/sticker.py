"""A sticker: a printable texture inside a mask on the face of a sign."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.files import write_output
from robustlab.base.reading import check_safetensors
from robustlab.worlds.road_signs import CLASSES, Scenes, faces, prepare, render


@dataclass(frozen=True, eq=False)
class Sticker:
    """What is printed and stuck on.

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
        about = {"source": self.source, "target": self.target, "kind": "robustlab sticker"}
        write_output(Path(path), save({"texture": self.texture.contiguous(), "mask": self.mask}, about))

    @classmethod
    def load(cls, path: str | Path) -> Sticker:
        """Read what `save` has written. UserError: it is no sticker, or damaged."""
        try:
            check_safetensors(Path(path).name, folder=Path(path).parent)
            with safe_open(str(path), "pt") as file:
                about = file.metadata() or {}
                texture, mask = file.get_tensor("texture"), file.get_tensor("mask")
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path} is no sticker that robustlab has saved: {error}.") from error
        if about.get("source") not in CLASSES or texture.ndim != 3 or mask.ndim != 2:
            raise UserError(f"{path} is no sticker that robustlab has saved: source, texture or mask is missing.")
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
