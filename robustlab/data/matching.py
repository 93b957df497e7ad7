"""The data's classes and the model's outputs: which stands for which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import torch

from robustlab.base.errors import UserError, spelled
from robustlab.base.given import check_classes
from robustlab.base.words import some
from robustlab.data import Data
from robustlab.data.selection import composed


def matched(data: Data, models: Sequence[tuple[str, Sequence[str] | None, int]]) -> Data:
    """The data with labels that are outputs of the models, which must all see them alike.

    models: name, class names where known, and number of outputs of each. As many classes as outputs: matched by name if
    all names are the model's (case, blanks, `_`, `-` and Unicode form aside), else in their order. Fewer or more: every
    class that occurs must bear the name of an output, or be its number. Raises UserError.

    >>> from robustlab.data import load_data
    >>> data = replace(load_data("road-signs", limit=2), labels=torch.tensor([0, 1]), classes=("Yield", "stop"))
    >>> matched(data, [("net", ["stop", "no entry", "yield"], 3)]).labels.tolist()
    [2, 0]
    """
    highest = int(data.labels.max())
    if not data.classes:
        data = replace(data, classes=tuple(str(k) for k in range(highest + 1)))
    if int(data.labels.min()) < 0 or highest >= len(data.classes):
        raise UserError(
            f"{data.name}: labels must be class numbers from 0 to {len(data.classes) - 1}, since it names"
            f" {len(data.classes)} classes; got {int(data.labels.min())} to {highest}."
        )
    found = [_for_one(data, *model) for model in models]
    for (name, _, _), other in zip(models, found, strict=True):
        if not torch.equal(other.labels, found[0].labels):
            k = int((other.labels != found[0].labels).nonzero()[0])
            raise UserError(
                f"{models[0][0]} and {name} do not have the same outputs: what {data.name} calls"
                f" {data.classes[int(data.labels[k])]!r} is output {int(found[0].labels[k])} of one and"
                f" {int(other.labels[k])} of the other. Attack them in two runs."
            )
    return found[0]


def _for_one(data: Data, model: str, names: Sequence[str] | None, outputs: int) -> Data:
    """As `matched`; where a class is matched by name or number, `classes` become the names of the outputs."""
    if names is not None and len(names) != outputs:
        return data  # the check of the model says so
    if len(data.classes) == outputs:
        chosen = None if names is None else _same_count(data, model, names)
    else:
        chosen = _other_count(data, model, names, outputs)
    if chosen is None:
        return data
    return replace(
        data,
        labels=torch.tensor(chosen, dtype=torch.int64)[data.labels],
        classes=tuple(names) if names is not None else tuple(str(k) for k in range(outputs)),
        relabelled=True,
    )


def _same_count(data: Data, model: str, names: Sequence[str]) -> list[int] | None:
    """The output of each class; None for those in order."""
    if tuple(names) == data.classes:
        return None
    outputs = _outputs(names)
    places = [outputs.get(plain(each)) for each in data.classes]
    if sorted(place for place in places if place is not None) == list(range(len(names))):
        return [place for place in places if place is not None]
    if _counted(data.classes):  # 0 to K - 1 or 1 to K: no names, only an order
        return None
    moved = next((k for k, p in enumerate(places) if p not in (k, None)), None)
    if moved is None:
        return None
    stranger = next(each for each, place in zip(data.classes, places, strict=True) if place is None)
    raise UserError(
        f"{data.name} and {model} both have {len(names)} classes, in another order: {data.classes[moved]!r} is class"
        f" {moved} of the data and output {places[moved]} of the model, which has no {stranger!r}. Call the data's"
        f" classes as the model does: {some([*map(repr, names)], 5)}."
    )


def _other_count(data: Data, model: str, names: Sequence[str] | None, outputs: int) -> list[int] | None:
    """The output of each class, -1 for one that has none and does not occur; None for numbers that are in order."""
    known = _outputs(names or ())
    named = any(each.isdecimal() for each in names or ())  # then a number is a name, too
    occurring = data.labels.unique().tolist()
    if not named and data.name == "tensors":  # from Python: numbers, and nothing else
        check_classes(occurring[0], occurring[-1], outputs, "labels")
    places: list[int | None] = []
    for each in data.classes:
        numbered = int(each) if not named and each.isdecimal() and int(each) < outputs else None
        places.append(known.get(plain(each), numbered))
    unknown = [data.classes[k] for k in occurring if places[k] is None]
    if unknown:
        number = f"number of an output, 0 to {outputs - 1}"
        wanted = (
            f"name ({some([*map(repr, names)], 5)}) or {number}"
            if names is not None
            else f"{number} (they have no names)"
        )
        raise UserError(
            f"{data.name} has {len(data.classes)} classes and {model} has {outputs}: each class must then bear the"
            f" {wanted}, and {some([*map(repr, unknown)], 3)} {'do' if unknown[1:] else 'does'} not."
            " Rename the classes of the data, choose another model, or attack the model's own answers:"
            f" {spelled('labels', 'predicted')}."
        )
    found = [places[k] for k in occurring]
    twice = next((place for place in found if found.count(place) > 1), None)
    if twice is not None:
        same = [repr(data.classes[k]) for k in occurring if places[k] == twice]
        raise UserError(f"{data.name}: the classes {some(same, 5)} all stand for output {twice} of {model}. Keep one.")
    if names is None and found == occurring:
        return None
    return [-1 if place is None else place for place in places]


def _counted(classes: Sequence[str]) -> bool:
    """Are the classes the numbers from 0 or 1 on, in this order?"""
    numbers = [int(each) if each.isdecimal() else -1 for each in classes]
    return numbers in (list(range(len(classes))), list(range(1, len(classes) + 1)))


def _outputs(names: Sequence[str]) -> dict[str, int | None]:
    """The number of the output of each name, as `plain` has it; None where several outputs share it."""
    found: dict[str, int | None] = {}
    for k, name in enumerate(names):
        found[plain(name)] = None if plain(name) in found else k
    return found


def plain(name: str) -> str:
    """What a name is compared by."""
    return re.sub(r"[\s_-]+", " ", composed(composed(name).casefold())).strip()
