"""What a section sees of a run: its numbers, its names and its images, ready to be shown."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustlab.reporting.text import NORMS, budget, without_paths
from robustlab.runs import StoredRun, read_run
from robustlab.runs.aggregates import Line

Json = dict[str, Any]


@dataclass(frozen=True)
class PageRun:
    """A run on the page. `info` is its run.json without the folders of absolute paths."""

    stored: StoredRun
    info: Json = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> PageRun:
        stored = read_run(folder)
        return cls(stored, without_paths(stored.info))

    @property
    def folder(self) -> Path:
        return self.stored.folder

    @property
    def lines(self) -> list[Line]:
        """samples.jsonl, read when first asked for."""
        return self.stored.lines

    @property
    def data_lines(self) -> list[Json]:
        """data.jsonl, read when first asked for."""
        return self.stored.data_lines

    @property
    def name(self) -> str:
        return str(self.info["name"])

    @property
    def numbers(self) -> Json:
        """The aggregates; none in a run that is no attack."""
        return dict(self.info.get("aggregates") or {"models": [], "pairs": []})

    @property
    def models(self) -> list[Json]:
        return list(self.numbers["models"])

    @property
    def data(self) -> Json:
        return {"name": "", "split": "", "classes": [], **self.info.get("data", {})}

    @property
    def norm(self) -> str:
        return NORMS[self.numbers["norm"]]

    @property
    def eps(self) -> str:
        """The headline eps as it was typed."""
        return str(self.info.get("eps_typed") or self.budget(self.numbers["eps"]))

    def budget(self, eps: float) -> str:
        return budget(eps, self.numbers["norm"])

    @property
    def threat(self) -> str:
        """One phrase: "L∞ ε = 8/255"."""
        threat = self.info["config"].get("threat", {})
        aim = f", targeted ({threat.get('target', 'random')})" if threat.get("targeted") else ""
        return f"{self.norm}\u00a0ε\u00a0=\u00a0{self.eps}{aim}"

    def class_name(self, label: int | None) -> str:
        if label is None:
            return "?"
        classes = self.data["classes"]
        return str(classes[label]) if 0 <= label < len(classes) else str(label)

    def picture(self, file: str | None) -> str | None:
        """A kept image as a data URI; None where there is none, or what is there is no PNG."""
        path = self.folder / file if file else None
        if path is None or path.parent != self.folder / "images" or not path.is_file():
            return None
        data = path.read_bytes()
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            return None
        return "data:image/png;base64," + base64.b64encode(data).decode()
