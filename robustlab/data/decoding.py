"""From an image file's bytes to pixels: 8 bits, grey or RGB, upright, and of one size."""

from __future__ import annotations

import io
from contextlib import nullcontext
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"))
FILE_BYTES = 256 << 20  # of an image file
PIXELS = 64 << 20  # of an image; a camera has some 50 million
_MANY = 4 << 20  # more pixels than this are decoded one image at a time: each takes up to 20 bytes while it is
_ONE = Lock()
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")  # whatever a file is called; no EPS, which is code
_GREY = ("1", "L", "LA", "I")  # and I;16 in its byte orders


def decode(content: bytes) -> Image.Image:
    """The image in mode L (grey) or RGB, turned as its EXIF orientation says.

    16 bits become 8 (rounded); a palette becomes its colours; what is transparent lies on black; of an animation, the
    first frame. A file counts as grey by its format (a palette: by its colours), not by the pixels of an RGB image.
    Raises what Pillow raises on files that it cannot read, and ValueError for values of 32 bits.
    """
    with Image.open(io.BytesIO(content), formats=_FORMATS) as file:
        short, long = sorted(file.size)
        if short * long > PIXELS:
            raise ValueError(f"it has {short * long:,} pixels; at most {PIXELS:,} are read")
        if long > max(2048, 200 * short):  # scaled until its short side fits, it would be far larger
            raise ValueError(f"it is {long:,} pixels long and {short:,} wide")
        with _ONE if short * long > _MANY else nullcontext():
            return _decoded(file)


def _decoded(file: Image.Image) -> Image.Image:
    file.load()
    kind, format = file.mode, file.format
    # Pillow reads 16-bit PNG and PGM files into the 32 bits of mode I; in other files these are real
    if kind == "F" or (kind == "I" and format not in ("PNG", "PPM")):
        raise ValueError("its values have 32 bits; 8 or 16 were expected")
    image = ImageOps.exif_transpose(file)
    if kind.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        values /= 257  # no whole number is so near to a half that float32 would round it to the other side
        return Image.fromarray(values.round(out=values).clip(0, 255, out=values).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    colours = image.convert("RGB")
    grey = _equal_channels(colours) if kind in ("P", "PA") else kind in _GREY
    return colours.convert("L") if grey else colours


def _equal_channels(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return bool((pixels == pixels[..., :1]).all())


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scaled until it just covers `size` (height, width), then cropped around its centre; the aspect ratio stays.

    Bilinear and antialiased, as torchvision's `Resize(n)` and `CenterCrop(n)` do it.

    >>> fit(Image.new("L", (100, 50)), (20, 30)).size
    (30, 20)
    """
    high, wide = size
    if image.width * high >= image.height * wide:
        scaled = (max(wide, int(high * image.width / image.height)), high)
    else:
        scaled = (wide, max(high, int(wide * image.height / image.width)))
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((image.width - wide) / 2), round((image.height - high) / 2)
    return image.crop((left, top, left + wide, top + high))


def to_tensor(image: Image.Image, channels: int) -> Tensor:
    """(channels, H, W) float32 in [0, 1]. channels: 1 (luma of a colour image) or 3."""
    pixels = torch.from_numpy(np.array(image.convert("L" if channels == 1 else "RGB")))
    return pixels.view(image.height, image.width, channels).permute(2, 0, 1).to(torch.float32).div_(255)
