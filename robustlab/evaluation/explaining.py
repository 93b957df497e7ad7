"""`robustlab explain`: heatmaps of a few images, before and after an attack, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.attacks.base import Attack
from robustlab.base.errors import UserError
from robustlab.explain.activations import Channels, strongest_channels
from robustlab.explain.heatmaps import Heatmaps
from robustlab.explain.layers import Layer, find_layer
from robustlab.explain.methods import METHODS, draw
from robustlab.explain.sanity import Check, checks, drawn_by
from robustlab.explain.shifts import means, same_size_noise, shift
from robustlab.oracle import ask, undisturbed

Json = dict[str, Any]
VERSIONS = {
    "adv": "attacked, for the class that is predicted then",
    "same": "attacked, for the class of the clean image",
    "noise": "the same change at random places, for the class of the clean image",
}


@dataclass(frozen=True, eq=False)
class Explained:
    """What was drawn. clean, and adv where there was an attack: images. maps: method -> version -> Heatmaps.

    predicted, confidence: of each version of the images. shifts: rows of the table. checks: method -> its checks.
    """

    clean: Tensor
    ids: Tensor
    labels: Tensor
    layer: Layer | None
    predicted: dict[str, Tensor]
    confidence: dict[str, Tensor]
    maps: dict[str, dict[str, Heatmaps]]
    adv: Tensor | None = None
    channels: Channels | None = None
    shifts: list[Json] = field(default_factory=list)
    checks: dict[str, list[Check]] = field(default_factory=dict)


def explain_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    ids: Tensor,
    methods: Sequence[str],
    *,
    layer: str | None = None,
    attack: Attack | None = None,
    judged: Tensor | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Explained:
    """Heatmaps of the classes that the model predicts for (N, C, H, W) images in [0, 1].

    labels: (N,), -1 where none is known: an attack then leaves the model's own answer. attack: also explain the
    attacked images, and measure how far the heat moves. judged: images for the sanity checks; none: no checks.
    UserError: a method or a layer that does not exist or does not fit.
    """
    needs_layer = any(METHODS[name].layer for name in methods)
    at = find_layer(model, images, layer) if needs_layer else None
    if layer is not None and at is None:
        raise UserError(f"A layer means nothing for {', '.join(methods)}: leave it out.")
    classes, sure = _answers(model, images)
    predicted, confidence = {"clean": classes}, {"clean": sure}
    asked: dict[str, tuple[Tensor, Tensor]] = {"clean": (images, classes)}
    adv = None
    if attack is not None:
        say("Attacking the images.")
        adv = attack(model, images, torch.where(labels < 0, classes, labels))
        predicted["adv"], confidence["adv"] = _answers(model, adv)
        noise = same_size_noise(images, adv, seed, ids)
        asked |= {"adv": (adv, predicted["adv"]), "same": (adv, classes), "noise": (noise, classes)}
    maps: dict[str, dict[str, Heatmaps]] = {}
    shifts: list[Json] = []
    for name in methods:
        say(f"Drawing {name}.")
        maps[name] = {version: draw(name, model, x, k, layer=at) for version, (x, k) in asked.items()}
        for version in [each for each in VERSIONS if each in asked]:
            first, second = maps[name]["clean"], maps[name][version]
            shifts.append(
                {"method": name, "version": version, "zero": int((first.zero | second.zero).sum())}
                | means(shift(first.maps, second.maps))
            )
    channels = strongest_channels(model, images, layer=at) if at is not None and "activations" in methods else None
    found: dict[str, list[Check]] = {}
    if judged is not None:
        own, _ = _answers(model, judged)
        for name in methods:
            say(f"Checking {name} on {len(judged)} images.")
            more = {"layer": at.name} if at is not None else {}
            found[name] = checks(drawn_by(name, signed=True, **more), model, judged, own, seed=seed)
    return Explained(images, ids, labels, at, predicted, confidence, maps, adv, channels, shifts, found)


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), undisturbed(model):
        sure, classes = torch.cat([ask(model, x).float().softmax(1) for x in images.split(64)]).max(1)
    return classes, sure
