"""Which part of a photograph a model's own preprocessing shows it, where that is another part than here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor

from robustlab.base.words import listed

_SIZES = ((256, 256), (256, 128))  # width and height of the images that are shown
_SAME = 0.03  # of a side: what 8 bits and small images leave open


def framing(show: Callable[[Image.Image], Tensor], shape: tuple[int, int, int]) -> list[str]:
    """A note about the part that the model sees; none where it is the part that is seen here.

    Here an image is scaled until it just covers the shape, then cropped around its centre (`robustlab.data.decoding`).
    Other rules crop more, or stretch. Found with images that grow brighter from left to right, or from top to bottom.
    show: the preprocessing, from an image of Pillow to pixels in [0, 1] (C, H, W). shape: (C, H, W) of these.

    >>> from robustlab.data.decoding import fit, to_tensor
    >>> framing(lambda image: to_tensor(fit(image, (32, 32)), 3), (3, 32, 32))
    []
    >>> framing(lambda image: to_tensor(image.resize((32, 32)), 3), (3, 32, 32))[0][:91]
    'Its own preprocessing shows it another part of an image: of 256 x 128 pixels 100 % x 100 % '
    """
    channels, high, wide = shape
    found, more = [], (1.0, 1.0)
    for width, height in _SIZES:
        scale = max(wide / width, high / height)
        here = wide / scale / width, high / scale / height
        across = _ramp(width, height, channels)
        down = _ramp(height, width, channels).transpose(Image.Transpose.TRANSPOSE)
        there = _share(show(across)[0, high // 2], width), _share(show(down)[0, :, wide // 2], height)
        before, more = more, (there[0] / here[0], there[1] / here[1])
        if not _near(more, (1.0, 1.0)) and not _near(more, before):  # what was already said is enough
            its, ours = (" x ".join(f"{100 * each:.0f} %" for each in sides) for sides in (there, here))
            found.append(f"of {width} x {height} pixels {its} (here {ours})")
    if not found:
        return []
    return [
        f"Its own preprocessing shows it another part of an image: {listed(found)}. Its accuracy with that can be"
        " another than here."
    ]


def _near(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return all(abs(x - y) <= _SAME for x, y in zip(a, b, strict=True))


def _ramp(width: int, height: int, channels: int) -> Image.Image:
    """Black at the left, white at the right."""
    row = np.linspace(0, 255, width).round().astype(np.uint8)
    image = Image.fromarray(np.tile(row, (height, 1)))
    return image if channels == 1 else image.convert("RGB")


def _share(line: Tensor, side: int) -> float:
    """How much of a side a line of pixels shows, by how fast it grows brighter, without the ends."""
    first, last = len(line) // 8, len(line) - 1 - len(line) // 8
    slope = float(line[last] - line[first]) / max(last - first, 1)
    return abs(slope) * len(line) * (side - 1) / side
