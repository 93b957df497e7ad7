"""What is left of a backdoor: after each filter and control, trained again, and after each repair."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.backdoors.job import CLEAN, BackdoorJob, as_many
from robustlab.backdoors.poisoning import Poisoned
from robustlab.backdoors.setting import FilterPlan
from robustlab.backdoors.studies import SECONDS, SHARES, Models
from robustlab.base.errors import RunError, UserError
from robustlab.defenses.repairs import fine_pruning, fine_tuning
from robustlab.evaluation.running import rows_of, table
from robustlab.evaluation.studies.base import Study

Json = dict[str, Any]
REPAIRS: dict[str, Callable[..., nn.Module]] = {"fine-tuning": fine_tuning, "fine-pruning": fine_pruning}
UNDEFENDED, RANDOM, PERFECT = "undefended", "random, as many as {}", "perfect"
PERFECT_AS_FEW = "perfect, as few as {}"


class Results(Study[BackdoorJob]):
    """What is left of the backdoor: after each filter and each control trained again, and after each repair."""

    name = "results"

    def parts(self) -> Sequence[str]:
        return [f"{seed} {name}" for seed in self.job.seeds for name in self._rows()]

    def _rows(self) -> dict[str, str]:
        """Names of rows and their kind, in the order of the table."""
        job = self.job
        rows = {UNDEFENDED: "undefended"}
        if again := [plan for plan in job.filters if plan.again]:
            rows |= {row: "control" for row in self._controls(again)} | {plan.name: "filter" for plan in again}
        return rows | dict.fromkeys(job.repairs, "repair")

    def _controls(self, again: Sequence[FilterPlan]) -> dict[str, FilterPlan | None]:
        """The controls, and the filter that says how many they remove; one for all that are told the same share."""
        beside: dict[object, FilterPlan] = {}
        for plan in again:
            beside.setdefault("told" if plan.alike else plan.name, plan)
        few = list(beside.values()) if self.job.each else list(beside.values())[:1]
        rows: dict[str, FilterPlan | None] = {RANDOM.format(plan.name): plan for plan in few}
        rows[PERFECT] = None
        return rows | {PERFECT_AS_FEW.format(plan.name): plan for plan in few}

    def seconds(self, part: str) -> float:
        return 1.0 if part.endswith(UNDEFENDED) else SECONDS

    def work(self, part: str) -> Json:
        try:
            return self._work(part)
        except (UserError, RunError) as error:  # such as a training that diverges: the other rows go on
            self.job.listener.warn(f"{part}: {error}")
            return {"error": str(error)}

    def _work(self, part: str) -> Json:
        job, clock = self.job, time.perf_counter()
        number, _, name = part.partition(" ")
        seed, kind = int(number), self._rows()[name]
        data = job.poisoned(seed)
        if kind == "undefended":
            found: Json = {"trained": len(data), **job.measured(job.model(seed), seed)}
            [row] = (job.run.part(f"{Models.name}--{seed}") or {"rows": [{"seconds": 0.0}]})["rows"]
            clock -= row["seconds"]  # of its training
        elif kind == "repair":
            clean = job.val.take(torch.arange(min(CLEAN, len(job.val))))
            repaired = REPAIRS[name](
                job.model(seed), clean.images.to(job.device), clean.labels.to(job.device), seed=seed
            )
            found = {"trained": len(data), **job.measured(repaired, seed)}
        else:
            gone = self._gone(seed, name, data)
            if gone is None:
                return {"error": "the filter did not end"}
            job.listener.say(f"Seed {seed}, {name}: training again without {int(gone.sum())} images.")
            found = job.trained(data.take(~gone), seed, "")
        shown = {key: found[key] for key in ("trained", "clean", "asr", "right")}
        return {"rows": [{"seed": seed, "row": name, "kind": kind, **shown, "seconds": time.perf_counter() - clock}]}

    def _gone(self, seed: int, name: str, data: Poisoned) -> Tensor | None:
        """(n,) bool, what is left out of a training."""
        job = self.job
        controls = self._controls([plan for plan in job.filters if plan.again])
        if name == PERFECT:
            return data.changed
        plan = controls.get(name) or next(plan for plan in job.filters if plan.name == name)
        found = job.found(seed, plan)
        if found is None or name not in controls:
            return None if found is None else found[0]
        return as_many(data, found[0], seed, knowing=name != RANDOM.format(plan.name))

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("seed", "Seed", ""),
            ("row", "Defense", ""),
            ("kind", "Kind", ""),
            ("trained", "Training images", ""),
            *SHARES,
            ("seconds", "Seconds", ""),
        ]
        note = (
            "Each filter's and each control's model was trained again from scratch on what was left, with the same"
            " seed. Random removes as many images of each class as the filter, drawn by the seed. Perfect removes the"
            " poisons alone; or the poisons, and then clean images until each class has lost as many as to the filter."
        )
        if self.job.repairs:
            note += f" A repair changes the undefended model with {min(CLEAN, len(self.job.val))} clean images."
        return table(columns, rows_of(done), n=len(self.job.test), note=note)
