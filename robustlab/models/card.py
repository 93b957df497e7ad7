"""Model cards: a TOML file that says how to build a classifier. `robustlab train` and people write them. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from robustlab.base.cards import read_card
from robustlab.base.errors import UserError

MOST_CLASSES = 100_000
MOST_PIXELS = 65_536  # of a side
Single = Literal["logit", "probability"]  # what a single output is, see `robustlab.models.two_classes`


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


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What it takes to build a classifier again, and what is known of it. A short one, written by hand:

        architecture = "resnet20"
        weights = "mine.safetensors"
        mean = [0.49, 0.48, 0.45]
        std = [0.25, 0.24, 0.26]
        classes = ["cat", "dog"]
        shape = [3, 32, 32]

    architecture: a name in `ARCHITECTURES`, `torchvision:NAME`, `timm:NAME`, `hf:FOLDER`, `FILE.py:function` or
    `FILE.pt2`; files and folders are looked for beside the card. weights: a file beside the card, or what
    `torchvision:NAME` and its like may take. mean, std: of the normalisation; left out: none, or what the architecture
    brings along. classes: names, or their number. shape: channels, height, width. The registered architectures need
    weights, classes and shape. single_output: the model has one output for two classes, the `logit` of the second or
    its `probability`. options: keyword arguments of the architecture. wrap: the defense that the classifier
    stands behind, its `method` in `robustlab.defenses` and its parameters. split: how a folder without train and test
    was divided, and files: the hash of the names of all its images; an attack then uses only those that were held out.
    recipe: how it was trained (see `robustlab.training.Recipe`). hash: of the classifier that the card describes.
    parameters: how many it has. seconds, epochs, hardware: of the training, with what is measured after each epoch;
    best_epoch: the kept one.
    """

    name: str = ""
    architecture: str
    weights: str = ""
    mean: list[float] | None = None
    std: list[float] | None = None
    classes: list[str] | int | None = None
    shape: tuple[int, int, int] | None = None
    single_output: Single | None = None
    options: dict[str, Any] = field(default_factory=dict)
    wrap: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    data: str = ""
    data_hash: str = ""
    split: str = ""
    files: str = ""
    seed: int = 0
    hash: str = ""
    parameters: int = 0
    seconds: float = 0.0
    epochs: int = 0
    best_epoch: int = 0
    hardware: str = ""
    command: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.outputs is not None and not 2 <= self.outputs <= MOST_CLASSES:
            bound = "at least 2" if self.outputs < 2 else f"at most {MOST_CLASSES:,}"
            raise UserError(f"A model card needs {bound} classes, got {self.outputs}.")
        if self.single_output and self.outputs not in (None, 2):
            raise UserError(f"A model card with a single_output is of 2 classes, got {self.outputs}.")
        if self.shape is not None and not 1 <= min(self.shape) <= max(self.shape) <= MOST_PIXELS:
            raise UserError(
                f"A model card's shape is [channels, height, width] in pixels, got {list(self.shape)}; each is from 1"
                f" to {MOST_PIXELS:,}."
            )

    @property
    def outputs(self) -> int | None:
        """The number of classes, where the card says it."""
        return len(self.classes) if isinstance(self.classes, list) else self.classes

    @property
    def trained(self) -> dict[str, Any]:
        """How it was trained, in short: `by`, the number of `epochs`, `seconds` and `hardware`; what is known.

        >>> recipe = {"epochs": 2, "awp": 0.01, "init": "road-signs/cnn"}
        >>> ModelCard(architecture="cnn", seconds=9.0, recipe=recipe).trained
        {'by': 'plain with awp, from road-signs/cnn', 'epochs': 2, 'seconds': 9.0}
        """
        if not self.recipe:
            return {}
        more = [key for key in ("awp", "ema", "mixup") if self.recipe.get(key)]
        by = self.recipe.get("defense", {}).get("method", "plain") + f" with {', '.join(more)}" * bool(more)
        by += f", from {self.recipe['init']}" if self.recipe.get("init") else ""
        known = {"epochs": self.epochs or self.recipe.get("epochs"), "seconds": self.seconds, "hardware": self.hardware}
        return {"by": by, **{key: value for key, value in known.items() if value}}

    @property
    def names(self) -> list[str] | None:
        """The names of the classes, where the card has them."""
        return self.classes if isinstance(self.classes, list) else None


def read_model_card(path: str | Path) -> ModelCard:
    """A model card from its file; unknown keys, wrong types and a missing file are a `UserError`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no model card {str(path)!r}.")
    return read_card(path, ModelCard)


def card_text(card: ModelCard) -> bytes:
    """A card as a TOML file; empty fields are left out."""
    content = {key: value for key, value in asdict(card).items() if value not in ("", 0, [], {})}
    return "\n".join(_toml(content)).encode() + b"\n"


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
