"""The transfer matrix: every model of the run crafts images, every attacked model is shown them.

A transfer attacker has no access to the attacked model: images are crafted on surrogates, and the model is shown the
finished ones. What withstands that may not withstand an attacker who sees the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from robustlab.attacks.suite import Suite
from robustlab.base.intervals import share
from robustlab.data import Loaded
from robustlab.evaluation.estimate import FORWARD
from robustlab.evaluation.judging import logits_of, looks_of
from robustlab.evaluation.plan import Participant
from robustlab.evaluation.randomised import averaged, averaging_of
from robustlab.evaluation.studies.base import Job, Study
from robustlab.evaluation.targets import class_names, targets_of
from robustlab.oracle import forked, most
from robustlab.runs.aggregates import CLEAN
from robustlab.runs.transfer import TRANSFER_MATRIX
from robustlab.threat.geometry import distance
from robustlab.threat.model import allowed

Json = dict[str, Any]
_COUNTS = ("tried", "turned", "errors")  # of a cell of the matrix


class TransferMatrix(Study[Job]):
    """Only of a transfer suite, by its first attack with every step. A part is a row of the matrix on one chunk."""

    name = TRANSFER_MATRIX

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.chunks = job.tasks[0].chunks()
        self._parts: dict[str, tuple[Participant, int]] = {}
        if job.plan.suite.transfer:
            everyone = job.plan.everyone
            self._parts = {f"{each.model.name} {n}": (each, n) for n, _ in self.chunks for each in everyone}
        self._loaded: tuple[int, Loaded] | None = None  # the chunk that is at work

    def parts(self) -> Sequence[str]:
        return list(self._parts)

    def seconds(self, part: str) -> float:
        source, number = self._parts[part]
        steps = self._suite(source).members[0].attack.looks + FORWARD * len(self.job.tasks)
        return self.job.timings[self.job.tasks[-1].name].step * steps * len(self.chunks[number][1])

    def work(self, part: str) -> Json:
        source, number = self._parts[part]
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = number, self.job.plan.data.take(self.chunks[number][1]).loaded()
        chunk, plan = self._loaded[1], self.job.plan

        def row(size: int) -> list[Json]:
            with forked(plan.device, plan.options.seed, TRANSFER_MATRIX, source.model.name, number):
                return self._row(source, number, chunk, size)

        return {"cells": source.batches.fit(row)}

    def _suite(self, source: Participant) -> Suite:
        """The suite as it attacks a model that may be randomised."""
        plan = self.job.plan
        return averaged(plan.suite, averaging_of(source.model, [], plan.randomised, plan.options), plan.options)

    def _row(self, source: Participant, number: int, chunk: Loaded, size: int) -> list[Json]:
        """For each task how many images of a chunk it was shown that it classifies right, and how many turned."""
        plan, tasks = self.job.plan, self.job.tasks
        threat, seed = plan.suite.threat, plan.options.seed
        x, y, ids = (each.to(plan.device) for each in (chunk.images, chunk.labels, chunk.ids))
        if plan.options.labels == "predicted":
            y = logits_of(source.model, x, size).argmax(1)
        names = class_names(plan.data, tasks[0].outputs)
        targets = targets_of(source.search, threat, x, y, ids, names, seed=seed, batch_size=size)
        open_ = torch.ones_like(y, dtype=torch.bool) if targets is None else targets != y
        crafted = (
            self._suite(source)
            .members[0]
            .attack.run(
                source.search,
                x[open_],
                y[open_],
                targets=None if targets is None else targets[open_],
                ids=ids[open_],
                seed=seed,
                batch_size=size,
                surrogate=source.search,
            )
        )
        shown, invalid = x.clone(), torch.zeros_like(open_)
        shown[open_], invalid[open_] = crafted.images, crafted.invalid
        inside = distance(shown - x, threat.norm) <= allowed(threat.eps)
        cells = []
        for each in tasks:
            lines = {line.id: line for line in each.run.unit_lines(each.name, CLEAN, 0.0, number)}
            clean, label = (
                torch.tensor([getattr(lines[id], key) for id in chunk.ids.tolist()], device=x.device)
                for key in ("clean", "label")
            )
            logits = looks_of(each.model, shown, size, each.evaluations)
            answer = logits.argmax(2)
            tried = open_ & (clean == label) & (clean != targets if targets is not None else open_)
            failed = tried & (invalid | ~torch.isfinite(logits).all(2).all(0))
            succeeded = most(answer != label if targets is None else answer == targets)
            turned = tried & ~failed & inside & succeeded
            counts = (tried & ~failed, turned, failed)
            cells.append({key: int(each.sum()) for key, each in zip(_COUNTS, counts, strict=True)})
        return cells

    def section(self, done: Mapping[str, Json]) -> Json:
        rows = []
        for source in (each.model.name for each in self.job.plan.everyone):
            parts = [f"{source} {number}" for number, _ in self.chunks]
            reason = next((self.failed[part] for part in parts if part in self.failed), None)
            for at, task in enumerate(self.job.tasks):
                total = {key: sum(done[part]["cells"][at][key] for part in parts if part in done) for key in _COUNTS}
                turned = None if reason else share(total["turned"], total["tried"])
                row = {"source": source, "target": task.name, "white_box": source == task.name}
                rows.append(row | {"turned": turned, "errors": total["errors"], "reason": reason})
        suite = self.job.plan.suite
        aim = "turned into the target" if suite.threat.targeted else "turned"
        return {
            "name": TRANSFER_MATRIX,
            "columns": [
                {"key": "source", "label": "Crafted on"},
                {"key": "target", "label": "Shown to"},
                {"key": "turned", "label": "Turned"},
                {"key": "errors", "label": "Errors"},
            ],
            "rows": rows,
            "n": len(self.job.plan.data),
            "interval": "95 % Wilson",
            "attack": suite.members[0].name,
            "note": "Share of the images that the attacked model classifies right, whether or not the source does, and"
            f" that are {aim} by the same image crafted on the source alone, with every step. Where both are the same"
            " model, that is a white-box attack.",
        }
