"""A run, recomputed: every line from its stored adversarial, every number of run.json from the recomputed lines."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from robustlab.attacks.suite import suite_again
from robustlab.base.errors import UserError
from robustlab.base.files import config_hash
from robustlab.base.memory import Batches, machine_failures
from robustlab.data import Data, Loaded
from robustlab.data.matching import matched
from robustlab.evaluation.inputs import CHECKED, answer_names, default_batch_size
from robustlab.evaluation.judging import logits_of, looks_of, own_answers
from robustlab.evaluation.record import data_lines
from robustlab.evaluation.studies.audit.choosing import rows_of, subject_of
from robustlab.evaluation.targets import class_names, targets_of
from robustlab.evaluation.units import clean_draws, clean_lines, error_line, judge_draws, sweep_of
from robustlab.models.classifier import Classifier, check
from robustlab.models.search_copy import make_search_copy
from robustlab.oracle import forked, full_float32, undisturbed
from robustlab.reporting.text import budget
from robustlab.runs import StoredRun
from robustlab.runs.aggregates import CLEAN, Line, aggregate
from robustlab.runs.defended import suite_of
from robustlab.runs.examples import chosen_images
from robustlab.runs.transfer import surrogates
from robustlab.runs.units import unit_name
from robustlab.threat.model import ThreatModel
from robustlab.verification.again import positions
from robustlab.verification.audited import AuditAgain
from robustlab.verification.checks import Compared, Verification, differences, leaves, taken_as_stored
from robustlab.verification.pictures import compare_attacked, compare_choice, compare_clean
from robustlab.verification.units import judge_again, read_adversarials, tied

Key = tuple[str, str, float]  # model, attack, eps


class Recomputation:
    """One call of `verify`: the stored lines, those that come out now, and how the two compare."""

    def __init__(
        self, stored: StoredRun, data: Data, device: torch.device, batch_size: int | None, whole_audit: bool = False
    ) -> None:
        self.stored, self.info, self.config = stored, stored.info, stored.info["config"]
        self.data, self.device = data, device
        self.evaluations = {str(m["name"]): int(m.get("evaluations", 1)) for m in self.config["models"]}
        recorded = self.info.get("operational", {}).get("batch_size") if max(self.evaluations.values()) > 1 else None
        self.batch_size = batch_size or recorded or default_batch_size(math.prod(data.images.shape[1:]), device)
        self.threat = ThreatModel(**self.config["threat"])
        self.complete = bool(self.config["save_adversarial"])
        self.predicted = self.config.get("labels") == "predicted"
        self.lines: dict[Key, dict[int, Line]] = defaultdict(dict)
        self.again: dict[Key, dict[int, Line]] = defaultdict(dict)
        self.counted: dict[Key, dict[str, int]] = {}  # of run.json's `passes`, what can be counted
        self.checks: dict[str, Compared] = {}
        self.pixels = Compared("kept images: pixels")
        written = self.info.get("versions", {}).get("robustlab")
        self.audit = AuditAgain(self.info.get("audit", {}), self.config.get("audit", 0), written, whole_audit)

    def run(self, models: Sequence[Classifier]) -> Verification:
        warnings, outputs = [], []
        with ExitStack() as left_as_found:
            left_as_found.enter_context(full_float32())
            left_as_found.enter_context(machine_failures())
            left_as_found.enter_context(forked(self.device, self.config["seed"]))
            for model in models:
                left_as_found.enter_context(undisturbed(model))
                warnings += check(model, self.data.images[:CHECKED].to(self.device), None).warnings
                outputs.append(logits_of(model, self.data.images[:1].to(self.device), 1).shape[1])
            self.samples(models, outputs)
            self.table()
            for record, model in zip(self.config["models"], models, strict=True):
                for number, where in enumerate(torch.arange(len(self.data)).split(self.config["chunk_size"])):
                    self.chunk(str(record["name"]), model, number, self.data.take(where).loaded())
            self.audits(models, outputs)
        self.numbers()
        warnings += [
            f"{name} is randomised. Its draws are repeated from the seed; on another device, with another batch size or"
            " version of torch they are others, and lines may disagree by chance."
            for name, often in self.evaluations.items()
            if often > 1
        ]
        return Verification(
            folder=self.stored.folder,
            checks=[*self.checks.values(), self.audit.compared, self.pixels],
            taken=taken_as_stored(self.info, self.audit.taken, self.complete),
            complete=self.complete,
            errors=sum(line.error is not None for line in self.stored.lines),
            warnings=warnings,
        )

    def check(self, what: str) -> Compared:
        return self.checks.setdefault(what, Compared(what))

    def units(self, model: str) -> list[tuple[str, float]]:
        """(attack, eps) of the units of a chunk of a model after the clean pass."""
        suite = [(name, self.threat.eps) for name in suite_of(self.config, model)]
        curve = self.config.get("curve", {"eps": []})
        swept = sweep_of(curve["eps"], self.threat.eps, curve.get("from") == "distances")
        return suite + [(str(curve["attack"]), eps) for eps in swept]

    def samples(self, models: Sequence[Classifier], outputs: Sequence[int]) -> None:
        """data.jsonl against the data, whose labels become those of the models' outputs."""
        check = self.check("data: classes, pixels, labels")
        if self.predicted:
            self.data = replace(self.data, classes=answer_names(models, self.data, max(outputs)))
        else:
            self.data = matched(self.data, [(m.name, m.classes, k) for m, k in zip(models, outputs, strict=True)])
        check.record("classes", list(differences(self.info["data"]["classes"], list(self.data.classes), "names")))
        self.data = self.data.take(positions(self.stored, self.data))
        for stored, again in zip(self.stored.data_lines, data_lines(self.data), strict=True):
            check.record(f"id {stored['id']}", list(differences(stored, again)))

    def table(self) -> None:
        """samples.jsonl, by unit: a clean line for every sample, and no line that no unit of the run can have."""
        check = self.check("lines: each of a sample and a unit")
        names = [str(model["name"]) for model in self.config["models"]]
        known = {(name, *unit) for name in names for unit in [(CLEAN, 0.0), *self.units(name)]}
        ids = set(self.data.ids.tolist())
        for line in self.stored.lines:
            key = line.model, line.attack, line.eps
            wrong = [] if key in known else ["the run has no such unit"]
            wrong += [] if line.id in ids else ["the run has no such sample"]
            wrong += ["it is there twice"] if line.id in self.lines[key] else []
            check.record(f"{line.model}, {line.attack} at {line.eps:g}, id {line.id}", wrong)
            self.lines[key][line.id] = line
        for name in names:
            for id in sorted(ids - self.lines[name, CLEAN, 0.0].keys()):
                check.record(f"{name}, clean, id {id}", ["the line is missing"])

    def chunk(self, name: str, model: Classifier, number: int, chunk: Loaded) -> None:
        """The clean pass of a chunk, and the units that follow it."""
        x, ids = chunk.images.to(self.device), chunk.ids.tolist()
        with clean_draws(self.device, self.config["seed"], name, number):
            logits = looks_of(model, x, self.batch_size, self.evaluations[name]).cpu()
        if self.predicted:
            chunk = replace(chunk, labels=own_answers(logits))
        clean = clean_lines(name, ids, chunk.labels, logits)
        check = self.check(f"{name}: clean pass")
        for again, close in zip(clean, tied(logits.mean(0)).tolist(), strict=True):
            stored = self.lines[name, CLEAN, 0.0].get(again.id)
            if stored:  # a missing one is counted in `table`
                self.compare(check, stored, again, close)
        kept = [image for image in self.stored.images if image["model"] == name]
        compare_clean(self.pixels, self.stored.folder, kept, chunk)
        if not self.complete:
            for key in ((name, *unit) for unit in self.units(name)):
                self.again[key].update({id: self.lines[key][id] for id in ids if id in self.lines[key]})
            return
        targets = targets_of(
            model,
            self.threat,
            x,
            chunk.labels.to(self.device),
            chunk.ids.to(self.device),
            class_names(chunk, logits.shape[2]),
            seed=self.config["seed"],
            batch_size=self.batch_size,
        )
        if self.threat.targeted and self.threat.target == "least-likely" and name in surrogates(self.info):
            # least likely to the surrogates, which are not loaded again: taken as stored
            told = {id: line.target for unit in self.units(name) for id, line in self.lines[name, *unit].items()}
            targets = torch.tensor([-1 if (aim := told.get(id)) is None else aim for id in ids], device=self.device)
        for attack, eps in self.units(name):
            self.unit((name, attack, eps), model, number, chunk, {line.id: line.clean for line in clean}, targets)

    def unit(
        self,
        key: Key,
        model: Classifier,
        number: int,
        chunk: Loaded,
        answers: dict[int, int | None],
        targets: Tensor | None,
    ) -> None:
        """One attack on one chunk, from its file."""
        name, attack, eps = key
        check = self.check(f"{name}: {attack} at {budget(eps, self.threat.norm)}")
        lines = {id: self.lines[key][id] for id in chunk.ids.tolist() if id in self.lines[key]}
        self.again[key].update(lines)
        expected = {id for id, line in lines.items() if line.error is None}
        for id in sorted(lines.keys() - expected):  # it says that there was an error, and nothing else
            label = int(chunk.labels[chunk.ids == id])
            bare = error_line(name, attack, eps, id, label, str(lines[id].error))
            self.compare(check, lines[id], bare, close=False)
        file = f"{unit_name(*key, number)}.safetensors"
        if not expected and not (self.stored.folder / "adversarial" / file).exists():
            return
        stored, problem = read_adversarials(self.stored.folder, file, tuple(chunk.images.shape[1:]))
        for id in sorted(stored.keys() - lines.keys()):
            check.record(f"id {id}", ["its adversarial is stored, and its line is missing"])
        for id in sorted(expected - stored.keys()):
            check.record(f"id {id}", [problem or f"its adversarial is not in {file}"])
        points = {id: stored[id] for id in sorted(expected & stored.keys())}
        if not points:
            return
        threat = replace(self.threat, eps=eps)
        with judge_draws(self.device, self.config["seed"], *key, number):
            found = judge_again(
                model,
                lines,
                points,
                chunk,
                answers,
                targets,
                threat,
                self.batch_size,
                self.device,
                self.evaluations[name],
            )
        for line in found.lines:
            self.compare(check, lines[line.id], line, line.id in found.tied)
        total = self.counted.setdefault(key, {"unverified": 0, "leaves_8bit": 0})
        total["unverified"] += found.unverified
        total["leaves_8bit"] += found.leaves_8bit
        if eps == self.threat.eps:
            kept = [image for image in self.stored.images if (image["model"], image["attack"]) == (name, attack)]
            compare_attacked(self.pixels, self.stored.folder, kept, chunk, points, self.info["perturbation_scale"])

    def compare(self, check: Compared, stored: Line, again: Line, close: bool) -> None:
        """A line against what comes out now."""
        found = list(differences(msgspec.structs.asdict(stored), msgspec.structs.asdict(again)))
        if found and close:
            found.append("its two highest logits nearly tie: rounding on another device or in another batch swaps them")
        check.record(f"id {stored.id}", found)
        self.again[again.model, again.attack, again.eps][again.id] = again

    def audits(self, models: Sequence[Classifier], outputs: Sequence[int]) -> None:
        """run.json's audits, of the samples that are right now."""
        try:
            suite = suite_again(self.config)
        except UserError:  # an attack that only the program of the run knew
            self.audit.taken = ["all of them"]
            return
        batches, names = Batches(self.batch_size, lambda text: None), list(self.evaluations)
        for record, model, known in zip(self.config["models"], models, outputs, strict=True):
            name = str(record["name"])
            own = suite.with_eot(int(record.get("eot", 1)))
            subject = subject_of(
                model,
                list(self.again[name, CLEAN, 0.0].values()),
                self.data,
                own,
                rows_of(
                    own,
                    [eps for _, eps in self.units(name)],
                    lambda attack, eps, name=name: list(self.again[name, attack, eps].values()),  # type: ignore[misc]
                    full=bool(self.config.get("full")),
                ),
                asked=int(self.config.get("audit", 0)),
                seed=self.config["seed"],
                outputs=known,
                device=self.device,
                batches=batches,
                search=self._search_copy(name, model),
                others=[(other, each) for other, each in zip(names, models, strict=True) if other != name],
                own_labels=self.predicted,
                elsewhere=name in surrogates(self.info),
                evaluations=self.evaluations[name],
            )
            self.audit.compare(name, subject)
        self.audit.no_others(names)

    def _search_copy(self, name: str, model: Classifier) -> nn.Module | None:
        """What the attacks searched on, where that was a copy: the audit looks at its gradients."""
        used = {each["name"]: each.get("search_copy", {}).get("used") for each in self.info["models"]}
        if not used[name] or not self.config.get("audit"):
            return None
        first = self.data.images[: min(CHECKED, self.batch_size)].to(self.device)
        return make_search_copy(model, first, self.config["precision"]).module

    def numbers(self) -> None:
        """run.json against the recomputed lines."""
        lines = [line for unit in self.again.values() for line in unit.values()]
        chunks = math.ceil(len(self.data) / self.config["chunk_size"])
        listed = {(entry["model"], entry["attack"], entry["eps"]): entry for entry in self.info["passes"]}
        names = list(self.evaluations)
        order = {
            name: {attack: at for at, attack in enumerate([CLEAN, *suite_of(self.config, name)])} for name in names
        }
        keys = [(name, *unit) for name in names for unit in [(CLEAN, 0.0), *self.units(name)]]
        passes = []
        for key in sorted(keys, key=lambda key: (names.index(key[0]), key[2], order[key[0]].get(key[1], 0))):
            unit = dict(zip(("model", "attack", "eps"), key, strict=True))
            counts = {"units": chunks, "lines": len(self.again[key]), **self.counted.get(key, {})}
            passes.append({**listed.get(key, {}), **unit, **counts})
        again: dict[str, Any] = {
            "config_hash": config_hash(self.config),
            "passes": passes,
            "aggregates": aggregate(self.config, lines, passes=passes, classes=list(self.data.classes)),
        }
        check = self.check("run.json: aggregates")
        check.n = leaves(again)
        check.wrong += differences({key: self.info[key] for key in again}, msgspec.to_builtins(again))
        compare_choice(self.check("kept images: choice"), self.stored.images, chosen_images(self.config, lines))
