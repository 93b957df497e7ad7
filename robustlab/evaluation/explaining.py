"""`robustlab explain`: heatmaps of a few images, before and after an attack, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustlab.attacks.base import Attack
from robustlab.base.errors import UserError
from robustlab.explain.activations import Channels, strongest_channels
from robustlab.explain.channels import TopImages, channel_changes, strengths, top_images
from robustlab.explain.heatmaps import Heatmaps
from robustlab.explain.layers import Layer, find_layer
from robustlab.explain.methods import METHODS, draw
from robustlab.explain.sanity import Check, checks, drawn_by
from robustlab.explain.shifts import means, same_size_noise, shift
from robustlab.oracle import ask, undisturbed

Json = dict[str, Any]
PIXELS = 1 << 20  # of the images whose gradients are held at a time: 20 of 224 x 224
VERSIONS = {
    "adv": "attacked, for the class that is predicted then",
    "same": "attacked, for the class of the clean image",
    "noise": "the same change at random places, for the class of the clean image",
}


class Version(NamedTuple):
    """Images (N, C, H, W), the classes (N,) that their maps are about, and how sure the model is of them if its own."""

    images: Tensor
    classes: Tensor
    sure: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Explained:
    """What was drawn. clean, and adv where there was an attack: images. maps: method -> version -> Heatmaps.

    predicted, confidence: of each version of the images. shifts: rows of the table. checks: method -> its checks.
    searched: the images among which `tops` were found, and their names. changes: rows of `channel_changes`.
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
    measured: int = 0  # images that the shifts are of
    checks: dict[str, list[Check]] = field(default_factory=dict)
    searched: tuple[Tensor, Sequence[str]] | None = None
    tops: list[TopImages] = field(default_factory=list)
    changes: list[Json] = field(default_factory=list)


def explain_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    ids: Tensor,
    methods: Sequence[str],
    *,
    layer: str | None = None,
    attack: Attack | None = None,
    judged: tuple[Tensor, Tensor, Tensor] | None = None,
    searched: tuple[Tensor, Sequence[str]] | None = None,
    count: int = 8,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Explained:
    """Heatmaps of the classes that the model predicts for (N, C, H, W) images in [0, 1].

    labels: (N,), -1 where none is known: an attack then leaves the model's own answer. attack: also explain the
    attacked images, and measure how far the heat moves. judged: images, labels and ids for the sanity checks and for
    these measures; none: no checks, and the measures are of the images themselves. searched: images and their names, to
    find what the `count` strongest channels of the layer respond to; none: it is not asked.
    UserError: a method or a layer that does not exist or does not fit.
    """
    needs_layer = searched is not None or any(METHODS[name].layer for name in methods)
    at = find_layer(model, images, layer) if needs_layer else None
    if layer is not None and at is None:
        raise UserError(f"A layer means nothing for {', '.join(methods)}: leave it out.")
    if attack is not None:
        say("Attacking the images.")
    asked = _versions(model, images, labels, ids, attack, seed)
    others = asked if judged is None else _versions(model, *judged, attack, seed)

    together = max(1, min(64, PIXELS // (images.shape[2] * images.shape[3])))

    def drawn(name: str, versions: dict[str, Version]) -> dict[str, Heatmaps]:
        return {
            key: draw(name, model, each.images, each.classes, layer=at, batch_size=together)
            for key, each in versions.items()
        }

    maps: dict[str, dict[str, Heatmaps]] = {}
    for name in methods:
        say(f"Drawing {name}.")
        maps[name] = drawn(name, asked)
    shifts: list[Json] = []
    if attack is not None:
        say("Measuring how far the heat moves.")
        measured = maps if judged is None else {name: drawn(name, others) for name in methods}
        shifts = [_shift(name, version, measured[name]) for name in methods for version in VERSIONS]
    tops: list[TopImages] = []
    changes: list[Json] = []
    if searched is not None:
        say(f"Looking for what the strongest channels respond to, on {len(searched[0])} images.")
        tops = top_images(model, searched[0], layer=at, count=count)
        if attack is not None:
            changes = _changes(model, others, at, [each.channel for each in tops])
    channels = strongest_channels(model, images, layer=at) if at is not None and "activations" in methods else None
    found: dict[str, list[Check]] = {}
    if judged is not None:
        for name in methods:
            say(f"Checking {name} on {len(judged[0])} images.")
            layer_of_all = at.name if at is not None else None
            found[name] = checks(
                drawn_by(name, signed=True, layer=layer_of_all, batch_size=together),
                model,
                judged[0],
                others["clean"].classes,
                seed=seed,
            )
    return Explained(
        images,
        ids,
        labels,
        at,
        {key: each.classes for key, each in asked.items() if each.sure is not None},
        {key: each.sure for key, each in asked.items() if each.sure is not None},
        maps,
        asked["adv"].images if attack is not None else None,
        channels,
        shifts,
        len(images if judged is None else judged[0]),
        found,
        searched,
        tops,
        changes,
    )


def _changes(model: nn.Module, versions: dict[str, Version], at: Layer | None, channels: list[int]) -> list[Json]:
    clean, adv, noise = (strengths(model, versions[name].images, layer=at)[0] for name in ("clean", "adv", "noise"))
    return channel_changes(clean, {"adv": adv, "noise": noise}, channels)


def _versions(
    model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor, attack: Attack | None, seed: int
) -> dict[str, Version]:
    """What is drawn of the images, by the names in `VERSIONS` and "clean"."""
    classes, sure = _answers(model, images)
    clean = Version(images, classes, sure)
    if attack is None:
        return {"clean": clean}
    adv = attack(model, images, torch.where(labels < 0, classes, labels))
    noise = same_size_noise(images, adv, seed, ids)
    attacked = Version(adv, *_answers(model, adv))
    return {"clean": clean, "adv": attacked, "same": Version(adv, classes), "noise": Version(noise, classes)}


def _shift(name: str, version: str, maps: dict[str, Heatmaps]) -> Json:
    first, second = maps["clean"], maps[version]
    about = {"method": name, "version": version, "zero": int((first.zero | second.zero).sum())}
    return about | means(shift(first.maps, second.maps))


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), undisturbed(model):
        sure, classes = torch.cat([ask(model, x).float().softmax(1) for x in images.split(64)]).max(1)
    return classes, sure
