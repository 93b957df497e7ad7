"""Did a model get worse? Conditions on two runs of the same images, tested so that noise does not fail a build.

A condition such as `robust_accuracy < base - 0.01` holds where a one-sided test says so: the hypothesis is that the
new model is at most 0.01 worse than the base, and the condition holds where its p is below the level.

- Against `base` the test is paired: it counts the images on which only one of the two models is right
  (`robustlab.base.one_sided.drop_p`; without a margin McNemar's exact one-sided test).
- Against a number it is the exact binomial test of the new run alone (`below_p`).
- `worst_class` holds where it holds for any class. A class is compared with the same class of the base, and p is
  multiplied by the number of classes (Bonferroni), because the class is picked after looking.
- All p of one comparison are Holm-corrected. So two models that are equally good fail a build with a probability of at
  most the level, however many conditions are given.

A weaker attack makes a model look better. So runs with other attacks are refused where a condition is on robust
accuracy, unless the caller allows them; and checks of the attack that fail only in the new run are told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from robustlab.base.errors import UserError
from robustlab.base.intervals import PairedDifference, Share, paired_difference, share
from robustlab.base.one_sided import below_p, drop_p, holm
from robustlab.base.words import counted, listed
from robustlab.reporting.comparison import compare, other_attacks, read_runs
from robustlab.reporting.conditions import Condition
from robustlab.reporting.source import PageRun
from robustlab.runs.aggregates import ModelLines
from robustlab.runs.audits import failed_checks

LEVEL = 0.05


class Change(NamedTuple):
    """One metric of one model, before and after, on the same images. label: the class, where it is about one."""

    metric: str
    base: Share
    new: Share
    difference: PairedDifference
    label: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of one condition for one model. change: what was tested; of several classes that with the least p."""

    condition: Condition
    model: str
    change: Change
    class_name: str | None
    p: float
    holds: bool = False


@dataclass(frozen=True)
class Gate:
    """A comparison of two runs. changes: for each model clean and robust accuracy. notes: what a reader must know.

    doubts: of each model whose attack failed checks in the new run that it did not fail in the base, which.
    """

    base: Path
    new: Path
    about: str
    level: float
    changes: list[tuple[str, Change]]
    verdicts: list[Verdict]
    notes: list[str]
    doubts: list[tuple[str, str]]

    @property
    def failed(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.holds]


def gate(
    base: str | Path,
    new: str | Path,
    conditions: Sequence[Condition],
    *,
    level: float = LEVEL,
    model: str | None = None,
    allow_other_attacks: bool = False,
) -> Gate:
    """Compare two runs of the same images under the same threat; see the top of this file for the tests.

    Models of the same name are compared, or the one of each run. model: only this one.
    allow_other_attacks: compare also where the runs were attacked otherwise; it is in the notes.
    UserError: runs that cannot be compared (other data, samples, labels, threat or attacks), or no such models.
    """
    runs = read_runs([base, new])
    for run in runs:
        if not run.models:
            raise UserError(f"{run.folder} is no attack run. Give two folders that `robustlab attack` wrote.")
        if not all(one["attacks"] for one in run.models):
            raise UserError(f"{run.folder} has no attack: nothing is known of its robust accuracy.")
    groups, notices = compare(runs)
    if len(groups) > 1:
        raise UserError(f"{notices[0].split('; each has')[0]}. Give runs of the same data, samples and threat.")
    before, after = runs
    unlike = [] if allow_other_attacks else list(other_attacks(after, before))
    if unlike and any(condition.metric != "clean_accuracy" for condition in conditions):
        raise UserError(f"{' '.join(unlike)} Give runs with the same attacks, or --allow-other-attacks.")
    classes = list(map(str, before.data["classes"]))
    pairs = list(_pairs(before, after, model))
    views = {name: (before.views[old], after.views[name]) for old, name in pairs}
    changes, verdicts = decide(views, conditions, classes, level)
    about = f"{before.data['name']}, {before.data['split']} split, n = {before.models[0]['n']:,}; {before.threat}"
    return Gate(before.folder, after.folder, about, level, changes, verdicts, notices, _doubts(before, after, pairs))


def _doubts(before: PageRun, after: PageRun, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    found = []
    for old, name in pairs:
        had = failed_checks(before.info, old)
        if checks := [check for check in failed_checks(after.info, name) if check not in had]:
            said = f"{counted(len(checks), 'check')} of the attack on {name} ({', '.join(checks)})"
            found.append((name, f"{said} failed in the new run, not in the base: its robust accuracy may be too high."))
    return found


def decide(
    views: Mapping[str, tuple[ModelLines, ModelLines]],
    conditions: Sequence[Condition],
    classes: Sequence[str] = (),
    level: float = LEVEL,
) -> tuple[list[tuple[str, Change]], list[Verdict]]:
    """What changed in each model, and which conditions hold. views: for each model its lines before and after."""
    changes, verdicts = [], []
    for name, (before, after) in views.items():
        found = _changes(before, after)
        changes += [(name, change) for change in found if change.label is None]
        verdicts += [_verdict(condition, name, found, classes) for condition in conditions]
    corrected = holm([verdict.p for verdict in verdicts])
    return changes, [replace(one, p=p, holds=p < level) for one, p in zip(verdicts, corrected, strict=True)]


def _pairs(before: PageRun, after: PageRun, only: str | None) -> Iterator[tuple[str, str]]:
    """The names of each model in the base and in the new run."""
    old, new = ([str(model["name"]) for model in run.models] for run in (before, after))
    if only is not None:
        if only not in old or only not in new:
            raise UserError(
                f"There is no model {only!r} in both runs: the base has {listed(old)}, the new one {listed(new)}."
            )
        return iter([(only, only)])
    if len(old) == len(new) == 1:
        return iter([(old[0], new[0])])
    if set(old) != set(new):
        raise UserError(
            f"The runs have other models: the base {listed(old)}, the new one {listed(new)}."
            " Give runs of one model each, or of models with the same names, or name one: --model."
        )
    return ((name, name) for name in new)


def _changes(before: ModelLines, after: ModelLines) -> list[Change]:
    """Clean and robust accuracy, then the robust accuracy of each class."""
    members: dict[int, set[int]] = defaultdict(set)
    for i, line in before.clean.items():
        members[line.label].add(i)
    everything = set(before.clean)
    return [
        _change("clean_accuracy", before.right, after.right, everything),
        _change("robust_accuracy", before.robust, after.robust, everything),
        *(_change("worst_class", before.robust, after.robust, ids, label) for label, ids in sorted(members.items())),
    ]


def _change(metric: str, first: set[int], second: set[int], ids: set[int], label: int | None = None) -> Change:
    first, second, n = first & ids, second & ids, len(ids)
    both = len(first & second)
    difference = paired_difference(both, len(first) - both, len(second) - both, n - len(first | second))
    return Change(metric, share(len(first), n), share(len(second), n), difference, label)


def _verdict(condition: Condition, model: str, changes: Iterable[Change], classes: Sequence[str]) -> Verdict:
    """p before the correction for several conditions."""
    tested = [(_p(condition, change), change) for change in changes if change.metric == condition.metric]
    p, change = min(tested, key=lambda one: (one[0], _beyond(condition, one[1])))
    name = None
    if change.label is not None:
        name = classes[change.label] if 0 <= change.label < len(classes) else str(change.label)
    return Verdict(condition, model, change, name, min(1.0, p * len(tested)))


def _p(condition: Condition, change: Change) -> float:
    n = change.difference["n"]
    if not condition.relative:
        return below_p(round((change.new["value"] or 0.0) * n), n, condition.value)
    return drop_p(change.difference["only_first"], change.difference["only_second"], n, condition.margin)


def _beyond(condition: Condition, change: Change) -> float:
    """For equal p: the class that comes nearest to the condition."""
    return float((change.difference if condition.relative else change.new)["value"] or 0.0)


def as_json(gate: Gate) -> Mapping[str, object]:
    """The comparison as `robustlab compare --format json` prints it; shares as {value, low, high, n}."""
    return {
        "base": str(gate.base),
        "new": str(gate.new),
        "level": gate.level,
        "changes": [{"model": model, **_said(change)} for model, change in gate.changes],
        "conditions": [
            {"condition": one.condition.text, "model": one.model, "class": one.class_name, "p": one.p}
            | {"holds": one.holds, **_said(one.change)}
            for one in gate.verdicts
        ],
        "doubts": [text for _, text in gate.doubts],
        "notes": gate.notes,
    }


def _said(change: Change) -> dict[str, object]:
    return {"metric": change.metric, "base": change.base, "new": change.new, "difference": change.difference}
