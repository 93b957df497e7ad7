"""What a run settles before anything is written: who is attacked, on which samples, with what, and how."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.attacks.suite import Member, Suite
from robustlab.base.errors import RunError, UserError, spelled
from robustlab.base.memory import Batches, machine_failures
from robustlab.data import Data
from robustlab.data.matching import matched
from robustlab.evaluation.cascade import Task
from robustlab.evaluation.defending import Front, behind, check_seen
from robustlab.evaluation.inputs import (
    CHECKED,
    answer_names,
    as_data,
    as_suite,
    check_data,
    check_of,
    classifiers_of,
    default_batch_size,
    default_chunk_size,
    named_alike,
    numbers_only,
    predictions,
    unkeyed,
    untrained,
    without_target_class,
)
from robustlab.evaluation.judging import logits_of
from robustlab.evaluation.listener import Listener, Say
from robustlab.evaluation.options import Options
from robustlab.evaluation.randomised import averaged, averaging_of, check_targets, how_averaged
from robustlab.evaluation.surrogates import as_one, check_surrogates, surrogates_of
from robustlab.models.classifier import Classifier
from robustlab.models.search_copy import SearchCopy, make_search_copy
from robustlab.models.suitable import elsewhere, learned_from
from robustlab.oracle import check_gradient, forked, full_float32, undisturbed
from robustlab.runs import Run
from robustlab.runs.defended import unaware
from robustlab.threat.geometry import diameter
from robustlab.threat.model import ThreatModel, parse_eps


@dataclass
class Participant:
    """A model of the run, attacked or a surrogate; `settle` fills in what it sees of it."""

    model: Classifier
    batches: Batches
    answer: Tensor = field(default_factory=lambda: torch.empty(1, 0))  # (1, K) logits of the first sample
    randomised: bool = False  # two of its evaluations differ
    copy: SearchCopy = SearchCopy(None, "turned off")

    @property
    def outputs(self) -> int:
        return self.answer.shape[1]

    @property
    def search(self) -> nn.Module:
        """What attacks search on: its copy where there is one."""
        return self.copy.module or self.model


@dataclass
class Plan:
    """What a run does, and to what. Fixed, but for the search copies: see `search_as_recorded`.

    crafted_on: of each attacked model, its surrogates. fronts: see `behind`. averaging: of each attacked model, see
    `averaging_of`.
    """

    options: Options
    device: torch.device
    data: Data
    suite: Suite
    attacked: list[Participant]
    surrogates: list[Participant]  # those that are not attacked themselves
    crafted_on: list[list[Classifier]]
    fronts: dict[str, Front]
    averaging: list[dict[str, int]]
    nearest: Member | None  # the attack whose distances give the curve
    curve: tuple[float, ...]
    batch_size: int  # to begin with
    chunk_size: int
    warnings: list[str]

    @property
    def everyone(self) -> list[Participant]:
        return [*self.attacked, *self.surrogates]

    @property
    def randomised(self) -> set[str]:
        return {each.model.name for each in self.everyone if each.randomised}

    def search_as_recorded(self, info: Mapping[str, Any]) -> None:
        """Use search copies where the run in this run.json was started with them: all its units search alike."""
        records = [*info["models"], *info.get("surrogates", [])]
        for record, each in zip(records, self.everyone, strict=True):
            used, folded = record["search_copy"]["used"], record["search_copy"]["folded"]
            if used and (each.copy.module is None or each.copy.folded != folded):
                raise UserError(
                    f"{spelled('resume', True)}: the run searched on a copy of {record['name']}, which cannot be used"
                    f" here ({each.copy.unfolded or each.copy.reason}). Go on where it was started, or start"
                    " another run."
                )
            if not used:
                each.copy = replace(each.copy, module=None)

    def tasks(self, run: Run, say: Say) -> list[Task]:
        """The work on each attacked model."""
        searched = {each.model.name: each.search for each in self.everyone}
        return [
            Task(
                run=run,
                name=each.model.name,
                model=each.model,
                search=each.copy.module,
                outputs=each.outputs,
                data=self.data,
                suite=averaged(self.suite, averaging, self.options),
                curve=self.curve,
                options=self.options,
                chunk_size=self.chunk_size,
                batches=each.batches,
                device=self.device,
                say=say,
                surrogate=as_one([searched[surrogate.name] for surrogate in own]),
                evaluations=averaging.get("evaluations", 1),
                distances=bool(self.curve) and self.nearest is not None,
                **self._unaware(each.model.name, searched),
            )
            for each, own, averaging in zip(self.attacked, self.crafted_on, self.averaging, strict=True)
        ]

    def unaware(self, model: str) -> tuple[Member, ...]:
        """The suite as it attacks the bare model of one behind a defense, under the names of lines and tables."""
        if model not in self.fronts:
            return ()
        averaging = averaging_of(self.fronts[model].bare, [], self.randomised, self.options)
        suite = averaged(self.suite, averaging, self.options)
        return tuple(replace(member, name=unaware(member.name)) for member in suite.members)

    def _unaware(self, model: str, searched: Mapping[str, nn.Module]) -> dict[str, Any]:
        front = self.fronts.get(model)
        return {} if front is None else {"bare": searched[front.bare.name], "unaware": self.unaware(model)}


def settle(
    models: Any,
    data: Any,
    suite: Any,
    surrogate: Any,
    defense: Any,
    limit: int | None,
    options: Options,
    device: torch.device,
    listener: Listener,
    left_as_found: ExitStack,
) -> Plan:
    """Look at everything that was given, and say what is unusual; see `evaluate` for the arguments.

    Models, torch's settings and its generators are changed until `left_as_found` is left. UserError for bad input.
    """
    models, fronts = behind(classifiers_of(models, device), defense)
    selected = as_data(data, limit, models)
    check_data(selected, options.labels)
    suite = as_suite(suite, selected)
    surrogates = [] if surrogate is None else classifiers_of(surrogate, device)
    check_seen(fronts, suite, surrogates)
    crafted_on = surrogates_of(suite, models, surrogates)
    values = math.prod(selected.images.shape[1:])
    # what is nearest to the boundary of a surrogate says nothing about distances to that of the target
    nearest = None if any(crafted_on) else suite.nearest
    curve = _curve(options, suite, values, fine=nearest is not None)
    size = options.batch_size or default_batch_size(values, device)
    everyone = [Participant(model, Batches(size, listener.say)) for model in (*models, *surrogates)]
    attacked = everyone[: len(models)]
    _hold_still(left_as_found, everyone, device, options.seed)

    warnings = [*selected.notes, *learned_from(selected, models), *unkeyed(suite)]
    warnings += [f"{e.model.name} has random weights: it was never trained." for e in everyone if untrained(e.model)]
    for each in everyone:
        left_as_found.callback(setattr, each.model, "outputs", each.model.outputs)
        warnings += _looked_at(each, selected, device, options)
    randomised = {each.model.name for each in everyone if each.randomised}
    check_targets(randomised, suite.threat, options)
    averaging = [averaging_of(model, own, randomised, options) for model, own in zip(models, crafted_on, strict=True)]
    if any(member.attack.needs == "gradient" for member in suite.members):
        asked = {id(each) for model, own in zip(models, crafted_on, strict=True) for each in own or [model]}
        for each in everyone:
            if id(each.model) in asked:
                check_gradient(each.model, selected.images[:1].to(device))
    check_surrogates(models, crafted_on, {each.model.name: each.answer for each in everyone})
    selected, found = _samples(selected, suite.threat, options, everyone, attacked, device)
    warnings += found
    for each in everyone:
        each.copy = _search_copy(each, selected, options, device)
    for each in everyone:
        left_as_found.enter_context(_kept_in_eval(each.model))

    for text in warnings:
        listener.warn(text)
    for text in (*elsewhere(selected, models), *_remarks(everyone, averaging, options)):
        listener.say(text)
    return Plan(
        options=options,
        device=device,
        data=selected,
        suite=suite,
        attacked=attacked,
        surrogates=everyone[len(models) :],
        crafted_on=crafted_on,
        fronts=fronts,
        averaging=averaging,
        nearest=nearest,
        curve=curve,
        batch_size=size,
        chunk_size=options.chunk_size or default_chunk_size(values),
        warnings=warnings,
    )


def _looked_at(each: Participant, data: Data, device: torch.device, options: Options) -> list[str]:
    """The warnings of the boundary check on a model, whose answer and randomness are then known."""
    probabilities = options.outputs == "probabilities"
    found = each.batches.fit(partial(check_of, each.model, data, device, probabilities))
    each.randomised, each.answer = found.randomised, logits_of(each.model, data.images[:1].to(device), 1)
    return [f"{each.model.name}: {text}" for text in (*each.model.notes, *found.warnings)]


def _samples(
    data: Data,
    threat: ThreatModel,
    options: Options,
    everyone: Sequence[Participant],
    attacked: Sequence[Participant],
    device: torch.device,
) -> tuple[Data, list[str]]:
    """The samples with the labels that count, without those of the target class; and warnings about both."""
    warnings: list[str] = []
    if options.labels == "given":
        given, data = data, matched(data, [(each.model.name, each.model.classes, each.outputs) for each in everyone])
        if torch.equal(given.labels, data.labels):
            warnings += [text for each in attacked for text in numbers_only(each.model, each.outputs, given)]
        warnings += [text for each in attacked for text in named_alike(each.model, data)]
    truths, outputs = [data.labels], [each.outputs for each in attacked]
    if options.labels == "predicted":
        data = replace(data, classes=answer_names([each.model for each in attacked], data, max(outputs)))
        if threat.target_class is not None:  # already the target for one model: left out for all
            truths = [each.batches.fit(partial(predictions, each.model, data, device)) for each in attacked]
    data, dropped = without_target_class(data, truths, threat, min(outputs))
    if dropped:
        warnings.append(f"{dropped} samples of the target class {threat.target!r} were left out.")
    return data, warnings


def _search_copy(each: Participant, data: Data, options: Options, device: torch.device) -> SearchCopy:
    if each.randomised:
        return SearchCopy(None, "two of its evaluations differ, so that no copy can be seen to agree")
    if not options.search_copy:
        return SearchCopy(None, "turned off")

    def copied(size: int) -> SearchCopy:
        first = data.images[: min(CHECKED, size)].to(device)
        return make_search_copy(each.model, first, options.precision, options.compile)

    return each.batches.fit(copied)


def _remarks(
    everyone: Sequence[Participant], averaging: Sequence[Mapping[str, int]], options: Options
) -> Iterator[str]:
    """Remarks about the models that are no warnings."""
    for each in everyone:
        name, reason = each.model.name, each.copy.reason
        if options.search_copy and each.copy.module is None:
            yield f"{name}: no search copy, {reason}; attacks search on the model itself (slower)."
        elif each.copy.unfolded:
            yield f"{name}: the search copy is a plain one (slower); of a rebuilt one {each.copy.unfolded}."
    for each, own in zip(everyone, averaging, strict=False):  # those that are attacked come first
        if own:
            yield f"{each.model.name}: {how_averaged(own)}"
    for each in everyone:
        if each.model.outputs != "logits":
            form = "a softmax" if each.model.outputs == "softmax" else "one sigmoid a class"
            yield f"{each.model.name} returns the probabilities of {form}; attacks see their logits."


def _hold_still(stack: ExitStack, everyone: Sequence[Participant], device: torch.device, seed: int) -> None:
    """Frozen models in eval mode, full float32, draws that follow from the seed: until the stack is left."""
    for each in everyone:
        stack.enter_context(undisturbed(each.model))
    stack.enter_context(full_float32())
    stack.enter_context(machine_failures())
    stack.enter_context(forked(device, seed))


@contextmanager
def _kept_in_eval(model: Classifier) -> Iterator[None]:
    """Stop if the model puts a part of itself into training mode: its answers would change."""
    quiet = [(name, part) for name, part in model.module.named_modules() if not part.training]

    def look(*_: object) -> None:
        if turned := [name for name, part in quiet if part.training]:
            raise RunError(
                f"{model.name} went into training mode during the run ({turned[0] or 'the whole module'}): its forward"
                f" calls train(). Remove that call, and go on with {spelled('resume', True)}."
            )

    hook = model.register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()


def _curve(options: Options, suite: Suite, values: int, fine: bool) -> tuple[float, ...]:
    """The budgets of the security curve; many of them (`fine`) if they cost nothing.

    values: in an image; no budget may be larger than the way across the box.
    """
    threat, swept = suite.threat, suite.curve_member
    most = diameter(threat.norm, values)
    given = [replace(threat, eps=parse_eps(e)).eps for e in options.curve or ()]
    for eps in (threat.eps, *given):
        if eps > most:
            raise UserError(
                f"{threat.norm} eps = {eps:g} is larger than the distance between any two images of this size, at most"
                f" {most:.4g}: every image could become every other. Did you mean {eps:g}/255?"
            )
    if threat.eps == 0:
        return ()
    if not (fine or swept.attack.any_eps):
        if given:
            raise UserError(
                f"{swept.name} runs at its own budget alone, so there is no security curve. Add an attack that runs at"
                f" any, such as pgd, or leave {spelled('curve')} out."
            )
        return ()
    if options.curve is None:
        shares = [k / 16 for k in range(1, 33)] if fine else [0.25, 0.5, 1.0, 1.5, 2.0]
        return tuple(f * threat.eps for f in shares if f * threat.eps <= most)
    return tuple(sorted({*given, threat.eps} - {0.0})) if given else ()
