"""Images that stay on the disk until they are looked at, so that a set may be larger than memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from robustlab.base.errors import RunError, spelled
from robustlab.base.reading import read_bounded
from robustlab.data.decoding import FILE_BYTES, decode, fit, to_tensor


def default_workers() -> int:
    """Threads that decode when nobody says how many: as many as there are processors, at most 4."""
    return min(4, os.cpu_count() or 1)


class LazyImages:
    """Like a tensor (N, C, H, W) of images in [0, 1], but the files are decoded again whenever it is indexed.

    files: one an image. shape: (C, H, W), C 1 or 3; every image is scaled and cropped to it. workers: threads that
    decode; Pillow lets go of Python's lock while it does. An index is a number, a slice, or a tensor of positions or
    of truth values; what comes back is a tensor in memory.

    >>> import tempfile
    >>> from PIL import Image
    >>> file = Path(tempfile.mkdtemp()) / "red.png"
    >>> Image.new("RGB", (8, 4), (255, 0, 0)).save(file)
    >>> images = LazyImages([file, file], (3, 4, 4))
    >>> images.shape, images[1].shape, images[:1].mean((0, 2, 3)).tolist()
    (torch.Size([2, 3, 4, 4]), torch.Size([3, 4, 4]), [1.0, 0.0, 0.0])
    """

    def __init__(self, files: Sequence[Path], shape: tuple[int, int, int], workers: int | None = None) -> None:
        self.files, self.workers = list(files), workers or default_workers()
        self.shape = torch.Size((len(self.files), *shape))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        if isinstance(index, int):
            return self._read(self.files[index])
        chosen = self.only(index)
        found = torch.empty(chosen.shape)
        with ThreadPoolExecutor(self.workers) as pool:
            for row, image in enumerate(pool.map(self._read, chosen.files)):
                found[row] = image
        return found

    def only(self, index: slice | Tensor) -> LazyImages:
        """The images at `index`, still on the disk."""
        positions = torch.arange(len(self))[index.cpu() if isinstance(index, Tensor) else index].tolist()
        return LazyImages([self.files[i] for i in positions], self._each, self.workers)

    @property
    def _each(self) -> tuple[int, int, int]:
        _, channels, high, wide = self.shape
        return channels, high, wide

    def _read(self, file: Path) -> Tensor:
        channels, *size = self._each
        try:
            image = decode(read_bounded(file, FILE_BYTES))
        except MemoryError:
            raise
        except Exception as error:  # Pillow's readers raise many kinds; all files were read once before the run
            raise RunError(
                f"{file} could be read before and cannot be read now ({type(error).__name__}: {error}). Put it back,"
                f" and go on with {spelled('resume', True)}."
            ) from error
        return to_tensor(fit(image, (size[0], size[1])), channels)
