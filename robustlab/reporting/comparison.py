"""Several runs on one page: which of them may be compared, and those that may, as one.

Numbers stand in one table only where they answer the same question: the same samples of the same data with the same
labels, attacked under the same threat. Another suite or another seed is allowed, and said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from robustlab.base.errors import UserError
from robustlab.base.words import listed
from robustlab.reporting.questions import differences, kind
from robustlab.reporting.source import Json, PageRun, with_models
from robustlab.reporting.text import distinct
from robustlab.runs.aggregates import Line, pairs


@dataclass(frozen=True)
class MergedRun(PageRun):
    """Comparable runs as one run with the models of all. An image's file is the number of its run, then its path."""

    parts: tuple[PageRun, ...] = field(default=(), repr=False)

    @cached_property
    def lines(self) -> list[Line]:
        return [line for part in self.parts for line in part.lines]

    @property
    def settings(self) -> list[tuple[str, Json]]:
        return [(part.name, part.info["config"]) for part in self.parts]

    def picture(self, file: str | None) -> str | None:
        if not file:
            return None
        number, _, path = file.partition("/")
        return self.parts[int(number)].picture(path)


class Comparison(NamedTuple):
    """groups: one run each, merged where several are comparable. notices: what a reader must know beforehand."""

    groups: list[PageRun]
    notices: list[str]


def read_runs(folders: Sequence[str | Path]) -> list[PageRun]:
    """The finished runs in these folders, with names that differ. UserError: none given, one given twice, no run."""
    if not folders:
        raise UserError("No run folder was given. Give at least one that `robustlab attack` wrote.")
    places = [Path(folder).resolve() for folder in folders]
    for at, place in enumerate(places):
        if place in places[:at]:
            raise UserError(f"{folders[at]} is given twice. Give every run folder once.")
    runs = [PageRun.read(Path(folder)) for folder in folders]
    names = distinct([run.name for run in runs])
    return [PageRun(run.stored, run.info | {"name": name}, run.names) for run, name in zip(runs, names, strict=True)]


def compare(runs: Sequence[PageRun]) -> Comparison:
    """Comparable runs merged, in the order in which they came; a single run stays as it is."""
    groups: list[list[PageRun]] = []
    for run in runs:
        fitting = (group for group in groups if group[0].models and run.models and not differences(run, group[0]))
        if group := next(fitting, None):
            group.append(run)
        else:
            groups.append([run])
    notices = []
    first: dict[str, PageRun] = {}  # of each kind
    for run, *_ in groups:
        alike = first.setdefault(kind(run), run)
        other = groups[0][0] if alike is run else alike
        if found := differences(run, other):
            notices.append(
                f"{run.name} cannot be compared with {other.name} ({'; '.join(found)}); each has its own tables and"
                " charts."
            )
    notices += [notice for group in groups for run in group[1:] for notice in _cautions(run, group[0])]
    return Comparison([_merged(group) if len(group) > 1 else group[0] for group in groups], notices)


def one_group(folders: Sequence[str | Path]) -> tuple[PageRun, list[str]]:
    """Runs that belong into one table, as one, and what to know about them. UserError where they do not belong."""
    groups, notices = compare(read_runs(folders))
    if len(groups) > 1:
        apart = " ".join(notices[: len(groups) - 1]) or "Not all of these runs are attacks."
        raise UserError(f"{apart} Give runs of the same data, samples and threat.")
    return groups[0], notices


def _cautions(run: PageRun, other: PageRun) -> Iterator[str]:
    """How the attack on a run differed from that on another in its table."""
    mine, theirs = run.info["config"], other.info["config"]
    yield from other_attacks(run, other)
    if mine.get("full") != theirs.get("full"):
        whole, cascade = (run.name, other.name) if mine.get("full") else (other.name, run.name)
        yield (
            f"In {whole} every attack ran on every image, in {cascade} only on what had withstood the attacks before:"
            " compare what is left, not the success rates."
        )
    if mine["seed"] != theirs["seed"]:
        yield (
            f"{run.name} was attacked with seed {mine['seed']}, {other.name} with seed {theirs['seed']}: the random"
            " draws are others."
        )
    curves = [config.get("curve", {}).get("attack") for config in (mine, theirs)]
    if all(curves) and curves[0] != curves[1]:
        yield f"The security curve of {run.name} is from {curves[0]}, that of {other.name} from {curves[1]}."


def other_attacks(run: PageRun, other: PageRun) -> Iterator[str]:
    """Where the attacks on two runs differ, so that one of them may be the weaker one. Another seed is none of it."""
    ours, before = (
        {a["name"]: {"method": a.get("method")} | a.get("parameters", {}) for a in config["attacks"]}
        for config in (run.info["config"], other.info["config"])
    )
    unlike = []
    if list(ours) != list(before):
        unlike.append(f"{', '.join(ours) or 'no attack'} instead of {', '.join(before) or 'no attack'}")
    for name in ours.keys() & before.keys():
        keys = [key for key in {**before[name], **ours[name]} if ours[name].get(key) != before[name].get(key)]
        changes = (f"{key} {_word(ours[name].get(key))} instead of {_word(before[name].get(key))}" for key in keys)
        unlike += [f"{name} with {', '.join(changes)}"] if keys else []
    if unlike:
        yield (
            f"{run.name} was not attacked as {other.name} was ({'; '.join(sorted(unlike))}):"
            " where the robust accuracies differ, the suites may be the reason, not the models."
        )
    if _sources(run) != _sources(other):
        yield (
            f"The images of {run.name} were crafted on {run.crafted_on}, those of {other.name} on {other.crafted_on}:"
            " where the robust accuracies differ, the surrogates may be the reason, not the models."
        )


def _sources(run: PageRun) -> set[tuple[str, ...]]:
    return {tuple(names) for names in run.surrogates.values()}


def _word(value: Any) -> str:
    return "the default" if value is None else str(value)


def _merged(group: Sequence[PageRun]) -> MergedRun:
    """A group of comparable runs as one; a model's name that occurs twice gets its run's beside it."""
    parts = _told_apart(group)
    infos = [part.info for part in parts]

    def lists(key: str) -> list[Json]:
        return [item for info in infos for item in info.get(key, [])]

    def by_name(key: str) -> Json:
        return {name: told for info in infos for name, told in info.get(key, {}).items()}

    days = {str(info.get("times", {}).get("finished", ""))[:10] for info in infos}
    info = infos[0] | {
        "name": listed([part.name for part in parts]),
        "config": _config([info["config"] for info in infos]),
        "seed": listed([*dict.fromkeys(str(info["seed"]) for info in infos)]),
        "times": {"finished": days.pop() if len(days) == 1 else ""},
        "warnings": list(dict.fromkeys(lists("warnings"))),
        "images": [image for at, info in enumerate(infos) for image in _located(at, info.get("images", []))],
        **{key: lists(key) for key in ("models", "passes", "sections")},
        **{key: by_name(key) for key in ("heatmaps", "audit")},
        "aggregates": infos[0]["aggregates"]
        | {
            "models": [model for part in parts for model in part.models],
            "pairs": pairs({name: mine for part in parts for name, mine in part.views.items()}),
        },
    }
    return MergedRun(parts[0].stored, info, parts=tuple(parts))


def _config(configs: Sequence[Json]) -> Json:
    """One configuration for all: every model, every attack in the order in which they occur, every budget."""
    attacks: Json = {}
    for attack in (attack for config in configs for attack in config["attacks"]):
        attacks.setdefault(attack["name"], attack)
    joined = configs[0] | {
        "models": [model for config in configs for model in config["models"]],
        "attacks": list(attacks.values()),
    }
    if curves := [config["curve"] for config in configs if "curve" in config]:
        joined["curve"] = {
            "attack": listed([*dict.fromkeys(curve["attack"] for curve in curves)], "or"),
            "eps": sorted({eps for curve in curves for eps in curve["eps"]}),
        }
        if all(curve.get("from") == "distances" for curve in curves):
            joined["curve"]["from"] = "distances"
    return joined


def _told_apart(group: Sequence[PageRun]) -> list[PageRun]:
    """The same runs, with model names that occur once in the group."""
    told = [(run.name, model["name"]) for run in group for model in run.models]
    often = Counter(name for _, name in told)
    shown = iter(distinct([f"{name} ({run})" if often[name] > 1 else name for run, name in told]))
    parts = []
    for run in group:
        names = {model["name"]: next(shown) for model in run.models}
        in_file = {name: name for name in names} | {name: raw for raw, name in run.names.items()}
        from_file = {in_file[name]: new for name, new in names.items()}
        parts.append(PageRun(run.stored, with_models(run.info, names), from_file))
    return parts


def _located(number: int, images: Iterable[Json]) -> Iterator[Json]:
    """Kept images whose files begin with the number of the run whose folder holds them."""
    for image in images:
        yield {
            key: f"{number}/{value}" if isinstance(value, str) and value.startswith("images/") else value
            for key, value in image.items()
        }
