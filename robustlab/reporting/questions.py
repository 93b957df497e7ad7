"""What a run answers: two runs may stand in one table only where they were asked the same question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustlab.reporting.source import PageRun

Answered = dict[str, tuple[Any, str]]  # part of the question -> its value, and how it is said


def kind(run: PageRun) -> str:
    """What was done in a run, in words.

    Runs of another kind than an attack are named as their sections are: "sticker", "patch", "backdoor".
    """
    if run.models:
        return "attack"
    done = str(run.info.get("kind", ""))
    return str(run.info.get("suite") or "sticker or patch") if done == "physical" else done


def differences(run: PageRun, other: PageRun) -> list[str]:
    """Why the numbers of two runs do not belong beside each other, in words; empty where they do."""
    if kind(run) != kind(other):
        return [f"another kind of run: {kind(run)} instead of {kind(other)}"]
    mine, theirs = _question(run), _question(other)
    unlike = [what for what in mine if mine[what][0] != theirs[what][0]]
    if "data" in unlike:  # then the samples and their classes are others, too
        unlike = [what for what in unlike if what not in ("samples", "image size", "classes")]
    said = []
    for what in unlike:
        here, there = mine[what][1], theirs[what][1]
        said.append(f"{what}: {here} instead of {there}" if here != there else f"{what}: both {here}, but not the same")
    return said


def _question(run: PageRun) -> Answered:
    if run.models:
        return _of_attack(run)
    config, data = run.info["config"], run.data
    common: Answered = {
        "data": (config.get("data", {}).get("hash"), f"{data['name']}, {data['split']} split"),
        "samples": (config.get("data", {}).get("n"), f"n = {config.get('data', {}).get('n', 0):,}"),
    }
    if run.info.get("kind") == "physical":
        fitted = config["attacks"][0].get("parameters", {})
        return common | _words(fitted, {"source": "on a sign", "target": "to be read as"}, "any")
    trigger = config.get("trigger", {})
    return (
        common
        | {"trigger": ((trigger.get("name"), trigger.get("parameters")), str(trigger.get("name")))}
        | _words(config, {"relation": "relation", "rate": "rate", "of": "rate of", "target": "target"}, "every class")
        | {"training images": (config.get("training_data"), f"n = {config.get('training_data', {}).get('n')}")}
    )


def _words(values: Mapping[str, Any], named: Mapping[str, str], none: str) -> Answered:
    return {name: (values.get(key), str(values.get(key) or none)) for key, name in named.items()}


def _of_attack(run: PageRun) -> Answered:
    """What a number of this run answers: for each part of the question its value, and how it is said."""
    config, data = run.info["config"], run.data
    chosen, threat = config.get("data", {}), config["threat"]
    shape, classes = data.get("shape", []), data["classes"]
    aim = (threat.get("targeted", False), threat.get("target"))
    return {
        "data": (chosen.get("hash"), f"{data['name']}, {data['split']} split"),
        "samples": ((chosen.get("ids"), run.models[0]["n"]), f"n = {run.models[0]['n']:,}"),
        "image size": (shape, " × ".join(str(side) for side in shape)),
        "classes": (classes, f"{len(classes)}"),
        "labels": (config.get("labels"), config.get("labels", "given")),
        "threat": ((threat["norm"], threat["eps"], aim, bool(run.surrogates)), run.threat),
    }
