"""What a run says of detectors of adversarial images: how well they tell attacked images from clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DETECTION = "detectors"  # the name of its section in run.json
RANDOM = "random score"  # the control: a detector that knows nothing
RATE = 0.05  # of clean images that a detector may flag
ATTACKERS = {
    "first": "unaware, stops at the first success",
    "every": "unaware, takes every step",
    "aware": "knows the detector",
    "noise": "random noise instead of an attack",
}
SHORT = {"first": "unaware, first success", "every": "unaware, every step", "aware": "aware", "noise": "random noise"}

Json = dict[str, Any]


def detections(info: Mapping[str, Any]) -> Json | None:
    """The section of the detectors, None where none was asked for.

    Its rows have model, detector, attacker (a key of `ATTACKERS`), auroc, tpr, fpr, wrong and unnoticed: all with an
    interval and n.
    """
    return next((section for section in info.get("sections", []) if section["name"] == DETECTION), None)


def area(auroc: Mapping[str, Any]) -> tuple[str, str]:
    """An area under the ROC curve with its interval, as texts.

    >>> area({"value": 0.9411, "low": 0.88, "high": 0.972, "n": 56})
    ('0.941', '0.880–0.972')
    """
    if auroc["value"] is None:
        return "–", ""
    return f"{auroc['value']:.3f}", f"{auroc['low']:.3f}–{auroc['high']:.3f}"
