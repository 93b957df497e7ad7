"""run.json and data.jsonl against `schema`, and what each part of run.json says against the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from robustlab.runs.aggregates import CLEAN
from robustlab.runs.audits import STATUSES
from robustlab.runs.backdoor_schema import KIND, check_backdoor
from robustlab.runs.detections import DETECTION
from robustlab.runs.schema import Board, Detections, Run, Sample, Section, Share
from robustlab.runs.transfer import TRANSFER_MATRIX

_KINDS: dict[Any, Any] = {TRANSFER_MATRIX: Board, DETECTION: Detections}  # sections that the page knows


def check_info(info: Any) -> None:
    """ValueError that says where run.json holds what it may not."""
    run = msgspec.convert(info, Run)
    for number, section in enumerate(run.sections):
        try:
            msgspec.convert(section, _KINDS.get(section.get("name"), Section))
        except msgspec.ValidationError as error:
            raise ValueError(f"sections[{number}]: {error}") from None
    if run.kind == KIND:
        check_backdoor(info)
    for problem in _contradictions(run):
        raise ValueError(problem)


def check_sample(line: Any) -> None:
    """The same for a line of data.jsonl."""
    msgspec.convert(line, Sample)


def _contradictions(run: Run) -> Iterator[str]:
    """What cannot be true together, though each value has the right type."""
    config = run.config
    names, suite = [model.name for model in config.models], [attack.name for attack in config.attacks]
    for what, found in (("config.models", names), ("config.attacks", suite)):
        if len(set(found)) != len(found):
            yield f"{what} has two of one name"
    suites = {model.name: [*suite, *model.unaware] for model in config.models}
    if any(model.bare and model.bare not in names for model in config.models):
        yield "config.models has one behind a defense whose bare model is not among them"
    if CLEAN in suite:
        yield f"config.attacks has one of the name {CLEAN}, which is that of the clean pass"
    if run.models and [model.name for model in run.models] != names:
        shown = (", ".join(found) for found in ([model.name for model in run.models], names))
        yield "its models are {}, and in its configuration {}".format(*shown)
    if config.curve.attack == "" and config.curve.eps:
        yield "config.curve does not say of which attack it is"
    if config.curve.source == "distances" and config.curve.attack not in suite:
        yield "config.curve is of the distances of an attack that is not in config.attacks"
    for record in run.audit.values():
        for check in record.checks:
            yield from _odd_numbers(check.numbers, f"audit, {check.name[:40]}")
    statuses = {check.status for record in run.audit.values() for check in record.checks}
    if other := sorted(statuses - set(STATUSES)):
        yield f"a check of audit has the status {other[0][:40]!r}, and it is one of {', '.join(STATUSES)}"
    if run.aggregates is None:
        if run.images or run.audit:
            yield "it has images or an audit, and no aggregates"
        return
    threat = config.threat
    if threat is None or (run.aggregates.norm, run.aggregates.eps) != (threat.norm, threat.eps):
        yield "aggregates are of another threat than config.threat"
    if [model.name for model in run.aggregates.models] != names:
        yield "aggregates are of other models than config.models"
    for model in run.aggregates.models:
        if [attack.name for attack in model.attacks] != suites[model.name]:
            yield "aggregates are of other attacks than config.attacks"
        if (model.robust_accuracy is None) != (not suite):
            yield "aggregates have a robust accuracy without attacks, or none with attacks"
        if any(a.eps >= b.eps for a, b in zip(model.curve, model.curve[1:], strict=False)):
            yield "a curve in aggregates does not go up in eps"
        if len(model.curve) > 1 and not config.curve.attack:
            yield "aggregates have a curve, and config has none"
    known = set(names)
    if any({pair.first, pair.second} - known for pair in run.aggregates.pairs):
        yield "a pair in aggregates is of a model that is not in config.models"
    if any(image.model not in known or image.attack not in suites[image.model] for image in run.images):
        yield "a kept image is of a model or an attack that is not in config"


def _odd_numbers(value: Any, at: str) -> Iterator[str]:
    """Numbers of an audit that are too large, and what looks like a share and is none."""
    if isinstance(value, dict):
        if {"value", "n"} <= value.keys():
            try:
                msgspec.convert(value, Share)
            except msgspec.ValidationError as error:
                yield f"{at}: {error}"
        for key, inner in value.items():
            yield from _odd_numbers(inner, f"{at}, {key[:40]}")
    elif isinstance(value, list):
        for inner in value:
            yield from _odd_numbers(inner, at)
    elif isinstance(value, int | float) and abs(value) > 1e300:
        yield f"{at}: {value:.3g} is no number to reckon with"
