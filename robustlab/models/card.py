"""Model cards: the TOML file beside a checkpoint, in the zoo and in what `robustlab train` writes. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustlab.cards import read_card
from robustlab.errors import UserError
from robustlab.files import replacing


@dataclass(frozen=True)
class Measured:
    """One measured share, with its 95 % Wilson interval. eps: as typed, in the units of the norm; 0 for clean."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    split: str = "test"
    norm: str = ""
    eps: str = "0"
    attack: str = ""
    seed: int = 0


@dataclass(frozen=True)
class ModelCard:
    """What it takes to build a classifier again, and what is known of it.

    architecture: a name in `ARCHITECTURES`. weights: a file beside the card. shape: channels, height, width.
    recipe: how it was trained (see `robustlab.training.Recipe`). hash: of the classifier that the card describes.
    seconds, hardware: of the training.
    """

    name: str
    architecture: str
    weights: str
    mean: list[float]
    std: list[float]
    classes: list[str]
    shape: tuple[int, int, int]
    options: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    data: str = ""
    data_hash: str = ""
    seed: int = 0
    hash: str = ""
    seconds: float = 0.0
    hardware: str = ""
    command: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)


def read_model_card(path: str | Path) -> ModelCard:
    """A model card from its file; unknown keys, wrong types and a missing file are a `UserError`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no model card {str(path)!r}.")
    return read_card(path, ModelCard)


def write_model_card(card: ModelCard, path: Path) -> None:
    """Write a card, whole or not at all; empty fields are left out."""
    content = {key: value for key, value in asdict(card).items() if value not in ("", 0.0, [], {})}
    with replacing(path) as file:
        file.write("\n".join(_toml(content)).encode() + b"\n")


def _toml(table: Mapping[str, Any], path: str = "") -> list[str]:
    """The lines of a TOML document: first the plain values, then tables and arrays of tables. None is left out."""
    lines, later = [], []
    for key, value in table.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            later += ["", f"[{name}]", *_toml(value, name)]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                later += ["", f"[[{name}]]", *_toml(item, name)]
        elif value is not None:
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")  # JSON's scalars and lists are TOML too
    return lines + later
