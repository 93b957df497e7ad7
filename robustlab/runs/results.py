"""The machine-readable answer of `robustlab attack --json`."""

from __future__ import annotations

from typing import Any

from robustlab.runs.stored import StoredRun


def results(run: StoredRun) -> dict[str, Any]:
    """The headline eps of each model, and the curve; every share is {value, low, high, n}, a fraction.

    Returns {run, results: [{model, norm, eps, clean_accuracy, robust_accuracy, attacks: [...]}], curve: [...]};
    `run` is the folder.
    """
    numbers = run.info["aggregates"]
    threat = {"norm": numbers["norm"], "eps": numbers["eps"]}
    kept = ("clean_accuracy", "robust_accuracy", "robust_accuracy_8bit", "attacks")
    return {
        "run": str(run.folder),
        "results": [
            {"model": model["name"], **threat, **{key: model[key] for key in kept}} for model in numbers["models"]
        ],
        "curve": [
            {"model": model["name"], "norm": threat["norm"], "eps": point["eps"]}
            | {"attack": point["source"], "accuracy": point["share"]}
            for model in numbers["models"]
            for point in model["curve"]
        ],
    }
