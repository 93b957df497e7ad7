"""What run.json of `robustlab backdoor` may hold beside what every run.json may: the rows of its sections.

As in `schema`, keys that are not named here may be there, and nobody reads them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from robustlab.runs.schema import Count, Fraction, Name, Real, Share, Size, Text, Whole

KIND = "backdoor"
Points = Annotated[list[Real], Meta(max_length=10_000)]
Counts = Annotated[list[Count], Meta(min_length=1, max_length=1000)]


class Named(Struct):
    """A trigger or filter of the configuration."""

    name: Name
    method: Text = ""


class Training(Struct):
    """The training and the validation images."""

    hashes: Annotated[list[Text], Meta(max_length=10)] = []
    n: Annotated[list[Count], Meta(max_length=10)] = []


class Config(Struct):
    trigger: Named
    rate: Fraction
    of: Literal["data", "target"]
    target: Text | Whole | None = None  # a number where the classes have no names
    source: Text | Whole | None = None
    architecture: Text = "?"
    training_data: Training = msgspec.field(default_factory=Training)
    filters: Annotated[list[Named], Meta(max_length=1000)] = []
    repairs: Annotated[list[Name], Meta(max_length=1000)] = []


class Undefended(Struct):
    seed: Whole
    n: Count
    poisons: Count
    covers: Count = 0
    share: Fraction | None = None


class Filtered(Struct):
    seed: Whole
    filter: Name
    knew: Text = ""
    auroc: Fraction | None = None
    tpr: Share | None = None
    fpr: Share | None = None
    removed: Count | None = None
    left: Count | None = None
    clean_removed: Count | None = None
    seconds: Size | None = None


class Scored(Struct):
    filter: Name
    low: Real
    high: Real
    clean: Counts
    poison: Counts
    threshold: Real | None = None
    scale: Literal["linear", "log10"] = "linear"


class Values(Struct):
    target: bool
    values: Points
    name: Text = msgspec.field(name="class")


class Projected(Struct):
    clean_x: Points
    clean_y: Points
    poison_x: Points
    poison_y: Points
    name: Text = msgspec.field(name="class")


class Layered(Struct):
    layer: Name
    filter: Name
    d: Count | None = None
    auroc: Fraction | None = None


class Result(Struct):
    seed: Whole
    row: Name
    kind: Literal["undefended", "control", "filter", "repair"]
    trained: Count | None = None
    clean: Share | None = None
    asr: Share | None = None
    right: Share | None = None
    seconds: Size | None = None


class Shown(Struct):
    """One of the pictures of the trigger."""

    role: Text = ""
    pixels: Fraction | None = None


class Heat(Struct):
    images: Text = ""
    heat: Share | None = None
    area: Share | None = None


ROWS: dict[str, Any] = {
    "trigger": list[Shown],
    "heat": list[Heat],
    "models": list[Undefended],
    "filters": list[Filtered],
    "scores": list[Scored],
    "spectrum": list[Values],
    "projection": list[Projected],
    "by layer": list[Layered],
    "results": list[Result],
}


def check_backdoor(info: Any) -> None:
    """ValueError that says where such a run.json, already checked as every other, holds what it may not."""
    msgspec.convert(info["config"], Config)
    seen = set()
    for number, section in enumerate(info.get("sections", [])):
        name = section["name"]
        if name in seen:
            raise ValueError(f"sections[{number}]: a second section {name[:40]!r}")
        seen.add(name)
        if name in ROWS:
            try:
                msgspec.convert(section.get("rows", []), ROWS[name])
            except msgspec.ValidationError as error:
                raise ValueError(f"sections[{number}]: {error}") from None
