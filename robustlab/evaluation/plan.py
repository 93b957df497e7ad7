"""What a run settles before anything is written: who is attacked, on which samples, with what, and how."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustlab.attacks.suite import Member, Suite, load_suite
from robustlab.base.errors import RunError, UserError
from robustlab.base.memory import Batches, machine_failures
from robustlab.data import Data
from robustlab.data.matching import matched
from robustlab.evaluation.cascade import Task
from robustlab.evaluation.inputs import (
    CHECKED,
    answer_names,
    as_data,
    check_data,
    classifiers_of,
    default_batch_size,
    default_chunk_size,
    named_alike,
    numbers_only,
    predictions,
    untrained,
    warnings_of,
    without_target_class,
)
from robustlab.evaluation.judging import logits_of
from robustlab.evaluation.options import Options
from robustlab.evaluation.randomised import averaged, check_targets, draws_of, how_averaged
from robustlab.evaluation.record import about, configuration
from robustlab.evaluation.studies.transfer import Source, as_one, check_surrogates, surrogates_of
from robustlab.models.classifier import RANDOMISED, Classifier
from robustlab.models.search_copy import SearchCopy, make_search_copy
from robustlab.models.suitable import elsewhere, learned_from
from robustlab.oracle import check_gradient, forked, full_float32, undisturbed
from robustlab.runs import Run
from robustlab.threat.geometry import diameter
from robustlab.threat.model import ThreatModel, parse_eps

Say = Callable[[str], None]


@dataclass
class Party:
    """A model of the run, attacked or lent as a surrogate; `settle` fills in what it sees of it."""

    model: Classifier
    batches: Batches
    answer: Tensor = field(default_factory=lambda: torch.empty(1, 0))  # (1, K) logits of the first sample
    randomised: bool = False  # two of its evaluations differ
    copy: SearchCopy = SearchCopy(None, "turned off")

    @property
    def outputs(self) -> int:
        return self.answer.shape[1]


@dataclass
class Plan:
    """Everything that is settled; only the search copies may still change, to those of a run that is resumed.

    crafted_on: of each attacked model, its surrogates. draws: of each attacked model, see `draws_of`.
    """

    options: Options
    device: torch.device
    data: Data
    suite: Suite
    attacked: list[Party]
    lent: list[Party]
    crafted_on: list[list[Classifier]]
    draws: list[dict[str, int]]
    nearest: Member | None  # the attack whose distances give the curve
    curve: tuple[float, ...]
    batch_size: int  # to begin with
    chunk_size: int
    warnings: list[str]

    @property
    def everyone(self) -> list[Party]:
        return [*self.attacked, *self.lent]

    @property
    def randomised(self) -> set[str]:
        return {party.model.name for party in self.everyone if party.randomised}

    def config(self) -> dict[str, Any]:
        """What decides outcomes."""
        drawing: dict[str, Any] = {}
        if self.curve:
            drawing = {"attack": (self.nearest or self.suite.curve_member).name, "eps": list(self.curve)}
            drawing |= {"from": "distances"} if self.nearest else {}
        models = [party.model for party in self.attacked]
        options = replace(self.options, chunk_size=self.chunk_size)
        return configuration(models, self.data, self.suite, options, drawing, self.crafted_on, self.draws)

    def facts(self) -> dict[str, Any]:
        """The rest of run.json, as far as it is known before the run; ask before `search_as_recorded`."""
        models, copies = [p.model for p in self.attacked], [p.copy for p in self.attacked]
        lent = [(party.model, party.copy) for party in self.lent]
        facts = about(models, copies, self.data, self.suite, self.device, lent)
        return facts | {"warnings": self.warnings} | ({"randomised": True} if self.randomised else {})

    def search_as_recorded(self, info: Mapping[str, Any]) -> None:
        """Use search copies where the run in this run.json was started with them: all its units search alike."""
        records = [*info["models"], *info.get("surrogates", [])]
        for record, party in zip(records, self.everyone, strict=True):
            used, folded = record["search_copy"]["used"], record["search_copy"]["folded"]
            if used and (party.copy.module is None or party.copy.folded != folded):
                raise UserError(
                    f"--resume: the run searched on a copy of {record['name']}, which cannot be used here"
                    f" ({party.copy.unfolded or party.copy.reason}). Go on where it was started, or start another run."
                )
            if not used:
                party.copy = replace(party.copy, module=None)

    def tasks(self, run: Run, say: Say) -> list[Task]:
        """The work on each attacked model."""
        fast = {party.model.name: party.copy.module or party.model for party in self.everyone}
        return [
            Task(
                run=run,
                name=party.model.name,
                model=party.model,
                search=party.copy.module,
                outputs=party.outputs,
                data=self.data,
                suite=averaged(self.suite, drawn, self.options),
                curve=self.curve,
                options=self.options,
                chunk_size=self.chunk_size,
                batches=party.batches,
                device=self.device,
                told=say,
                surrogate=as_one([fast[each.name] for each in own]),
                evaluations=drawn.get("evaluations", 1),
                distances=bool(self.curve) and self.nearest is not None,
            )
            for party, own, drawn in zip(self.attacked, self.crafted_on, self.draws, strict=True)
        ]

    def sources(self) -> list[Source]:
        """The rows of the transfer matrix; none where the suite is no transfer suite."""
        if not self.suite.transfer:
            return []
        rows = []
        for party in self.everyone:
            drawn = draws_of(party.model, [], self.randomised, self.options)
            suite = averaged(self.suite, drawn, self.options)
            rows.append(Source(party.model, party.copy.module or party.model, party.batches, suite))
        return rows


def settle(
    models: Any,
    data: Any,
    suite: Suite | str | None,
    surrogate: Any,
    limit: int | None,
    options: Options,
    device: torch.device,
    say: Say,
    left_as_found: ExitStack,
) -> Plan:
    """Look at everything that was given, and say what is unusual; see `evaluate` for the arguments.

    Models, torch's settings and its generators are changed until `left_as_found` is left. UserError for bad input.
    """
    models = classifiers_of(models, device)
    selected = as_data(data, limit, models)
    check_data(selected, options.labels)
    if not isinstance(suite, Suite):
        if not (suite is None or isinstance(suite, str | Path)):
            raise UserError(
                f"suite is a card's name or path, or a Suite; got {type(suite).__name__}. Attacks of your own:"
                " robustlab.attacks.suite.load_suite(attacks=['pgd:steps=50'], eps='8/255')."
            )
        suite = load_suite(None if suite is None else str(suite), default=selected.threat)
    lent = [] if surrogate is None else classifiers_of(surrogate, device)
    crafted_on = surrogates_of(suite, models, lent)
    values = math.prod(selected.images.shape[1:])
    # what is nearest to the boundary of a surrogate says nothing about distances to that of the target
    nearest = None if any(crafted_on) else suite.nearest
    curve = _curve(options, suite.threat, values, fine=nearest is not None)
    size = options.batch_size or default_batch_size(values, device)
    everyone = [Party(model, Batches(size, say)) for model in (*models, *lent)]
    attacked = everyone[: len(models)]
    _hold_still(left_as_found, everyone, device, options.seed)

    warnings = [*selected.notes, *learned_from(selected, models)]
    warnings += [f"{p.model.name} has random weights: it was never trained." for p in everyone if untrained(p.model)]
    for party in everyone:
        left_as_found.callback(setattr, party.model, "outputs", party.model.outputs)
        probabilities = options.outputs == "probabilities"
        found = party.batches.fit(partial(warnings_of, party.model, selected, device, probabilities))
        warnings += [f"{party.model.name}: {text}" for text in found]
        party.randomised = RANDOMISED in found
    randomised = {party.model.name for party in everyone if party.randomised}
    check_targets(randomised, suite.threat, options)
    draws = [draws_of(model, own, randomised, options) for model, own in zip(models, crafted_on, strict=True)]
    crafting = [each for model, own in zip(models, crafted_on, strict=True) for each in own or [model]]
    for party in everyone:
        first = selected.images[:1].to(device)
        party.answer = logits_of(party.model, first, 1)
        if any(member.attack.needs == "gradient" for member in suite.members) and party.model in crafting:
            check_gradient(party.model, first)
    check_surrogates(models, crafted_on, {party.model.name: party.answer for party in everyone})
    if options.labels == "given":
        given, selected = selected, matched(selected, [(p.model.name, p.model.classes, p.outputs) for p in everyone])
        if torch.equal(given.labels, selected.labels):
            warnings += [text for p in attacked for text in numbers_only(p.model, p.outputs, given)]
        warnings += [text for model in models for text in named_alike(model, selected)]
    selected, dropped = _samples(selected, suite.threat, options, attacked, device)
    if dropped:
        warnings.append(f"{dropped} samples of the target class {suite.threat.target!r} were left out.")
    for party in everyone:
        if party.randomised:
            reason = "two of its evaluations differ, so that no copy can be seen to agree"
            party.copy = SearchCopy(None, reason)
        else:
            party.copy = party.batches.fit(partial(_search_copy, party.model, selected, options, device))
    for party in everyone:
        left_as_found.enter_context(_kept_in_eval(party.model))

    for text in (
        *(f"Warning: {text}" for text in warnings),
        *elsewhere(selected, models),
        *_remarks(everyone, draws, options),
    ):
        say(text)
    chunk_size = options.chunk_size or default_chunk_size(values)
    return Plan(
        options=options,
        device=device,
        data=selected,
        suite=suite,
        attacked=attacked,
        lent=everyone[len(models) :],
        crafted_on=crafted_on,
        draws=draws,
        nearest=nearest,
        curve=curve,
        batch_size=size,
        chunk_size=chunk_size,
        warnings=warnings,
    )


def _remarks(everyone: Sequence[Party], draws: Sequence[Mapping[str, int]], options: Options) -> Iterator[str]:
    """What is worth knowing about the models, and no warning."""
    for party in everyone:
        name, reason = party.model.name, party.copy.reason
        if options.search_copy and party.copy.module is None:
            yield f"{name}: no search copy, {reason}; attacks search on the model itself (slower)."
        elif party.copy.unfolded:
            yield f"{name}: the search copy is a plain one (slower); of a rebuilt one {party.copy.unfolded}."
    for party, drawn in zip(everyone, draws, strict=False):  # those that are attacked come first
        if drawn:
            yield f"{party.model.name}: {how_averaged(drawn)}"
    for party in everyone:
        if party.model.outputs != "logits":
            form = "a softmax" if party.model.outputs == "softmax" else "one sigmoid a class"
            yield f"{party.model.name} returns the probabilities of {form}; attacks see their logits."


def _hold_still(stack: ExitStack, everyone: Sequence[Party], device: torch.device, seed: int) -> None:
    """Frozen models in eval mode, full float32, draws that follow from the seed: until the stack is left."""
    for party in everyone:
        stack.enter_context(undisturbed(party.model))
    stack.enter_context(full_float32())
    stack.enter_context(machine_failures())
    stack.enter_context(forked(device, seed))


def _samples(
    data: Data, threat: ThreatModel, options: Options, attacked: Sequence[Party], device: torch.device
) -> tuple[Data, int]:
    """The samples without those of the target class, and how many these were."""
    truths, outputs = [data.labels], [party.outputs for party in attacked]
    if options.labels == "predicted":
        data = replace(data, classes=answer_names([party.model for party in attacked], data, max(outputs)))
        if threat.target_class is not None:  # what any model sees as the target already, all leave out
            truths = [party.batches.fit(partial(predictions, party.model, data, device)) for party in attacked]
    return without_target_class(data, truths, threat, min(outputs))


def _search_copy(model: Classifier, data: Data, options: Options, device: torch.device, batch_size: int) -> SearchCopy:
    if not options.search_copy:
        return SearchCopy(None, "turned off")
    first = data.images[: min(CHECKED, batch_size)].to(device)
    return make_search_copy(model, first, options.precision, options.compile)


@contextmanager
def _kept_in_eval(model: Classifier) -> Iterator[None]:
    """Stop where the model puts a part of itself into training mode: what follows would not be its answers."""
    quiet = [(name, part) for name, part in model.module.named_modules() if not part.training]

    def look(*_: object) -> None:
        if turned := [name for name, part in quiet if part.training]:
            raise RunError(
                f"{model.name} went into training mode during the run ({turned[0] or 'the whole module'}): its forward"
                " calls train(). Remove that call, and go on with --resume."
            )

    hook = model.register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()


def _curve(options: Options, threat: ThreatModel, values: int, fine: bool) -> tuple[float, ...]:
    """The budgets of the security curve, many of them where they cost nothing (`fine`).

    values: in an image; no budget may be larger than the way across the box.
    """
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
    if options.curve is None:
        shares = [k / 16 for k in range(1, 33)] if fine else [0.25, 0.5, 1.0, 1.5, 2.0]
        return tuple(f * threat.eps for f in shares if f * threat.eps <= most)
    return tuple(sorted({*given, threat.eps} - {0.0})) if given else ()
