"""The work of a run, unit by unit: the clean pass, the suite as a cascade, and the sweep for the security curve."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from robustlab.attacks.base import INVALID, Outcome
from robustlab.attacks.short_tries import ShortTries
from robustlab.attacks.suite import Member, Suite
from robustlab.base.errors import RunError, spelled
from robustlab.base.memory import Batches
from robustlab.base.pictures import png
from robustlab.base.words import counted, kind_and_line
from robustlab.data import Data, Loaded
from robustlab.evaluation.faults import blamed_on_model, ends_the_run
from robustlab.evaluation.judging import Verdict, judge, looks_of, own_answers
from robustlab.evaluation.neighbour import Neighbour
from robustlab.evaluation.options import Options
from robustlab.evaluation.targets import class_names, targets_of
from robustlab.evaluation.units import clean_draws, clean_lines, error_line, judge_draws, judged, search_draws, sweep_of
from robustlab.oracle import Oracle
from robustlab.runs import Run
from robustlab.runs.aggregates import CLEAN, Line
from robustlab.runs.examples import image_name, keep_candidates
from robustlab.threat.model import ThreatModel, allowed


@dataclass(frozen=True)
class Task:
    """What is the same for all units of one model."""

    run: Run
    name: str
    model: nn.Module
    search: Callable[[Tensor], Tensor] | None
    outputs: int  # classes that the model knows
    data: Data
    suite: Suite
    curve: tuple[float, ...]
    options: Options
    chunk_size: int
    batches: Batches
    device: torch.device
    say: Callable[[str], None]
    surrogate: nn.Module | None = None  # what images are crafted on, where not on the model itself
    evaluations: int = 1  # of an image, whose majority is the answer of a randomised model
    bare: nn.Module | None = None  # the model without the defense that it stands behind
    unaware: tuple[Member, ...] = ()  # attacks on that, whose images the model is shown
    distances: bool = False  # the curve comes from those of `suite.nearest`, not from a sweep

    @property
    def crafted_on(self) -> nn.Module:
        """The model that attacks see; with a surrogate, the attacked one is shown finished images only."""
        return self.model if self.surrogate is None else self.surrogate

    def chunks(self) -> list[tuple[int, Tensor]]:
        """(number, positions) of the chunks: `chunk_size` consecutive samples, whatever the batch size."""
        return list(enumerate(torch.arange(len(self.data)).split(self.chunk_size)))

    @property
    def sweep(self) -> list[float]:
        """The budgets at which the curve's attack is run beside the suite."""
        return sweep_of(self.curve, self.suite.threat.eps, self.distances)

    def unbounded(self, member: Member) -> bool:
        """Does this attack search the smallest distance of every sample, whatever the budget?"""
        return self.distances and member is self.suite.nearest


def evaluate_chunk(task: Task, number: int, where: Tensor) -> Iterator[str]:
    """Do the units of one chunk that are not done yet, in order; yields the name of each when it is finished."""
    run, suite, eps = task.run, task.suite, task.suite.threat.eps
    chunk = task.data.take(where).loaded()
    if not run.has_unit(task.name, CLEAN, 0.0, number):
        _clean_unit(task, number, chunk)
    yield CLEAN
    lines = run.unit_lines(task.name, CLEAN, 0.0, number)
    right = {line.id for line in lines if line.error is None and line.clean == line.label}
    if task.options.labels == "predicted":  # as they were written: a resumed run attacks the same answers
        label = {line.id: line.label for line in lines}
        chunk = replace(chunk, labels=torch.tensor([label[id] for id in chunk.ids.tolist()]))

    left = set(right)
    for member in suite.members:
        everyone = task.options.full or task.unbounded(member)
        left -= _attack_unit(task, member, eps, number, chunk, right if everyone else left)
        yield member.name
    for member in task.unaware:
        left -= _attack_unit(task, member, eps, number, chunk, right)
        yield member.name
    yield from _sweep(task, number, chunk, right, left)


def _sweep(task: Task, number: int, chunk: Loaded, right: set[int], left: set[int]) -> Iterator[str]:
    """The curve's attack at the other budgets. What falls at one falls at every larger one and is not tried there.

    Above eps it goes on with what the suite left. Below, short tries come down from eps with what fell, until it falls
    no more; what withstood the suite withstands there, too. Other attacks, which may be weak, try everything from the
    smallest budget on, so that what falls below eps and withstands at eps is noticed.

    Short tries start where the budget before ended. A resumed run does not know where: if a unit of the sweep is
    missing, or had an error, all of it is done again.
    """
    member, eps = task.suite.curve_member, task.suite.threat.eps
    short = isinstance(member.attack, ShortTries)
    below = sorted((e for e in task.sweep if e < eps), reverse=short)
    above = sorted(e for e in task.sweep if e > eps)
    again = short and not (
        _whole(task, member.name, number, below, right - left, True)
        and _whole(task, member.name, number, above, left, False)
    )
    going, near = right - left if short else right, Neighbour()
    for e in below:
        lost = _attack_unit(task, member, e, number, chunk, going, near, again)
        going = lost if short else going - lost
        yield f"{member.name} at {e:.4g}"
    going, near = left if short else left & going, Neighbour()
    for e in above:
        going = going - _attack_unit(task, member, e, number, chunk, going, near, again)
        yield f"{member.name} at {e:.4g}"


def _whole(task: Task, attack: str, number: int, budgets: Sequence[float], going: set[int], falls: bool) -> bool:
    """Are the units of these budgets there, each of what was left before it; falls: of what fell before it?"""
    for eps in budgets:
        if not _done(task, attack, eps, number, going):
            return False
        lost = _lost(task, attack, eps, number)
        going = lost if falls else going - lost
    return True


def _done(task: Task, attack: str, eps: float, number: int, ids: set[int]) -> bool:
    """Is the unit of these samples there, without errors? What ended in an error is tried again."""
    name = (task.name, attack, eps, number)
    if not task.run.has_unit(*name):
        return False
    lines = task.run.unit_lines(*name)
    return {line.id for line in lines} == ids and not any(line.error for line in lines)


def _lost(task: Task, attack: str, eps: float, number: int) -> set[int]:
    """What is not left after a unit: successes, and errors."""
    lines = task.run.unit_lines(task.name, attack, eps, number)
    return {line.id for line in lines if line.succeeded or line.error is not None}


def _attack_unit(
    task: Task,
    member: Member,
    eps: float,
    number: int,
    chunk: Loaded,
    ids: set[int],
    near: Neighbour | None = None,
    again: bool = False,
) -> set[int]:
    """Do one unit if it is not done, or again; returns the ids that are not left after it: successes, and errors.

    near: where the samples ended at the budget before; only in a sweep.
    """
    name = (task.name, member.name, eps, number)
    if again or not _done(task, member.name, eps, number, ids):
        index = torch.tensor([i for i, id in enumerate(chunk.ids.tolist()) if id in ids], dtype=torch.long)
        attempted = chunk.take(index)
        start = time.perf_counter()
        try:
            lines, info = _attack(task, member, eps, number, attempted, near)
        except Exception as error:  # a model raises what it likes
            text = blamed_on_model(error, f"{member.name} on {task.name}, chunk {number}")
            task.say(f"{task.name}, {member.name}, chunk {number}: {text}")
            lines = [error_line(task.name, member.name, eps, id, label, text) for id, label in _pairs(attempted)]
            info = {"errors": len(lines)}
        info["seconds"] = time.perf_counter() - start
        task.run.write_unit(*name, lines, info)
    return _lost(task, member.name, eps, number)


def _clean_unit(task: Task, number: int, chunk: Loaded) -> None:
    start = time.perf_counter()

    def look(size: int) -> Tensor:
        with clean_draws(task.device, task.options.seed, task.name, number):
            return looks_of(task.model, chunk.images.to(task.device), size, task.evaluations)

    try:
        logits = task.batches.fit(look).cpu()
    except Exception as error:
        if ends_the_run(error):
            raise
        raise RunError(
            f"{task.name} failed on clean images (chunk {number}): {kind_and_line(error)}. Nothing can be said about it"
            f" without them. What is finished is kept: fix the model and go on with {spelled('resume', True)}."
        ) from error
    if not bool(torch.isfinite(logits).all()):
        raise RunError(
            f"{task.name} returns NaN or infinite values on clean images (chunk {number}); nothing can be measured on"
            " it. Check its weights, and its mean and std."
        )
    labels = own_answers(logits) if task.options.labels == "predicted" else chunk.labels
    lines = clean_lines(task.name, chunk.ids.tolist(), labels, logits)
    task.run.write_unit(task.name, CLEAN, 0.0, number, lines, {"seconds": time.perf_counter() - start})


def _attack(
    task: Task, member: Member, eps: float, number: int, chunk: Loaded, near: Neighbour | None
) -> tuple[list[Line], dict[str, Any]]:
    """One attack on the attempted samples of a chunk: its lines, and the numbers of the unit."""
    if not len(chunk):
        return [], {}
    threat = replace(task.suite.threat, eps=eps)
    x, y, ids = (each.to(task.device) for each in (chunk.images, chunk.labels, chunk.ids))
    names = class_names(task.data, task.outputs)
    attack = task.suite.at(member, math.inf if task.unbounded(member) else eps)
    if near is not None:
        attack = near.starting(attack, x, chunk.ids.tolist())

    def attempt(size: int) -> tuple[Outcome, Verdict]:
        unit = task.device, task.options.seed, task.name, member.name, eps, number
        with search_draws(*unit):
            targets = targets_of(task.crafted_on, threat, x, y, ids, names, seed=task.options.seed, batch_size=size)
            outcome = attack.run(
                task.model if task.evaluations == 1 else Oracle(task.model, evaluations=task.evaluations),
                x,
                y,
                targets=targets,
                ids=ids,
                seed=task.options.seed,
                batch_size=size,
                search=task.search,
                surrogate=task.bare if member in task.unaware else task.surrogate,
            )
        with judge_draws(*unit):
            return outcome, judge(task.model, outcome.images, x, y, outcome.target, threat, size, task.evaluations)

    outcome, verdict = task.batches.fit(attempt)
    outside = 0 if attack.keyed else outcome.refused
    unsearched = counted(outcome.unsearched, "sample") + " on which the search could not start"
    for count, said in ((outside, f"{counted(outside, 'point')} outside the budget"), (outcome.unsearched, unsearched)):
        if count:
            at = f"chunk {number}, eps {eps:.4g}"
            task.say(f"{task.name}, {member.name}, {at}: {said}; they count as failures.")
    if near is not None:
        near.ended(attack, outcome.images, chunk.ids.tolist())
    if task.unbounded(member):  # outside the budget: a distance, but no success
        outcome.success &= verdict.sizes[threat.norm] <= allowed(eps)
        outcome.rank[~outcome.success] = -1
    # a model may return NaN to the judge alone
    outcome.invalid = outcome.invalid | ~torch.isfinite(verdict.confidence)
    verified = outcome.success & verdict.success & verdict.inside & ~outcome.invalid
    lines = _lines(task, member.name, eps, chunk, outcome, verdict, verified)
    if eps == task.suite.threat.eps:
        _keep_images(task, member.name, number, chunk, outcome, verified)
    if task.options.save_adversarial:
        tensors = {"ids": chunk.ids.contiguous(), "images": outcome.images.cpu().contiguous()}
        task.run.write_adversarial(task.name, member.name, eps, number, save_safetensors(tensors))
    unverified = int((outcome.success & ~verified).sum())
    left = int((verdict.leaves_8bit & verified).sum())
    info: dict[str, Any] = {"refused": outcome.refused, "unverified": unverified, "leaves_8bit": left}
    if outcome.allocation is not None:
        info |= asdict(outcome.allocation)
    rare = {"errors": int(outcome.invalid.sum()), "unsearched": outcome.unsearched}
    return lines, info | {key: count for key, count in rare.items() if count}


def _lines(
    task: Task, name: str, eps: float, chunk: Data, outcome: Outcome, verdict: Verdict, verified: Tensor
) -> list[Line]:
    columns = {
        "success": outcome.success.tolist(),
        "verified": verified.tolist(),
        "success_8bit": (verified & verdict.success_8bit).tolist(),
        "rank": outcome.rank.tolist(),
        "target": outcome.target.tolist(),
        "forwards": outcome.forwards.tolist(),
        "backwards": outcome.backwards.tolist(),
    }
    lines, invalid, found = [], outcome.invalid.tolist(), judged(verdict)
    for i, (id, label) in enumerate(_pairs(chunk)):
        fields = found[i] | {key: values[i] for key, values in columns.items()}
        if not fields["success"]:
            fields["verified"] = fields["success_8bit"] = None
        line = Line(task.name, name, eps, id, label, clean=label, **fields)
        lines.append(error_line(task.name, name, eps, id, label, INVALID) if invalid[i] else line)
    return lines


def _pairs(chunk: Data) -> list[tuple[int, int]]:
    return list(zip(chunk.ids.tolist(), chunk.labels.tolist(), strict=True))


def perturbation_scale(threat: ThreatModel, values: int) -> float:
    """The change of a value that a picture of the perturbation shows as full colour; one for the whole run.

    linf: eps. l2: eight times the change of a value if all changed alike. l1: half the range, since few values change.
    """
    if threat.norm == "linf":
        return max(threat.eps, 1 / 255)
    return min(1.0, 8 * threat.eps / math.sqrt(values)) if threat.norm == "l2" and threat.eps > 0 else 0.5


def _keep_images(task: Task, attack: str, number: int, chunk: Loaded, outcome: Outcome, verified: Tensor) -> None:
    """Store the pictures of the unit's kept examples, and their adversarials as floats for the heatmaps."""
    threat, adversarial = task.suite.threat, outcome.images.cpu()
    ids, valid = chunk.ids.tolist(), (~outcome.invalid).cpu()
    members = (each.cpu()[valid].tolist() for each in (chunk.ids, chunk.labels, verified))
    kept = [ids.index(id) for id in keep_candidates(task.options.seed, task.options.keep, *members)]
    if not kept:
        return
    scale = perturbation_scale(threat, chunk.images[0].numel())
    for i in kept:
        clean, adv = chunk.images[i], adversarial[i]
        task.run.write_image(image_name("clean", ids[i]), png(clean))
        task.run.write_image(image_name("adv", ids[i], task.name, attack), png(adv))
        task.run.write_image(image_name("delta", ids[i], task.name, attack), png(0.5 + (adv - clean) / (2 * scale)))
    tensors = {"ids": chunk.ids[kept], "images": adversarial[kept].contiguous()}
    task.run.write_kept(task.name, attack, threat.eps, number, save_safetensors(tensors))
