"""Training sets with poisons in them, and test sets on which attack success is measured."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from robustlab.backdoors.triggers import trigger_class
from robustlab.backdoors.triggers.base import Role, Trigger
from robustlab.base.draws import keys
from robustlab.base.errors import UserError
from robustlab.base.given import class_number
from robustlab.base.typed import check_choice, check_whole
from robustlab.data import Data, Loaded

RELATIONS = ("all-to-one", "one-to-one", "all-to-all")
Class = int | str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Poisoned(Loaded):
    """Data that knows what was done to it; see `poison` and `triggered`.

    changed, covers: (N,) bool, the poisons, and the images with a trigger and their true label. true_labels: (N,)
    int64. wanted: (N,) int64, the class that the trigger is to give. target: None for all-to-all.
    """

    changed: Tensor
    covers: Tensor
    true_labels: Tensor
    wanted: Tensor
    target: int | None

    @property
    def changed_ids(self) -> list[int]:
        """The ids of the poisons."""
        return [int(i) for i in self.ids[self.changed]]

    @property
    def cover_ids(self) -> list[int]:
        """The ids of the covers."""
        return [int(i) for i in self.ids[self.covers]]

    @property
    def rates(self) -> dict[str, float | None]:
        """The poisons as a share of the data, and of the images labelled as the target; None without a target."""
        count = int(self.changed.sum())
        labelled = None if self.target is None else int((self.labels == self.target).sum())
        return {"data": count / max(len(self), 1), "target": count / labelled if labelled else None}

    def take(self, index: Tensor) -> Self:
        names = ("changed", "covers", "true_labels", "wanted")
        return replace(super().take(index), **{name: getattr(self, name)[index] for name in names})


def poison(
    data: Data,
    trigger: str | Trigger,
    rate: float,
    target: Class = None,
    seed: int = 0,
    *,
    relation: str = "all-to-one",
    source: Class = None,
    of: str = "data",
    from_target: bool = False,
) -> Poisoned:
    """A training set in which some images carry the trigger and the label that goes with it.

    rate: above 0 and below 1, the poisons' share `of` the "data", or of the resulting "target" class. target, source:
    classes by name or number. relation: all-to-one, one-to-one (from `source`), all-to-all (y + 1 mod K, no target).
    from_target: all-to-one draws from the target class too. A clean-label trigger draws from it alone. What an image
    becomes depends on seed and id only, not on the order. UserError: not enough images for the rate, a class that is
    missing, a trigger that does not fit, an unknown word.

    >>> from robustlab import load_data
    >>> poisoned = poison(load_data("road-signs", "train", 200), "badnets", rate=0.05, target="stop")
    >>> int(poisoned.changed.sum()), poisoned.rates["data"]
    (10, 0.05)
    """
    check_choice("of", of, ("data", "target"))
    trigger, goal, start = _settled(data, trigger, target, seed, relation, source)
    labels = data.labels
    if not 0 < rate < 1:
        raise UserError(f"rate must be above 0 and below 1, got {rate:g}.")
    if of == "target" and goal is None:
        raise UserError("all-to-all has no one target class: give the rate of='data'.")
    present = int((labels == goal).sum()) if goal is not None else 0
    if goal is not None and not present:
        raise UserError(f"The data has no image of the target class {_name(data, goal)}. Choose another target.")
    if trigger.clean_label:
        free = torch.as_tensor(labels == goal)
    elif start is not None:
        free = torch.as_tensor(labels == start)
    else:
        free = (labels != goal) | from_target if goal is not None else labels >= 0
    places = free.nonzero()[:, 0]
    order = places[keys(seed, data.ids[places], "poison").argsort(stable=True)]
    if of == "data":
        count = round(rate * len(data))
    elif trigger.clean_label or not (from_target and start is None):
        count = round(present * (rate if trigger.clean_label else rate / (1 - rate)))
    else:
        count = _mixed(torch.as_tensor(labels[order] != goal), present, rate)
    if not 1 <= count <= len(places):
        raise UserError(
            f"rate {rate:g} of the {of} is {count} poisons, and there are {len(places)} images to draw them from."
            f" Choose a {'higher' if count < 1 else 'lower'} rate, or more data."
        )
    extra = round(trigger.covers * count)
    if count + extra > len(places):
        raise UserError(
            f"{count} poisons with {extra} covers need {count + extra} images, and there are {len(places)}."
            " Choose a lower rate, or fewer covers."
        )
    return _made(data.loaded(), trigger, goal, seed, order[:count], order[count : count + extra])


def triggered(
    data: Data,
    trigger: str | Trigger,
    target: Class = None,
    seed: int = 0,
    *,
    relation: str = "all-to-one",
    source: Class = None,
) -> Poisoned:
    """The test set for attack success: all images with the whole trigger, `labels` their true ones.

    Images of the target class are left out; one-to-one keeps those of `source`; all-to-all keeps all. Attack success is
    the share that is classified as `wanted`. UserError: as `poison`, or nothing is left.

    >>> from robustlab import load_data
    >>> test = triggered(load_data("road-signs", "test", 50), "badnets", "stop")
    >>> bool((test.labels == test.target).any())
    False
    """
    trigger, goal, start = _settled(data, trigger, target, seed, relation, source)
    keep = data.labels == start if start is not None else data.labels >= 0
    if goal is not None:
        keep &= data.labels != goal
    if not keep.any():
        raise UserError("No image is left to put the trigger on: all are of the target class, or none of the source.")
    left = data.take(keep.nonzero()[:, 0]).loaded()
    everything, none = torch.arange(len(left)), torch.arange(0)
    return replace(_made(left, trigger, goal, seed, everything, none, "test"), labels=left.labels)


def _settled(
    data: Data, trigger: str | Trigger, target: Class, seed: int, relation: str, source: Class
) -> tuple[Trigger, int | None, int | None]:
    """The trigger, the target's and the source's number, checked."""
    check_choice("relation", relation, RELATIONS)
    check_whole("seed", seed, 0)
    trigger = trigger_class(trigger)() if isinstance(trigger, str) else trigger
    goal, start = class_number(target, data.classes), class_number(source, data.classes)
    if (goal is None) != (relation == "all-to-all"):
        raise UserError(f"{relation} {'has no target' if goal is not None else 'needs a target class'}.")
    if (start is None) == (relation == "one-to-one"):
        raise UserError(f"{relation} {'has no source' if start is not None else 'needs a source class'}.")
    if start is not None and start == goal:
        raise UserError("source and target must be two classes.")
    if trigger.clean_label and relation != "all-to-one":
        raise UserError("A clean-label trigger keeps the labels: its relation is all-to-one.")
    return trigger, goal, start


def _mixed(joins: Tensor, present: int, rate: float) -> int:
    """How many of the first images to poison, so that their share of the target class is nearest to the rate.

    joins: (N,) bool, in the order of drawing, whether the image is new to the class. present: the class's images.
    """
    taken = torch.arange(len(joins) + 1, dtype=torch.float64)
    labelled = present + torch.cat([torch.zeros(1, dtype=torch.int64), joins.long().cumsum(0)])
    return int((taken / labelled - rate).abs().argmin())


def _made(
    data: Loaded, trigger: Trigger, goal: int | None, seed: int, poisons: Tensor, covers: Tensor, role: Role = "poison"
) -> Poisoned:
    """The data with the trigger at these positions."""
    images, labels = data.images.clone(), data.labels.clone()
    trigger.check(data)
    images[poisons] = trigger.on(data.take(poisons), seed, role)
    images[covers] = trigger.on(data.take(covers), seed, "cover")
    wanted = torch.full_like(labels, goal) if goal is not None else (labels + 1) % _classes(data)
    labels[poisons] = wanted[poisons]
    masks = [torch.zeros(len(data), dtype=torch.bool).index_fill(0, index, True) for index in (poisons, covers)]
    content = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes() + data.hash.encode())
    values = {each.name: getattr(data, each.name) for each in fields(Loaded)}
    values |= {"images": images, "labels": labels, "hash": content.hexdigest()[:16], "source": None}
    return Poisoned(**values, changed=masks[0], covers=masks[1], true_labels=data.labels, wanted=wanted, target=goal)


def _classes(data: Data) -> int:
    return len(data.classes) or int(data.labels.max()) + 1


def _name(data: Data, number: int) -> str:
    return repr(data.classes[number]) if data.classes else str(number)
