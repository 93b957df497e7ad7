"""The machine-readable answer of `robustlab attack --json`."""

from __future__ import annotations

from typing import Any

from robustlab.runs.audits import audit_of
from robustlab.runs.defended import bare_models
from robustlab.runs.detections import detections
from robustlab.runs.stored import StoredRun
from robustlab.runs.transfer import matrix, surrogates


def results(run: StoredRun) -> dict[str, Any]:
    """The headline eps of each model, and the curve; every share is {value, low, high, n}, a fraction.

    Returns {run, results: [{model, norm, eps, clean_accuracy, robust_accuracy, attacks: [...]}], curve: [...]};
    `run` is the folder. Results of a transfer attack have `surrogates`; with a transfer matrix there is `transfer`:
    {attack, rows: [{source, target, white_box, turned, errors, reason}]}. A model behind a defense has `defense`:
    {bare, unaware, aware, gap}, the name of the model without it, what attacks left that do not know of the defense
    and that do, and the paired difference; its `robust_accuracy` is what withstood both. `audit` of a result is that
    of the attack on the model, {n, checks: [{name, title, status, measured, numbers, advice, source}]}, or null where
    none was run.
    With detectors there is `detectors`: {attack, steps, rows: [{model, detector, attacker, auroc, tpr, fpr, wrong,
    unnoticed}]}.
    """
    numbers = run.info["aggregates"]
    threat = {"norm": numbers["norm"], "eps": numbers["eps"]}
    kept = ("clean_accuracy", "robust_accuracy", "robust_accuracy_8bit", "attacks")
    detected = detections(run.info)
    bare = bare_models(run.info["config"])
    crafted_on, board = surrogates(run.info), matrix(run.info)
    return {
        "run": str(run.folder),
        "results": [
            {"model": model["name"], **threat, **{key: model[key] for key in kept}}
            | ({"surrogates": crafted_on[model["name"]]} if model["name"] in crafted_on else {})
            | ({"defense": {"bare": bare[model["name"]], **model["defense"]}} if model["name"] in bare else {})
            | {"audit": audit_of(run.info, model["name"])}
            for model in numbers["models"]
        ],
        "curve": [
            {"model": model["name"], "norm": threat["norm"], "eps": point["eps"]}
            | {"attack": point["source"], "accuracy": point["share"]}
            for model in numbers["models"]
            for point in model["curve"]
        ],
        **({"detectors": {key: detected[key] for key in ("attack", "steps", "rows")}} if detected else {}),
        **({"transfer": {key: board[key] for key in ("attack", "rows")}} if board else {}),
    }
