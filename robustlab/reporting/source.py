"""What a section sees of a run: its numbers, its names and its images, ready to be shown."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from robustlab.base.errors import UserError
from robustlab.base.one_sided import holm
from robustlab.base.words import listed
from robustlab.reporting.text import NORMS, budget, shown_names, without_paths
from robustlab.runs import StoredRun, read_run
from robustlab.runs.aggregates import Line, ModelLines, Table, by_unit
from robustlab.runs.breakdowns import Answer, answers
from robustlab.runs.transfer import matrix, surrogates

Json = dict[str, Any]
FOOLBOX = ("deepfool", "cw", "ead", "brendel-bethge")  # methods that run batch by batch


@dataclass(frozen=True)
class PageRun:
    """A run on the page. `info` is its run.json without the folders of absolute paths.

    names: what the models are called on the page, where that is not what the files call them.
    """

    stored: StoredRun
    info: Json = field(repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: Path) -> PageRun:
        stored = read_run(folder)
        named = (*stored.info["config"].get("models", []), *stored.info.get("surrogates", []))
        models = [str(model["name"]) for model in named]
        names = {model: name for model, name in shown_names(models).items() if name != model}
        return cls(stored, without_paths(with_models(stored.info, names)), names)

    @property
    def folder(self) -> Path:
        return self.stored.folder

    @cached_property
    def lines(self) -> list[Line]:
        """samples.jsonl with the page's names, read when first asked for; UserError where some are missing."""
        lines = self.stored.lines
        there = Counter((line.model, line.attack, line.eps) for line in lines)
        for entry in self.stored.info.get("passes", []):
            unit = entry["model"], entry["attack"], entry["eps"]
            if there[unit] != entry["lines"]:
                raise UserError(
                    f"{self.folder / 'samples.jsonl'} has {there[unit]:,} lines of {unit[0]}, {unit[1]} at"
                    f" {unit[2]:.4g}, and run.json counts {entry['lines']:,}. Restore the file, or run again."
                )
        if not self.names:
            return lines
        return [
            msgspec.structs.replace(line, model=self.names[line.model]) if line.model in self.names else line
            for line in lines
        ]

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The lines of each model, by attack, budget and id."""
        return by_unit(self.lines)

    @cached_property
    def views(self) -> dict[str, ModelLines]:
        """Of each model who stands after each attack that it met, those that do not know its defense among them."""
        return {
            model["name"]: ModelLines(
                self.tables.get(model["name"], {}), [a["name"] for a in model["attacks"]], self.numbers["eps"]
            )
            for model in self.models
        }

    @cached_property
    def answers(self) -> dict[str, list[Answer]]:
        """What each model says of each sample, on the clean image and in the worst case of its suite."""
        return {name: answers(mine) for name, mine in self.views.items()}

    @property
    def unbounded(self) -> str | None:
        """The attack that looked for the distance of every image, whatever the budget, if there is one."""
        curve = self.info["config"].get("curve") or {}
        return str(curve["attack"]) if curve.get("from") == "distances" else None

    @property
    def by_batch(self) -> list[str]:
        """The attacks that charge every sample with all that its batch was shown."""
        attacks = self.info["config"].get("attacks", [])
        return [a["name"] for a in attacks if a.get("method") in FOOLBOX or a.get("unkeyed")]

    @property
    def own_labels(self) -> bool:
        """Were the models' own answers on the clean images attacked, not the labels of the data?"""
        return bool(self.info["config"].get("labels") == "predicted")

    @property
    def targeted(self) -> bool:
        """Has each sample a target class? Then another wrong answer is no success, and the sample is robust."""
        return bool(self.info["config"].get("threat", {}).get("targeted"))

    @property
    def settings(self) -> list[tuple[str, Json]]:
        """Name and configuration of each run that is in here: only one but in a merged one."""
        return [(self.name, self.info["config"])]

    @property
    def cascades(self) -> str | None:
        """Where an attack got only what the attacks above had left: None nowhere, "" everywhere, "in RUN" there."""
        names = [name for name, config in self.settings if not config.get("full")]
        return ("" if len(names) == len(self.settings) else f"in {listed(names)}") if names else None

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

    @cached_property
    def pairs(self) -> list[Json]:
        """Every two models, with `holm`: p corrected over all pairs, the clean and the robust ones each (Holm 1979)."""
        found = [dict(pair) for pair in self.numbers["pairs"]]
        for kind in ("clean", "robust"):
            compared = [pair for pair in found if pair[kind]]
            for pair, p in zip(compared, holm([pair[kind]["p"] for pair in compared]), strict=True):
                pair[kind] = pair[kind] | {"holm": p}
        return found

    @property
    def data(self) -> Json:
        return {"name": "", "split": "", "classes": [], **self.info.get("data", {})}

    @property
    def norm(self) -> str:
        return NORMS[self.numbers["norm"]]

    @property
    def eps(self) -> str:
        """The headline eps as it was typed."""
        return str(self.info.get("eps_typed") or budget(self.numbers["eps"], self.numbers["norm"]))

    def budget(self, eps: float) -> str:
        """An eps as the headline's was typed: as k/255 only beside a fraction."""
        return budget(eps, self.numbers["norm"]) if "/" in self.eps else f"{eps:.3g}"

    @property
    def threat(self) -> str:
        """One phrase: "L∞ ε = 8/255, crafted on road-signs/cnn"."""
        return f"{self.limits}, crafted on {self.crafted_on}" if self.crafted_on else self.limits

    @property
    def limits(self) -> str:
        """What an image may be changed by: "L∞ ε = 8/255"."""
        threat = self.info["config"].get("threat", {})
        aim = f", targeted ({threat.get('target', 'random')})" if threat.get("targeted") else ""
        return f"{self.norm}\u00a0ε\u00a0=\u00a0{self.eps}{aim}"

    @cached_property
    def surrogates(self) -> dict[str, list[str]]:
        """What each model's images were crafted on; no entry in a white-box attack."""
        return surrogates(self.info)

    @property
    def crafted_on(self) -> str:
        """The surrogates of all models in words; "" in a white-box attack."""
        if not self.same_surrogates:
            return "other models"
        names = next(iter(self.surrogates.values()), [])
        return listed(names) if len(names) < 3 else f"{len(names)} surrogates"

    @property
    def same_surrogates(self) -> bool:
        """Were the images of all models crafted on the same ones (or in a white-box attack)?"""
        return len({tuple(names) for names in self.surrogates.values()}) < 2

    def class_name(self, label: int | None) -> str:
        if label is None:
            return "?"
        classes = self.data["classes"]
        return str(classes[label]) if 0 <= label < len(classes) else str(label)

    def picture(self, file: str | None) -> str | None:
        """A kept image as a data URI; None where there is none, or what is there is no PNG."""
        data = self.stored.picture(file) if file else None
        if data is None or not data.startswith(b"\x89PNG\r\n\x1a\n"):
            return None
        return "data:image/png;base64," + base64.b64encode(data).decode()


def with_models(info: Json, names: Mapping[str, str]) -> Json:
    """The same run.json with other names for its models, wherever it names them."""

    def renamed(tables: Sequence[Json], *keys: str) -> list[Json]:
        return [table | {key: names.get(table[key], table[key]) for key in keys if key in table} for table in tables]

    changed = dict(info)
    config = info["config"]
    if "models" in config:
        models = [
            m | ({"surrogates": renamed(m["surrogates"], "name")} if "surrogates" in m else {})
            for m in config["models"]
        ]
        changed["config"] = config | {"models": renamed(models, "name", "bare")}
    if "sections" in info:
        board = matrix(info)
        changed["sections"] = [
            section | {"rows": renamed(section["rows"], *(("source", "target") if section is board else ("model",)))}
            for section in info["sections"]
        ]
    for part, key in (("models", "name"), ("surrogates", "name"), ("passes", "model"), ("images", "model")):
        if part in info:
            changed[part] = renamed(info[part], key)
    if numbers := info.get("aggregates"):
        models, pairs = renamed(numbers["models"], "name"), renamed(numbers["pairs"], "first", "second")
        changed["aggregates"] = numbers | {"models": models, "pairs": pairs}
    for part in ("heatmaps", "audit", "drive_by"):
        if part in info:
            changed[part] = {names.get(name, name): told for name, told in info[part].items()}
    return changed
