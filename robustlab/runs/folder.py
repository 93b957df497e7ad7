"""The run folder: units written one by one, resume, merge, and reading back.

    run.json        what was run and what came out; `finished` is false until the last unit is merged
    data.jsonl      once per sample        samples.jsonl   one line per (model, attack, eps, id)
    parts/          one file per finished unit, until they are merged into samples.jsonl, and the adversarials of its
                    kept examples as floats, until heatmaps are drawn; other work that is done piece by piece
    images/         kept examples as PNG   adversarial/    stored adversarials, one file per unit
    .files          until it is finished: the names of its files; then run.json has them
    .new/           a run that is to replace this one, until it is finished

A process may be killed at any moment: every file appears under its name only when it is whole, and a unit whose file is
not whole is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from robustlab.base.files import JobFolder, OutputFolder, settled, slug
from robustlab.base.files.changes import changes, short
from robustlab.base.reading import decoded
from robustlab.runs.aggregates import Line, aggregate
from robustlab.runs.examples import chosen_images, with_files
from robustlab.runs.manifest import PAGE, RUN
from robustlab.runs.stored import check_stored
from robustlab.runs.units import UNIT_BYTES, encode_unit, in_order, read_unit, summed, unit_name

Json = dict[str, Any]
_encode = msgspec.json.encode


class PartsFolder(JobFolder):
    """A folder of work that is done part by part: what is finished stays under its name until all is."""

    def write_part(self, name: str, value: Mapping[str, Any]) -> None:
        """Store a piece of finished work, such as a row of a matrix, until `finish`."""
        self._write(f"parts/{slug(name)}.json", _encode(value))

    def part(self, name: str) -> Json | None:
        """What `write_part` stored under this name; None where it is not there or not whole."""
        try:
            return dict(decoded(self._output.read(f"parts/{slug(name)}.json", UNIT_BYTES) or b""))
        except (TypeError, ValueError):
            return None

    def write_image(self, name: str, png: bytes) -> None:
        """Store a picture under images/. Writing it twice is harmless."""
        self._write(f"images/{name}", png, sync=False)

    def _write(self, name: str, data: bytes, sync: bool = True) -> None:
        self._output.write(name, data, sync=sync)


class Run(PartsFolder):
    """A run folder that is being written. One process holds it at a time; a context manager lets go of it.

    >>> import tempfile
    >>> config = {"models": [{"name": "m"}], "attacks": [], "threat": {"norm": "linf", "eps": 0.1}, "seed": 0}
    >>> line = {"model": "m", "attack": "clean", "eps": 0, "id": 0, "label": 1, "clean": 1}
    >>> with Run.create(Path(tempfile.mkdtemp()) / "run", config, [{"id": 0, "label": 1}]) as run:
    ...     run.write_unit("m", "clean", 0, 0, [line], {"seconds": 0.5})
    ...     run.finish()["models"][0]["clean_accuracy"]["n"]
    1
    """

    def __init__(self, output: OutputFolder, info: Json) -> None:
        super().__init__(output, info)
        self._whole: set[str] = set()

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: Mapping[str, Any],
        data_lines: Iterable[Mapping[str, Any]],
        *,
        about: Mapping[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> Self:
        """Start a run in `folder`, or go on with the one that is there (`resume`; a missing or empty folder starts).

        config: everything that decides outcomes, and nothing else; it is hashed. It has at least `models` (tables
        with a unique `name`), `attacks` (tables with a unique `name`, in the suite's order), `threat` (`norm`, `eps`),
        `seed`, and may have `curve` (`attack`, `eps`: list, and `from`: "distances" where the attack was not run at
        each eps, but on every sample without a budget) and `keep` (kept images a stratum, default 1).
        about: the rest of run.json, not hashed: kind, name, command, operational, versions, device, git, data,
        models, warnings. A resumed run keeps what it was started with, and warns where the environment differs.
        data_lines: one mapping for each sample, in order: id, label, hash, factors.

        UserError: the folder holds something else, is in use, is there without resume or overwrite, or was started
        with another configuration. With `overwrite` the run that is there stays until this one is finished.
        """
        folder, header = Path(folder), {"warnings": [], "times": {"started": _now()}, **_plain(about or {})}
        first = {"name": settled(folder).name, "command": "", **header}

        def ready(run: Self) -> None:
            if not run.finished:
                run._warn_of_changes(header)
                if not run._output.has("data.jsonl"):
                    run._write("data.jsonl", b"".join(_encode(line) + b"\n" for line in data_lines))

        return cls.opened(
            folder, RUN, config, first, resume=resume, overwrite=overwrite, say=say, check=check_stored, ready=ready
        )

    @classmethod
    def beside(cls, folder: str | Path) -> Self:
        """A second process of the same job: it writes units of a run that the first one has created and holds."""
        output = OutputFolder.beside(Path(folder), RUN)
        return cls(output, dict(output.info or {}))

    def has_unit(self, model: str, attack: str, eps: float, chunk: int) -> bool:
        """Is this unit's file there and whole?"""
        name = unit_name(model, attack, eps, chunk)
        if name not in self._whole and self._unit(name):
            self._whole.add(name)
        return name in self._whole

    def write_unit(
        self,
        model: str,
        attack: str,
        eps: float,
        chunk: int,
        lines: Sequence[Line | Mapping[str, Any]],
        info: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a finished unit. Write its images first: a unit that is there is not done again.

        lines: the fields of `Line`; those left out have its defaults. info: numbers about the whole unit (`seconds`,
        `unverified` ...), which the merge adds up for each (model, attack, eps).
        """
        rows = [msgspec.json.decode(_encode(line), type=Line) for line in lines]  # as it will be read: NaN is null
        name = unit_name(model, attack, eps, chunk)
        self._write(f"parts/{name}.jsonl", encode_unit(model, attack, eps, chunk, rows, dict(info or {})))
        self._whole.add(name)

    def unit_lines(self, model: str, attack: str, eps: float, chunk: int) -> list[Line]:
        """The lines of a finished unit, sorted by id; none where it is not finished."""
        unit = self._unit(unit_name(model, attack, eps, chunk))
        return unit[1] if unit else []

    def write_kept(self, model: str, attack: str, eps: float, chunk: int, data: bytes) -> None:
        """Store the adversarials of a unit's kept examples (the bytes of a safetensors file) until `finish`."""
        self._write(f"parts/{unit_name(model, attack, eps, chunk)}.safetensors", data)

    def kept(self, model: str, attack: str, eps: float) -> Iterator[bytes]:
        """What `write_kept` stored for all chunks, in their order."""
        stem = f"parts/{unit_name(model, attack, eps, 0).removesuffix('00000')}"
        for name in self._output.names("parts"):
            if name.startswith(stem) and name.endswith(".safetensors") and (data := self._output.read(name)):
                yield data

    def write_adversarial(self, model: str, attack: str, eps: float, chunk: int, data: bytes) -> None:
        """Store a unit's adversarial images (the bytes of a safetensors file)."""
        self._write(f"adversarial/{unit_name(model, attack, eps, chunk)}.safetensors", data)

    def units(self) -> tuple[list[Json], list[Line]]:
        """The heads and the lines of all finished units.

        They are ordered by model and attack as in the configuration, eps, chunk and id, so that the same outcomes give
        the same bytes.
        """
        names = (name for name in self._output.names("parts") if name.endswith(".jsonl"))
        units = [unit for name in names if (unit := self._unit(Path(name).stem))]
        lines_of = {unit_name(**head["unit"]): lines for head, lines in units}
        heads = in_order(self.info["config"], (head for head, _ in units))
        return heads, [line for head in heads for line in lines_of[unit_name(**head["unit"])]]

    def chosen(self, rows: Sequence[Line] | None = None) -> list[Json]:
        """run.json's `images`: the kept examples of the finished units, by `examples.chosen_images`."""
        return with_files(
            chosen_images(self.info["config"], self.units()[1] if rows is None else rows), self._output.has
        )

    def finish(
        self,
        *,
        sections: Sequence[Mapping[str, Any]] = (),
        fields: Mapping[str, Any] | None = None,
    ) -> Json:
        """Merge the units, aggregate, prune the kept images and write run.json. Returns the aggregates.

        fields: more of run.json, `times` to be added to its own; `images`, where something was added to `chosen`.
        """
        if self.finished:
            return dict(self.info["aggregates"])
        config, more = self.info["config"], _plain(dict(fields or {}))
        heads, rows = self.units()
        self._write("samples.jsonl", b"".join(_encode(line) + b"\n" for line in rows))
        passes = summed(heads)
        aggregates = aggregate(config, rows, passes=passes, classes=self.info.get("data", {}).get("classes"))
        found = [
            f"{model['name']}: {model['fallen_at_smaller_eps']} of the samples that withstood the suite fell at a"
            " smaller eps; the suite misses what is inside its own budget, and robust accuracy is too high by as many."
            for model in aggregates["models"]
            if model["fallen_at_smaller_eps"]
        ]
        images = more.pop("images", None) or self.chosen(rows)
        self.info["times"].update(more.pop("times", {}))
        self.info.update(
            more,
            aggregates=aggregates,
            passes=passes,
            images=images,
            sections=[*self.info.get("sections", []), *_plain(sections)],
            warnings=_plain([*self.info["warnings"], *found]),
            finished=True,
        )
        self.info["times"].update(finished=_now(), seconds=sum(p.get("seconds", 0.0) for p in passes))
        wanted = {value for image in images for value in image.values() if isinstance(value, str)}
        keep = {"data.jsonl", "samples.jsonl", *self._output.names("adversarial")}
        keep.update(name for name in self._output.names("images") if name in wanted)
        if self._output.free(PAGE):  # which comes last, and is ours to replace
            keep.add(PAGE)
        self._output.finish(self.info, keep)
        return aggregates

    def _warn_of_changes(self, about: Json) -> None:
        """A run that goes on keeps what it was started with, and warns where the environment is another one."""
        for part in ("versions", "device", "git"):
            for name, old, new in changes(self.info.get(part), about.get(part, self.info.get(part)), part):
                self.info["warnings"].append(f"Resumed with another {name}: {short(old)}, then {short(new)}.")

    def _unit(self, name: str) -> tuple[Json, list[Line]] | None:
        return read_unit(name, self._output.read(f"parts/{name}.jsonl", UNIT_BYTES))


def _plain(value: Any) -> Any:
    """The same value as it will be read back from JSON."""
    return msgspec.to_builtins(value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
