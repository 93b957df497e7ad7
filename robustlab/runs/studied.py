"""The run folder of studies that are no attack on images: their parts, their states, their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from robustlab.base.errors import UserError
from robustlab.base.files import Kind, OutputFolder, settled, slug
from robustlab.runs.folder import PartsFolder
from robustlab.runs.manifest import PAGE


class StudiedRun(PartsFolder):
    """One process holds it at a time, others write parts beside it. A subclass says of which `files` it is."""

    files: ClassVar[Kind]

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
        return cls.opened(folder, cls.files, config, first, resume=resume, overwrite=overwrite, say=say)

    @classmethod
    def beside(cls, folder: Path) -> Self:
        """A second process of the same job."""
        output = OutputFolder.beside(folder, cls.files)
        return cls(output, dict(output.info or {}))

    def write_state(self, name: str, data: bytes) -> None:
        """Store the state of work that goes on (the bytes of a safetensors file), until `finish`."""
        self._write(f"parts/{slug(name)}.safetensors", data)

    def state(self, name: str) -> bytes | None:
        """What `write_state` stored last; None where it is not there."""
        return self._output.read(f"parts/{slug(name)}.safetensors")

    def write_file(self, name: str, data: bytes) -> None:
        """Store a file `folder/leaf` that stays."""
        self._write(name, data)

    def read_file(self, name: str) -> bytes:
        """The content of a file that `write_file` stored. UserError: it is not there."""
        if (data := self._output.read(name)) is None:
            raise UserError(f"{self.folder / name} is missing. Run again.")
        return data

    def finish(self, sections: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> None:
        """Write run.json as it stays, and remove the parts."""
        self.info.update(fields, sections=list(sections), finished=True)
        self.info["times"] = {**self.info["times"], "finished": _now()}
        keep = {name for folder in self.files.folders if folder != "parts" for name in self._output.names(folder)}
        if self._output.free(PAGE):
            keep.add(PAGE)
        self._output.finish(self.info, keep)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
