"""Where the errors are: confusion, confidence and verification of one model, clean and in the worst case of the suite.

Everything here is counted from the lines of samples.jsonl, which `aggregates.by_unit` sorts into one table a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from robustlab.base.intervals import share
from robustlab.runs.aggregates import CLEAN, Line, ModelLines, Table
from robustlab.threat.model import allowed

Json = dict[str, Any]
BINS = 10  # of the reliability diagram
SURE = 0.9  # a wrong answer above this confidence is counted as sure


class Answer(NamedTuple):
    """What a model says of one sample: on its clean image, and in the worst case of the suite (`attacked`).

    A sample that an attack broke has the prediction and confidence on that attack's image (the first one in the
    suite's order). One that was wrong from the start was not attacked and keeps its clean answer. A robust one keeps
    its clean prediction; its confidence is that on the image which the last attack left. `attacked` is None where the
    worst case is not known: an attack ended in an error or did not try a sample that still stood, or there is none.
    """

    id: int
    label: int
    right: bool
    robust: bool
    clean: int | None
    clean_confidence: float | None
    attacked: int | None
    attacked_confidence: float | None
    attack: str | None  # that broke it


def answers(mine: ModelLines) -> list[Answer]:
    """One model's answers, by id.

    >>> common = {"model": "m", "id": 0, "label": 1, "clean": 1}
    >>> clean = Line(attack="clean", eps=0.0, adv=1, confidence=0.9, **common)
    >>> pgd = Line(attack="pgd", eps=0.5, adv=0, confidence=0.6, success=True, verified=True, **common)
    >>> answer, = answers(ModelLines({("clean", 0.0): {0: clean}, ("pgd", 0.5): {0: pgd}}, ["pgd"], 0.5))
    >>> answer.attacked, answer.attacked_confidence, answer.attack
    (0, 0.6, 'pgd')
    """
    units = [(name, mine.lines(name)) for name in mine.suite]
    return [_answer(line, mine, units) for _, line in sorted(mine.clean.items())]


def _answer(clean: Line, mine: ModelLines, units: Sequence[tuple[str, Mapping[int, Line]]]) -> Answer:
    id = clean.id
    right, robust = id in mine.right, bool(units) and id in mine.robust
    before = (None, None) if clean.error else (clean.clean, clean.confidence)
    worst: tuple[int | None, float | None] = (None, None)
    attack = None
    if units and not right:
        worst = before
    elif robust:
        last = units[-1][1][id]
        # a targeted or an unverified last image may be another class's without being a success
        worst = (clean.clean, last.confidence) if last.adv == clean.clean and last.confidence is not None else before
    elif right:
        successes = ((name, unit[id]) for name, unit in units if id in unit and unit[id].succeeded)
        attack, line = next(successes, (None, None))
        worst = (line.adv, line.confidence) if line else worst
    return Answer(id, clean.label, right, robust, *before, *worst, attack)


def confusion(answers: Sequence[Answer]) -> Json:
    """Counts of (true class, predicted class), clean and attacked, and how the attacks moved them.

    Returns cells: [{true, predicted, clean, attacked, difference}], those that are not all zero, by class;
    `difference` compares only samples whose worst case is known. flows: [{true, predicted, count, share}], what the
    attacks turned into what, the largest first, share of all samples of the true class. unknown: samples whose worst
    case is not known, missing from `attacked` and `difference`. n: all samples.
    """
    clean = Counter((a.label, a.clean) for a in answers if a.clean is not None)
    attacked = Counter((a.label, a.attacked) for a in answers if a.attacked is not None)
    known = Counter((a.label, a.clean) for a in answers if a.attacked is not None)
    members = Counter(a.label for a in answers)
    moved = Counter((a.label, a.attacked) for a in answers if a.attack is not None and a.attacked is not None)
    return {
        "cells": [
            {
                "true": true,
                "predicted": predicted,
                "clean": clean[true, predicted],
                "attacked": attacked[true, predicted],
                "difference": attacked[true, predicted] - known[true, predicted],
            }
            for true, predicted in sorted(clean.keys() | attacked.keys())
        ],
        "flows": [
            {"true": true, "predicted": predicted, "count": count, "share": share(count, members[true])}
            for (true, predicted), count in sorted(moved.items(), key=lambda item: (-item[1], item[0]))
        ],
        "members": dict(sorted(members.items())),
        "unknown": sum(a.attacked is None for a in answers),
        "n": len(answers),
    }


def confidence(answers: Sequence[Answer]) -> Json:
    """Is the model as often right as it is confident? For the `clean` images and the `attacked` ones.

    Each has n, accuracy, when_right and when_wrong (mean confidence, None where there is no such answer), wrong_sure
    (share of the wrong answers with confidence above 0.9), ece (expected calibration error over ten equal bins, Naeini
    et al. 2015) and bins: [{low, high, confidence, accuracy}], those that are not empty. A confidence of 1 belongs to
    the last bin.
    """
    return {
        "clean": _reliability([(a.clean_confidence, a.clean == a.label) for a in answers]),
        "attacked": _reliability([(a.attacked_confidence, a.attacked == a.label) for a in answers]),
    }


def _reliability(answers: Sequence[tuple[float | None, bool]]) -> Json:
    known = [(sure, is_right) for sure, is_right in answers if sure is not None]
    n = len(known)
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for sure, is_right in known:
        bins[min(int(sure * BINS), BINS - 1)].append((sure, is_right))
    filled, gaps = [], 0.0
    for at, members in enumerate(bins):
        if members:
            mean, correct = fmean(sure for sure, _ in members), sum(is_right for _, is_right in members)
            accuracy = share(correct, len(members))
            filled.append({"low": at / BINS, "high": (at + 1) / BINS, "confidence": mean, "accuracy": accuracy})
            gaps += abs(correct - len(members) * mean)
    right = [sure for sure, is_right in known if is_right]
    wrong = [sure for sure, is_right in known if not is_right]
    return {
        "n": n,
        "accuracy": share(len(right), n),
        "when_right": fmean(right) if right else None,
        "when_wrong": fmean(wrong) if wrong else None,
        "wrong_sure": share(sum(sure > SURE for sure in wrong), len(wrong)),
        "ece": gaps / n if n else None,
        "bins": filled,
    }


def verification(model: Mapping[str, Any], table: Table, norm: str, eps: float) -> Json:
    """How many claimed successes were confirmed. model: its entry in the aggregates; table: its lines.

    Returns attacks: for each {name, attempted, claimed, unverified (claimed, not confirmed in float32 inside the
    budget), confirmed, undone_8bit (None: not judged), leaves_8bit (of those undone: no rounded image lies inside the
    budget), outside, errors, missing}. `outside` is counted here, again, from the sizes in the lines: confirmed
    successes whose size is above eps, or not known. elsewhere: {confirmed, outside} at the other budgets of the curve.
    """
    rows = []
    for attack in model["attacks"]:
        successes = [line for line in table.get((attack["name"], eps), {}).values() if line.succeeded]
        rounded = attack["success_8bit"]
        rows.append(
            {
                "name": attack["name"],
                "attempted": attack["attempted"],
                "claimed": attack["broken"] + attack["unverified"],
                "unverified": attack["unverified"],
                "confirmed": attack["broken"],
                "undone_8bit": None if rounded is None else attack["broken"] - rounded,
                "leaves_8bit": attack["leaves_8bit"],
                "outside": sum(_outside(line, norm) for line in successes),
                "errors": attack["errors"],
                "missing": attack["missing"],
            }
        )
    others = [
        line
        for (attack_name, budget), lines in table.items()
        if attack_name != CLEAN and budget != eps
        for line in lines.values()
        if line.succeeded
    ]
    elsewhere = {"confirmed": len(others), "outside": sum(_outside(line, norm) for line in others)}
    return {"attacks": rows, "elsewhere": elsewhere}


def _outside(line: Line, norm: str) -> bool:
    size = line.size(norm)
    return size is None or not size <= allowed(line.eps)
