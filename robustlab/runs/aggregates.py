"""From lines to numbers: what each attack left, robust accuracy, the security curve, and pairs of models.

A sample is robust when it is classified right and every attack tried it and failed. A sample that an attack raised on,
or never tried although it still stood, is not robust: silence is no evidence.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Any

import msgspec

from robustlab.base.intervals import paired_difference, share
from robustlab.runs.defended import suite_of, unaware
from robustlab.runs.schema import Eps, Fraction, Label, Name, Size, Whole
from robustlab.threat.model import allowed

CLEAN = "clean"
Json = dict[str, Any]


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """What one attack did to one sample: a line of samples.jsonl. The clean pass is attack "clean" at eps 0.

    clean, adv: predicted classes before and after. confidence: of the last prediction (of `clean` in the clean pass).
    success: fooled as the search saw it; verified: the given module agrees, inside the budget; success_8bit: still
    fooled after rounding to 8 bits (None: not tried). target: -1 for none. linf ... l0: size of the perturbation.
    """

    model: Name
    attack: Name
    eps: Eps
    id: Whole
    label: Label
    clean: Label | None
    adv: Label | None = None
    confidence: Fraction | None = None
    success: bool = False
    verified: bool | None = None
    success_8bit: bool | None = None
    rank: Whole | None = None
    target: Label | None = None
    linf: Size | None = None
    l2: Size | None = None
    l1: Size | None = None
    l0: Size | None = None
    forwards: Size = 0
    backwards: Size = 0
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        """A success that counts: verified, and no error."""
        return self.success and self.verified is True and self.error is None

    def size(self, norm: str) -> float | None:
        """The perturbation's size in the norm "linf", "l2", "l1" or "l0"."""
        sizes = {"linf": self.linf, "l2": self.l2, "l1": self.l1, "l0": self.l0}
        return sizes[norm]


Table = dict[tuple[str, float], dict[int, Line]]  # (attack, eps) -> id -> line


def aggregate(
    config: Mapping[str, Any],
    lines: Iterable[Line],
    *,
    passes: Sequence[Mapping[str, Any]] = (),
    classes: Sequence[str] | None = None,
) -> Json:
    """All numbers of a run. config: as `runs.Run.create` describes it. passes: summed unit infos, for the seconds.

    Returns {"norm", "eps", "models": [...], "pairs": [...]}; every share is {value, low, high, n}, a fraction.
    """
    threat = config["threat"]
    eps = float(threat["eps"])
    curve = config.get("curve") or {}
    unbounded = curve.get("attack") if curve.get("from") == "distances" else None
    norm, targeted = str(threat["norm"]), bool(threat.get("targeted"))
    foreign = {attack["name"] for attack in config["attacks"] if attack.get("unkeyed")}
    unkeyed = foreign | {unaware(name) for name in foreign}
    table = by_unit(lines)
    models = []
    views: dict[str, ModelLines] = {}
    for model in config["models"]:
        mine = ModelLines(table.get(model["name"], {}), suite_of(config, model["name"]), eps)
        infos = {(p["attack"], p["eps"]): p for p in passes if p["model"] == model["name"]}
        views[model["name"]] = mine
        models.append(
            {
                "name": model["name"],
                "n": mine.n,
                "clean_accuracy": share(len(mine.right), mine.n),
                "clean_errors": sum(line.error is not None for line in mine.clean.values()),
                "robust_accuracy": share(len(mine.robust), mine.n) if mine.suite else None,
                "robust_accuracy_8bit": _after_rounding(mine),
                "attacks": [
                    _attack(mine, at, norm, targeted, infos, name in unkeyed)
                    | (_median_of_all(mine, name, norm, targeted) if name == unbounded else {})
                    | ({"unkeyed": True} if name in unkeyed else {})
                    for at, name in enumerate(mine.suite)
                ],
                "fallen_at_smaller_eps": len(mine.succeeded_below & mine.robust),
                "worst_class": _worst_class(mine, classes) if mine.suite else None,
                "curve": _curve_of_distances(mine, curve, norm, targeted) if unbounded else _curve(mine, curve),
                **_defended(mine, model.get("unaware", [])),
            }
        )
    return {"norm": threat["norm"], "eps": eps, "models": models, "pairs": pairs(views)}


def pairs(views: Mapping[str, ModelLines]) -> list[Json]:
    """Second minus first, clean and robust, for every two models; they are judged on the same samples."""
    return [
        {
            "first": first,
            "second": second,
            "clean": _pair(a.right, b.right, a.n),
            "robust": _pair(a.robust, b.robust, a.n) if a.suite and b.suite else None,
        }
        for (first, a), (second, b) in combinations(views.items(), 2)
        if a.n == b.n
    ]


def by_unit(lines: Iterable[Line]) -> dict[str, Table]:
    """model -> (attack, eps) -> id -> line."""
    tables: dict[str, Table] = {}
    for line in lines:
        tables.setdefault(line.model, {}).setdefault((line.attack, line.eps), {})[line.id] = line
    return tables


class ModelLines:
    """One model's lines, and who still stands after each attack of the suite at the headline eps.

    right, robust: ids of the samples that are classified right, and that stay right under the suite. left, missing:
    for each attack, the ids that stand after it, and how many stood before it that it did not try.
    """

    def __init__(self, table: Table, suite: Sequence[str], eps: float) -> None:
        self.table = table
        self.suite = list(suite)
        self.eps = eps
        self.clean = table.get((CLEAN, 0.0), {})
        self.n = len(self.clean)
        self.right = {i for i, line in self.clean.items() if line.error is None and line.clean == line.label}
        self.left: list[set[int]] = []  # after each attack
        self.missing: list[int] = []
        standing = self.right
        for attack in suite:
            tried = self.lines(attack)
            self.missing.append(len(standing - tried.keys()))
            standing = {i for i in standing if i in tried and not tried[i].succeeded and tried[i].error is None}
            self.left.append(standing)
        self.robust = standing
        below = [line for (_, e), lines in table.items() if e < eps for line in lines.values()]
        self.succeeded_below = {line.id for line in below if line.succeeded} & self.right

    def lines(self, attack: str, eps: float | None = None) -> dict[int, Line]:
        return self.table.get((attack, self.eps if eps is None else eps), {})


def _defended(mine: ModelLines, unaware: Sequence[str]) -> Json:
    """Behind a defense: what attacks left that know of it, and what those left that do not, each of all samples.

    gap: the first minus the second, paired. unaware: the names of the latter, the last of the model's attacks. Robust
    is what withstood both.
    """
    if not unaware:
        return {}
    tables = [mine.lines(name) for name in unaware]
    stood = {i for i in mine.right if all(i in t and not t[i].succeeded and t[i].error is None for t in tables)}
    aware = mine.left[-len(unaware) - 1] if len(mine.left) > len(unaware) else mine.right
    shares = {"unaware": share(len(stood), mine.n), "aware": share(len(aware), mine.n)}
    return {"defense": shares | {"gap": _pair(stood, aware, mine.n)}}


def _attack(
    mine: ModelLines,
    at: int,
    norm: str,
    targeted: bool,
    infos: Mapping[tuple[str, float], Mapping[str, Any]],
    unkeyed: bool,
) -> Json:
    name = mine.suite[at]
    info = infos.get((name, mine.eps), {})
    tried = [line for i, line in mine.lines(name).items() if i in mine.right]
    successes = [line for line in tried if line.succeeded]
    # an attack on the distance also finds adversarials that are too far away to be successes; what an unkeyed attack
    # was refused, which has no search copy, broke its budget and is no distance
    broke = unkeyed and info.get("refused", 0) > 0
    far = [] if broke else [line for line in tried if found_beyond(line, norm, mine.eps, targeted)]
    sizes = [size for line in (*successes, *far) if (size := line.size(norm)) is not None]
    rounded = [line.success_8bit for line in successes if line.success_8bit is not None]
    return {
        "name": name,
        "left": share(len(mine.left[at]), mine.n),
        "broken": len(successes),
        "attempted": len(tried),
        "success_rate": share(len(successes), len(tried)),
        "success_8bit": sum(rounded) if len(rounded) == len(successes) else None,
        "leaves_8bit": info.get("leaves_8bit", 0),
        "unverified": info.get("unverified", sum(line.success and line.verified is not True for line in tried))
        + info.get("refused", 0),  # found by the search copy, not confirmed by the model: the search went on
        "errors": sum(line.error is not None for line in tried),
        "missing": mine.missing[at],
        "median_distance": median(sizes) if sizes else None,
        "found": len(sizes),  # the median is of these
        "forwards": fmean(line.forwards for line in tried) if tried else None,
        "backwards": fmean(line.backwards for line in tried) if tried else None,
        "seconds": info.get("seconds"),
        **({"unsearched": info["unsearched"]} if info.get("unsearched") else {}),
        **_allocation(info),
    }


def _allocation(info: Mapping[str, Any]) -> Json:
    """Of an attack that did not try all samples in full: how many not, and what those show that stand for them."""
    if not info.get("controls"):
        return {}
    counts = {key: info[key] for key in ("aside", "controls", "again")}
    missed = share(info["controls_succeeded"], info["controls"])
    return {"allocation": {**counts, "succeeded": info["controls_succeeded"], "missed": missed}}


def _after_rounding(mine: ModelLines) -> Json | None:
    """Robust accuracy where only adversarials that survive rounding to 8 bits count; None where that was not judged.

    In a cascade it is an upper bound: later attacks never tried what succeeded only before rounding.
    """
    if not mine.suite:
        return None
    lost: set[int] = set()
    for attack in mine.suite:
        for i, line in mine.lines(attack).items():
            if line.succeeded and line.success_8bit is None:
                return None
            if line.error is not None or (line.succeeded and line.success_8bit):
                lost.add(i)
    only_before = {
        i for attack in mine.suite for i, line in mine.lines(attack).items() if line.succeeded and not line.success_8bit
    }
    return dict(share(len((mine.robust | (only_before & mine.right)) - lost), mine.n))


def _worst_class(mine: ModelLines, classes: Sequence[str] | None) -> Json:
    """The class with the lowest robust accuracy, the lowest number among equals; `ties` counts the other equals."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, line in mine.clean.items():
        members[line.label].append(i)
    counts = {label: (sum(i in mine.robust for i in ids), len(ids)) for label, ids in members.items()}
    shares = {label: robust / n for label, (robust, n) in counts.items()}
    label = min(shares, key=lambda c: (shares[c], c)) if shares else -1
    return {
        "label": label,
        "name": classes[label] if classes and 0 <= label < len(classes) else str(label),
        "robust_accuracy": share(*counts.get(label, (0, 0))),
        "clean_accuracy": share(sum(i in mine.right for i in members[label]), len(members[label])),
        "ties": sum(c != label and value == shares[label] for c, value in shares.items()),
    }


def distances(mine: ModelLines, attack: str, norm: str, targeted: bool) -> dict[int, float]:
    """How far each sample had to be changed by an attack without a budget until the model was fooled, by id.

    Infinite where nothing was found, 0 where it ended in an error. Samples that it did not try are left out.
    """
    found = {}
    for i, line in mine.lines(attack).items():
        size = line.size(norm) if _fooled(line, targeted) else None
        found[i] = 0.0 if line.error is not None else math.inf if size is None else size
    return {i: found[i] for i in mine.right & found.keys()}


def _fooled(line: Line, targeted: bool) -> bool:
    """Does the model answer at the stored point as the attacker wants, inside the budget or not?"""
    wanted = line.adv == line.target if targeted else line.adv != line.label
    return line.error is None and line.adv is not None and wanted


def found_beyond(line: Line, norm: str, eps: float, targeted: bool) -> bool:
    """Is this an adversarial that lies outside the budget? Attacks that look for the distance find such."""
    return _fooled(line, targeted) and (line.size(norm) or 0.0) > allowed(eps)


def _median_of_all(mine: ModelLines, attack: str, norm: str, targeted: bool) -> Json:
    """The median over all samples that were tried, None where that is infinite."""
    sizes = distances(mine, attack, norm, targeted).values()
    middle = median(sizes) if sizes else math.inf
    return {"median_of_all": middle if math.isfinite(middle) else None}


def _curve_of_distances(mine: ModelLines, curve: Mapping[str, Any], norm: str, targeted: bool) -> list[Json]:
    """Accuracy over eps: a sample falls at the smallest distance that the curve's attack found, or one before it in the
    suite, whose successes lie within the headline eps. No point but the first where a sample was not tried.
    """
    attack = curve["attack"]
    points = [{"eps": 0.0, "source": CLEAN, "share": share(len(mine.right), mine.n)}]
    falls = distances(mine, attack, norm, targeted)
    if falls.keys() != mine.right:
        return points
    for before in mine.suite[: mine.suite.index(attack)]:
        for i, line in mine.lines(before).items():
            if i in falls and (line.succeeded or line.error is not None):
                falls[i] = min(falls[i], line.size(norm) or 0.0)
    for eps in sorted({float(e) for e in curve["eps"] if float(e) > 0} | {mine.eps}):
        left = sum(size > allowed(eps) for size in falls.values())
        points.append({"eps": eps, "source": attack, "share": share(left, mine.n)})
    return points


def _curve(mine: ModelLines, curve: Mapping[str, Any]) -> list[Json]:
    """Accuracy over eps: at the suite's budget what the suite left, at others what is known from the curve's attack.

    A success at one budget counts at every larger one, what withstood one counts as robust at every smaller one. A
    point is left out where that does not say of every sample what it does there: it was not run.
    """
    if not curve:
        return []
    attack = curve["attack"]
    points = [{"eps": 0.0, "source": CLEAN, "share": share(len(mine.right), mine.n)}]
    budgets = sorted({float(e) for e in curve["eps"] if float(e) > 0} | {mine.eps})
    fell = dict.fromkeys(mine.right, math.inf)  # the smallest budget at which it did
    stood = dict.fromkeys(mine.right, 0.0)  # the largest at which it did not
    for eps in budgets:
        attacks = mine.suite if eps == mine.eps and mine.suite else [attack]
        tables = [mine.lines(each, eps) for each in attacks]
        for i in mine.right:
            lines = [table[i] for table in tables if i in table]
            if any(line.succeeded or line.error is not None for line in lines):
                fell[i] = min(fell[i], eps)
            elif len(lines) == len(tables):
                stood[i] = eps
    for eps in budgets:
        if all(fell[i] <= eps or stood[i] >= eps for i in mine.right):
            source = "suite" if eps == mine.eps and mine.suite else attack
            points.append(
                {"eps": eps, "source": source, "share": share(sum(fell[i] > eps for i in mine.right), mine.n)}
            )
    return points


def _pair(first: set[int], second: set[int], n: int) -> Json:
    both = len(first & second)
    return dict(paired_difference(both, len(first) - both, len(second) - both, n - len(first | second)))
