"""What the runs that fit something and judge it say alike: their configuration, their headings, their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from robustlab.base.words import interval, percent
from robustlab.evaluation.running import section_of
from robustlab.models.classifier import Classifier
from robustlab.reporting.text import shown_names
from robustlab.runs import StoredRun


def config_of(networks: Sequence[Classifier], name: str, method: str, attack: Any, seed: int) -> dict[str, Any]:
    """What every such run has in its configuration. attack: a dataclass."""
    return {
        "models": [{"name": network.name, "hash": network.hash()} for network in networks],
        "attacks": [{"name": name, "method": method, "parameters": asdict(attack)}],
        "seed": seed,
    }


def first_of(models: Sequence[Classifier]) -> str:
    """What the page calls the first model, which something is fitted on."""
    return shown_names([model.name for model in models])[models[0].name]


def aim_of(target: int | None, classes: Sequence[str]) -> str:
    """What counts as a success, as a heading. classes: the names, or none where nobody knows them.

    >>> aim_of(1, ["dog", "cat"]), aim_of(3, []), aim_of(None, [])
    ('Read as cat', 'Read as class 3', 'Read wrong')
    """
    return "Read wrong" if target is None else f"Read as {classes[target] if classes else f'class {target}'}"


def in_words(run: StoredRun, what: str, of: str) -> list[str]:
    """What the section `success` says, a sentence for each model. what: patch or sticker. of: images or views."""
    section, said = section_of(run, "success"), []
    names = shown_names([row["model"] for row in section["rows"]])
    aim = next(column["label"] for column in section["columns"] if column["key"] == "success")
    for model in dict.fromkeys(row["model"] for row in section["rows"]):
        own = {row[what]: row["success"] for row in section["rows"] if row["model"] == model}
        success = own.pop(what)
        others = ", ".join(f"{name} {percent(share)}" for name, share in own.items())
        said.append(
            f"{names[model]}: {percent(success)} ({interval(success)}) of {success['n']} {of} are"
            f" {aim[0].lower() + aim[1:]} with the {what}. Controls: {others}."
        )
    return said


KEPT = {"losses": "losses", "search_copies": "copy"}  # fields of run.json, and what a fit's part calls them


def kept_fields(done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What run.json keeps of the parts of a fit beside its section: the curve of the loss, and the search copy."""
    return {field: {name: each[key] for name, each in done.items()} for field, key in KEPT.items()}


def without_kept(each: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a fit without what `kept_fields` takes."""
    return {key: value for key, value in each.items() if key not in KEPT.values()}
