"""What a run says of transfer: the surrogates of each model, and the matrix of every model against every other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRANSFER_MATRIX = "transfer-matrix"  # the name of its section in run.json

Json = dict[str, Any]


def surrogates(info: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of the models that each model's images were crafted on; no entry in a white-box attack.

    >>> surrogates({"config": {"models": [{"name": "a", "surrogates": [{"name": "b", "hash": "0"}]}, {"name": "c"}]}})
    {'a': ['b']}
    """
    models = info["config"].get("models", [])
    return {m["name"]: [s["name"] for s in m["surrogates"]] for m in models if m.get("surrogates")}


def matrix(info: Mapping[str, Any]) -> Json | None:
    """The section of the transfer matrix: its rows have source, target, white_box, turned, errors and reason."""
    return next((section for section in info.get("sections", []) if section["name"] == TRANSFER_MATRIX), None)
