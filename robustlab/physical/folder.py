"""The run folder of a sticker or a patch: what was fitted, what was measured, and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from robustlab.base.errors import UserError
from robustlab.base.files import Kind, OutputFolder, settled, slug
from robustlab.physical.patch import Patch
from robustlab.physical.photo import PhotoSticker
from robustlab.physical.sticker import Sticker
from robustlab.runs import PartsFolder
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


class StickerRun(PartsFolder):
    """A run that fits and judges stickers or a patch. One process holds it at a time, others write parts beside it."""

    @classmethod
    def create(
        cls,
        folder: Path,
        config: Mapping[str, Any],
        about: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        say: Callable[[str], None],
    ) -> Self:
        """Begin in `folder`, or go on with the run that is there; see `JobFolder.opened`."""
        first = {"name": settled(folder).name, "warnings": [], "times": {"started": _now()}, **about}
        return cls.opened(folder, STICKERS, config, first, resume=resume, overwrite=overwrite, say=say)

    @classmethod
    def beside(cls, folder: Path) -> Self:
        """A second process of the same job."""
        output = OutputFolder.beside(folder, STICKERS)
        return cls(output, dict(output.info or {}))

    def write_state(self, name: str, data: bytes) -> None:
        """Store the state of a fit that goes on (the bytes of a safetensors file), until `finish`."""
        self._write(f"parts/{slug(name)}.safetensors", data)

    def state(self, name: str) -> bytes | None:
        """What `write_state` stored last; None where it is not there."""
        return self._output.read(f"parts/{slug(name)}.safetensors")

    def write_sticker(self, name: str, sticker: Sticker) -> None:
        """Store a finished sticker under stickers/, as `Sticker.save` would."""
        self._write(f"stickers/{slug(name)}.safetensors", sticker.encoded())

    def sticker(self, name: str) -> Sticker:
        """A sticker of this run. UserError: it is not there, or damaged."""
        return Sticker.decoded(*self._fitted(f"stickers/{slug(name)}.safetensors"))

    def write_patch(self, name: str, patch: Patch) -> None:
        """Store a finished patch under patches/, as `Patch.save` would."""
        self._write(f"patches/{slug(name)}.safetensors", patch.encoded())

    def patch(self, name: str) -> Patch:
        """A patch of this run. UserError: it is not there, or damaged."""
        return Patch.decoded(*self._fitted(f"patches/{slug(name)}.safetensors"))

    def write_photo_sticker(self, name: str, sticker: PhotoSticker) -> None:
        """Store a finished sticker under stickers/, as `PhotoSticker.save` would."""
        self._write(f"stickers/{slug(name)}.safetensors", sticker.encoded())

    def photo_sticker(self, name: str) -> PhotoSticker:
        """A sticker for photographs of this run. UserError: it is not there, or damaged."""
        return PhotoSticker.decoded(*self._fitted(f"stickers/{slug(name)}.safetensors"))

    def _fitted(self, file: str) -> tuple[bytes, str]:
        if (data := self._output.read(file)) is None:
            raise UserError(f"{self.folder / file} is missing. Run again.")
        return data, str(self.folder / file)

    def finish(self, sections: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> None:
        """Write run.json as it stays, and remove the parts."""
        self.info.update(fields, sections=list(sections), finished=True)
        self.info["times"] = {**self.info["times"], "finished": _now()}
        keep = {name for folder in ("images", "stickers", "patches") for name in self._output.names(folder)}
        if self._output.free(PAGE):
            keep.add(PAGE)
        self._output.finish(self.info, keep)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
