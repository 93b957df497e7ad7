"""Image files that somebody names one by one, as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.reading import read_bounded
from robustlab.base.words import first_line
from robustlab.data.decoding import FILE_BYTES, decode, fit, to_tensor


def own_images(files: Sequence[Path], size: tuple[int, int] | None, channels: int | None) -> Tensor:
    """(N, C, H, W) in [0, 1]. size: height and width to scale to and crop (None: all have one size already).

    channels: 1 or 3 (None: 3 unless all are grey). UserError: a file that is not there, or is no image, or several
    sizes without `size`.
    """
    images = [_read(file) for file in files]
    sizes = {image.size for image in images}
    if size is None and len(sizes) > 1:
        raise UserError("The images have different sizes. Give the one that the model expects: --size 224.")
    wide, high = images[0].size
    channels = channels or (1 if all(image.mode == "L" for image in images) else 3)
    return torch.stack([to_tensor(fit(image, size or (high, wide)), channels) for image in images])


def _read(file: Path) -> Image.Image:
    if not file.is_file():
        raise UserError(f"There is no image file {str(file)!r}. Give files, such as photo.png; of a folder, its files.")
    try:
        return decode(read_bounded(file, FILE_BYTES))
    except UserError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders raise
        unknown = isinstance(error, UnidentifiedImageError)  # its message is about a buffer in memory
        reason = "its content is of no known format" if unknown else first_line(error)
        raise UserError(f"{str(file)!r} is no image that can be read: {reason}. Give PNG or JPEG.") from None
