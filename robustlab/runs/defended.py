"""Models behind a defense: which attacks they met, and what an attacker gets who knows the defense, or does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def unaware(attack: str) -> str:
    """What an attack is called in lines and tables where its images were crafted on the bare model.

    >>> unaware("pgd")
    'pgd (unaware)'
    """
    return f"{attack} (unaware)"


def suite_of(config: Mapping[str, Any], model: str) -> list[str]:
    """The names of the attacks on a model, in order: the suite's, then, behind a defense, those on the bare model.

    >>> suite_of({"attacks": [{"name": "pgd"}], "models": [{"name": "m", "unaware": ["pgd (unaware)"]}]}, "m")
    ['pgd', 'pgd (unaware)']
    """
    own: list[str] = next((m.get("unaware", []) for m in config["models"] if m["name"] == model), [])
    return [*(attack["name"] for attack in config["attacks"]), *own]


def bare_models(config: Mapping[str, Any]) -> dict[str, str]:
    """Of each model behind a defense the name of the model without it."""
    return {model["name"]: model["bare"] for model in config.get("models", []) if model.get("bare")}
