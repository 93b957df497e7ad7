"""What a run records of itself: the configuration that decides it, where its numbers come from, and its samples."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

import msgspec
import torch

from robustlab.attacks.parameters import THREAT
from robustlab.attacks.suite import Member
from robustlab.base.environment import describe_device, git_state, versions
from robustlab.data import Data
from robustlab.evaluation.cascade import perturbation_scale
from robustlab.evaluation.plan import Participant, Plan
from robustlab.models.classifier import Classifier

# options that are in the configuration always
_DECIDING = ("seed", "search_copy", "precision", "compile", "full", "keep", "audit", "save_adversarial")


def configuration(plan: Plan) -> dict[str, Any]:
    """Everything that decides outcomes, and nothing else: this is what the configuration hash covers."""
    data, options, suite, threat = plan.data, plan.options, plan.suite, plan.suite.threat
    named = {each.model.name: _named(each.model) for each in plan.everyone}
    config: dict[str, Any] = {
        "models": [
            named[each.model.name]
            | ({"surrogates": [named[surrogate.name] for surrogate in surrogates]} if surrogates else {})
            | averaging
            | _behind(plan, each.model.name)
            for each, surrogates, averaging in zip(plan.attacked, plan.crafted_on, plan.averaging, strict=True)
        ],
        "data": {
            "name": data.name,
            "split": data.split,
            "hash": data.hash,
            "ids": hashlib.sha256(data.ids.numpy().tobytes()).hexdigest()[:16],
            "n": len(data),
        },
        "suite": suite.name,
        "threat": {"norm": threat.norm, "eps": threat.eps},
        "attacks": [
            {"name": m.name, "method": m.method, "parameters": _parameters(m)}
            | ({} if m.attack.keyed else {"unkeyed": True})
            for m in suite.members
        ],
        "chunk_size": plan.chunk_size,
        **{name: getattr(options, name) for name in _DECIDING},
    }
    if options.detector:
        config["detectors"] = list(options.detector)
    if options.labels == "predicted":
        config["labels"] = "predicted"
    if data.relabelled:  # which output a class stands for follows from names that no other hash covers
        config["data"]["labels"] = hashlib.sha256(data.labels.numpy().tobytes()).hexdigest()[:16]
    if threat.targeted:
        config["threat"] |= {"targeted": True, "target": threat.target}
    if suite.transfer:
        config["transfer_matrix"] = suite.members[0].name
    if plan.curve:
        config["curve"] = {"attack": (plan.nearest or suite.curve_member).name, "eps": list(plan.curve)}
        config["curve"] |= {"from": "distances"} if plan.nearest else {}
    return config


def _parameters(member: Member) -> dict[str, Any]:
    """As the card or flag gave them; a suite that was made in Python may have given them to the attack alone."""
    attack = member.attack
    own = [f for f in fields(attack) if f.init and f.repr and f.name not in (*THREAT, *member.parameters)]
    return member.parameters | {f.name: value for f in own if (value := getattr(attack, f.name)) != f.default}


def _behind(plan: Plan, model: str) -> dict[str, Any]:
    if (front := plan.fronts.get(model)) is None:
        return {}
    names = [member.name for member in plan.unaware(model)]
    return {"defense": front.table, "bare": front.bare.name, "unaware": names}


def _named(model: Classifier) -> dict[str, Any]:
    named = {"name": model.name, "hash": model.hash()}
    return named if model.outputs == "logits" else named | {"outputs": model.outputs}


def about(plan: Plan) -> dict[str, Any]:
    """What run.json says beside the configuration: where the numbers come from, and how to load it all again.

    Ask before `Plan.search_as_recorded`.
    """
    data, suite = plan.data, plan.suite
    return {
        "kind": "attack",
        "suite": suite.name,
        "eps_typed": suite.eps_typed,
        "perturbation_scale": perturbation_scale(suite.threat, data.images[0].numel()),
        "versions": versions(),
        "device": describe_device(plan.device),
        "git": git_state(),
        "data": {
            "name": data.name,
            "split": data.split,
            "hash": data.hash,
            "n": len(data),
            "shape": list(data.images.shape[1:]),
            "classes": list(data.classes),
            **({"factors": meanings(data)} if data.meanings else {}),
            **({"source": data.source} if data.source else {}),
        },
        "models": [_described(each) for each in plan.attacked],
        **({"surrogates": [_described(each) for each in plan.surrogates]} if plan.surrogates else {}),
        "warnings": plan.warnings,
        **({"randomised": True} if plan.randomised else {}),
    }


def meanings(data: Data) -> dict[str, Any]:
    """What the values of each factor mean: label, unit, kind and categories."""
    return dict(msgspec.json.decode(msgspec.json.encode(data.meanings)))


def _described(each: Participant) -> dict[str, Any]:
    return _named(each.model) | {
        "parameters": sum(p.numel() for p in each.model.parameters()),
        "search_copy": each.copy.describe(),
        **({"trained": each.model.trained} if each.model.trained else {}),
        **({"source": each.model.source} if each.model.source else {}),
    }


def data_lines(data: Data) -> list[dict[str, Any]]:
    lines = []
    for where in torch.arange(len(data)).split(128):  # not all images at once
        part = data.take(where).loaded()
        for i in range(len(part)):
            image = part.images[i].contiguous().numpy().tobytes()
            lines.append(
                {
                    "id": int(part.ids[i]),
                    "label": int(part.labels[i]),
                    "hash": hashlib.sha256(image).hexdigest()[:16],
                    "factors": {name: float(values[i]) for name, values in part.factors.items()},
                }
            )
    return lines
