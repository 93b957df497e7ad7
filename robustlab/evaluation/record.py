"""What a run records of itself: the configuration that decides it, where its numbers come from, and its samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import msgspec
import torch

from robustlab.attacks.parameters import THREAT
from robustlab.attacks.suite import Member, Suite
from robustlab.base.environment import describe_device, git_state, versions
from robustlab.data import Data
from robustlab.evaluation.cascade import perturbation_scale
from robustlab.evaluation.options import Options
from robustlab.models.classifier import Classifier
from robustlab.models.search_copy import SearchCopy


def configuration(
    models: Sequence[Classifier],
    data: Data,
    suite: Suite,
    options: Options,
    curve: Mapping[str, Any],
    surrogates: Sequence[Sequence[Classifier]],
    randomised: Sequence[Mapping[str, int]],
) -> dict[str, Any]:
    """Everything that decides outcomes, and nothing else: this is what the configuration hash covers.

    curve: as `runs.Run.create` describes it. surrogates: of each model, what its images are crafted on. randomised: of
    each model, over how many draws a gradient is averaged (`eot`) and how many `evaluations` judge, where that is more
    than one.
    """
    threat = suite.threat
    named = {model.name: _named(model) for group in (models, *surrogates) for model in group}
    config: dict[str, Any] = {
        "models": [
            named[model.name] | ({"surrogates": [named[each.name] for each in own]} if own else {}) | dict(draws)
            for model, own, draws in zip(models, surrogates, randomised, strict=True)
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
        "attacks": [{"name": m.name, "method": m.method, "parameters": _parameters(m)} for m in suite.members],
        "seed": options.seed,
        "search_copy": options.search_copy,
        "precision": options.precision,
        "compile": options.compile,
        "chunk_size": options.chunk_size,
        "full": options.full,
        "keep": options.keep,
        "audit": options.audit,
        "save_adversarial": options.save_adversarial,
    }
    if options.labels == "predicted":
        config["labels"] = "predicted"
    if data.relabelled:  # which output a class stands for follows from names that no other hash covers
        config["data"]["labels"] = hashlib.sha256(data.labels.numpy().tobytes()).hexdigest()[:16]
    if threat.targeted:
        config["threat"] |= {"targeted": True, "target": threat.target}
    if suite.transfer:
        config["transfer_matrix"] = suite.members[0].name
    if curve:
        config["curve"] = dict(curve)
    return config


def _parameters(member: Member) -> dict[str, Any]:
    """As the card or flag gave them; a suite that was made in Python may have given them to the attack alone."""
    attack = member.attack
    own = [f for f in fields(attack) if f.init and f.name not in THREAT and f.name not in member.parameters]
    return member.parameters | {f.name: value for f in own if (value := getattr(attack, f.name)) != f.default}


def _named(model: Classifier) -> dict[str, Any]:
    named = {"name": model.name, "hash": model.hash()}
    return named if model.outputs == "logits" else named | {"outputs": model.outputs}


def about(
    models: Sequence[Classifier],
    copies: Sequence[SearchCopy],
    data: Data,
    suite: Suite,
    device: torch.device,
    surrogates: Sequence[tuple[Classifier, SearchCopy]],
) -> dict[str, Any]:
    """What run.json says beside the configuration: where the numbers come from, and how to load it all again.

    surrogates: those that are not attacked themselves.
    """
    return {
        "kind": "attack",
        "suite": suite.name,
        "eps_typed": suite.eps_typed,
        "perturbation_scale": perturbation_scale(suite.threat, data.images[0].numel()),
        "versions": versions(),
        "device": describe_device(device),
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
        "models": [_described(*each) for each in zip(models, copies, strict=True)],
        **({"surrogates": [_described(*each) for each in surrogates]} if surrogates else {}),
    }


def meanings(data: Data) -> dict[str, Any]:
    """What the values of each factor mean: label, unit, kind and categories."""
    return dict(msgspec.json.decode(msgspec.json.encode(data.meanings)))


def _described(model: Classifier, copy: SearchCopy) -> dict[str, Any]:
    return _named(model) | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "search_copy": copy.describe(),
        **({"source": model.source} if model.source else {}),
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
