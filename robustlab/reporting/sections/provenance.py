"""Provenance: what was run, with what, where; enough to run it again and to know what to doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.base.words import duration, listed
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.backdoor_schema import KIND

NAME = "provenance"
TITLE = "Provenance"


def applies(runs: Sequence[PageRun]) -> bool:
    return True


def render(runs: Sequence[PageRun]) -> Markup:
    shown = [{"run": run, "facts": facts(run), "models": _models(run)} for run in runs]
    return fill("sections/provenance.html", shown=shown)


def facts(run: PageRun) -> list[tuple[str, str]]:
    """Label and value of everything that run.json knows; what it does not know is said to be so."""
    info, data = run.info, run.data
    times = info.get("times", {})
    shape = " × ".join(str(side) for side in data.get("shape", []))
    known = [
        ("Command", info.get("command") or "called from Python"),
        ("Data", f"{data['name']}, {data['split']} split, {data.get('n', '?')} samples{', ' + shape if shape else ''}"),
        ("Data hash", data.get("hash", "")),
        *_what(info),
        ("Seed", str(info["seed"])),
        ("Configuration hash", info["config_hash"]),
        ("Device", _device(info.get("device"))),
        ("Versions", _words(info.get("versions"))),
        ("Git", _git(info.get("git"))),
        ("Operational", _words(info.get("operational"))),
        ("Started", times.get("started", "")),
        ("Finished", times.get("finished", "")),
        *_spent(info),
    ]
    return [(label, str(value) if value else "not recorded") for label, value in known]


def _what(info: dict[str, Any]) -> list[tuple[str, str]]:
    """What was run: a suite of attacks; or a trigger, what is tried against it, and the training images."""
    if info.get("kind") != KIND:
        return [("Suite", _suite(info))]
    config, trained = info["config"], info["config"].get("training_data", {})
    given = config["trigger"].get("parameters")
    parameters = _words({k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else given)
    filters, repairs = [plan["name"] for plan in config.get("filters", [])], config.get("repairs", [])
    said = [config["trigger"]["name"] + (f" ({parameters})" if parameters else "")]
    said += [f"{what}: {', '.join(names) or 'none'}" for what, names in (("filters", filters), ("repairs", repairs))]
    return [
        ("Trained on", listed([f"{n:,}" for n in trained.get("n", [])]) + " images (to train on, to choose the epoch)"),
        ("Their hashes", ", ".join(trained.get("hashes", []))),
        ("Trigger and defenses", "; ".join(said)),
    ][0 if trained.get("n") else 2 :]


def _spent(info: dict[str, Any]) -> list[tuple[str, str]]:
    """How long the parts took; which there are depends on the kind of the run."""
    times = info.get("times", {})
    if info.get("kind") != KIND:
        return [
            ("Time in the units", duration(times["seconds"]) if "seconds" in times else ""),
            ("Time of the audit", duration(times["audit"]) if "audit" in times else ""),
        ]
    spent = {name: value for name, value in times.items() if isinstance(value, int | float)}
    return [("Times", ", ".join(f"{name} {duration(value)}" for name, value in spent.items()))]


def _suite(info: dict[str, Any]) -> str:
    names = [attack["name"] for attack in info["config"].get("attacks", [])]
    mode = "every attack on every image" if info["config"].get("full") else "a cascade"
    return f"{info.get('suite') or 'unnamed'}: {', '.join(names) or 'no attack'}" + (f" ({mode})" if names else "")


def _models(run: PageRun) -> list[dict[str, str]]:
    """The attacked models, and the surrogates that were not attacked themselves."""
    lent = [model | {"name": f"{model['name']} (surrogate)"} for model in run.info.get("surrogates", [])]
    return [_model(model) for model in (*run.info.get("models", []), *lent)]


def _model(model: dict[str, Any]) -> dict[str, str]:
    copy = model.get("search_copy") or {}
    how = [word for word, on in (("folded", copy.get("folded")), ("compiled", copy.get("compiled"))) if on]
    used = ", ".join(["used", *how, str(copy.get("precision", ""))]).rstrip(", ")
    return {
        "name": model["name"],
        "hash": model.get("hash", "not recorded"),
        "parameters": f"{model['parameters']:,}" if "parameters" in model else "not recorded",
        "search_copy": (used if copy["used"] else f"not used: {copy.get('reason')}") if copy else "not recorded",
    }


def _device(device: Any) -> str:
    if not isinstance(device, dict) or "name" not in device:
        return _words(device)
    return f"{device['name']} ({_words({k: v for k, v in device.items() if k != 'name'})})"


def _git(git: dict[str, Any] | None) -> str:
    if not git or not git.get("commit"):
        return "not a checkout"
    return str(git["commit"]) + (" with uncommitted changes" if git.get("dirty") else "")


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return "" if value is None else str(value)
