"""The run folder of a sticker or a patch: what was fitted, what was measured, and its pictures."""

from __future__ import annotations

from robustlab.base.files import Kind, slug
from robustlab.physical.patch import Patch
from robustlab.physical.photo import PhotoSticker
from robustlab.physical.sticker import Sticker
from robustlab.runs import StudiedRun
from robustlab.runs.manifest import PAGE

STICKERS = Kind(
    name="physical",
    files=(PAGE,),
    folders={
        "parts": (".json", ".safetensors"),
        "images": (".png",),
        "stickers": (".safetensors",),
        "patches": (".safetensors",),
    },
    again=(PAGE,),
)


class StickerRun(StudiedRun):
    """A run that fits and judges stickers or a patch."""

    files = STICKERS

    def write_sticker(self, name: str, sticker: Sticker) -> None:
        """Store a finished sticker under stickers/, as `Sticker.save` would."""
        self.write_file(_file("stickers", name), sticker.encoded())

    def sticker(self, name: str) -> Sticker:
        """A sticker of this run. UserError: it is not there, or damaged."""
        return Sticker.decoded(*self._fitted(_file("stickers", name)))

    def write_patch(self, name: str, patch: Patch) -> None:
        """Store a finished patch under patches/, as `Patch.save` would."""
        self.write_file(_file("patches", name), patch.encoded())

    def patch(self, name: str) -> Patch:
        """A patch of this run. UserError: it is not there, or damaged."""
        return Patch.decoded(*self._fitted(_file("patches", name)))

    def write_photo_sticker(self, name: str, sticker: PhotoSticker) -> None:
        """Store a finished sticker under stickers/, as `PhotoSticker.save` would."""
        self.write_file(_file("stickers", name), sticker.encoded())

    def photo_sticker(self, name: str) -> PhotoSticker:
        """A sticker for photographs of this run. UserError: it is not there, or damaged."""
        return PhotoSticker.decoded(*self._fitted(_file("stickers", name)))

    def _fitted(self, file: str) -> tuple[bytes, str]:
        return self.read_file(file), str(self.folder / file)


def _file(folder: str, name: str) -> str:
    return f"{folder}/{slug(name)}.safetensors"
