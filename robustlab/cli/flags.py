"""The flags that commands share: dataclasses that are flattened into a command. Each checks itself, without torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from robustlab.base.errors import UserError
from robustlab.data import DATA, SQUARE, WITH_PATH, check_name, check_size, check_workers
from robustlab.models import library_of
from robustlab.models.card import read_model_card
from robustlab.models.zoo import card_path, zoo_card, zoo_names

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Words = Annotated[list[str], Parameter(negative=())]  # the flag may be given several times
SEVERAL = Parameter(consume_multiple=1, negative=())  # all words up to the next flag, at least one

OWN = "road-signs"  # the data of a model that names none
DOWNLOADED = [kind for kind in DATA if kind not in WITH_PATH and kind != OWN]
PATHS = " or ".join(f"{kind}:PATH" for kind in WITH_PATH)
DATA_HELP = f"{', '.join([OWN, *DOWNLOADED])}, {PATHS} (images in class folders)"

DATA_PANEL = Group("Data", sort_key=2)  # of the help
MODEL_PANEL = Group("Model", sort_key=3)
OUTPUT_PANEL = Group("Output", sort_key=5)


@Parameter(name="*", group=DATA_PANEL)
@dataclass(frozen=True)
class DataFlags:
    """Where the files of a data set are, and how they are read."""

    data_root: Path | None = None
    """Where torchvision's data sets lie (default: the variable ROBUSTLAB_DATA)."""

    download: Flag = False
    """Fetch what is missing: torchvision's data sets, and the weights of torchvision:NAME, timm:NAME and hf:NAME."""

    size: Annotated[
        str | None,
        Parameter(
            help=f"Side in pixels, or HEIGHTxWIDTH: of {' and '.join(SQUARE)} (a side); of folder:PATH, whose images"
            " are scaled until they cover it and cropped around their centre (default of an attack: what the model"
            " expects)."
        ),
    ] = None

    workers: int | None = None
    """Threads that decode the images of folder:PATH (default: as many as processors, at most 4)."""

    skip_bad: Flag = False
    """Leave out files of folder:PATH that are no images, and say which."""

    def check(self, name: str, *, models: Sequence[str] = (), seed: int | None = None) -> None:
        """A `UserError` for an unknown data set, and for flags that mean nothing for this one and these models."""
        kind = check_name(name)
        folder, files, download = kind == "folder", kind in DOWNLOADED, self.download and not any(map(_fetched, models))
        sets = ", ".join(DOWNLOADED)
        for flag, given, fits, of in (
            ("--workers", self.workers is not None, folder, "folder:PATH"),
            ("--skip-bad", self.skip_bad, folder, "folder:PATH"),
            ("--data-root", self.data_root is not None, files, sets),
            ("--download", download, files, f"{sets} and the models of other packages"),
            ("--seed", seed is not None, kind == OWN, OWN),
        ):
            if given and not fits:
                raise UserError(f"{flag} means nothing for {name}: it is for {of}. Leave it out.")
        check_size(name, self.pixels)
        check_workers(self.workers)

    @property
    def pixels(self) -> int | tuple[int, int] | None:
        """--size as a number or a pair of them."""
        return None if self.size is None else parse_size(self.size)

    @property
    def arguments(self) -> dict[str, Any]:
        """As `load_data` and `train` take them."""
        return {
            "data_root": self.data_root,
            "download": self.download,
            "size": self.pixels,
            "workers": self.workers,
            "skip_bad": self.skip_bad,
        }


@Parameter(name="*", group=MODEL_PANEL)
@dataclass(frozen=True)
class ModelFlags:
    """What belongs to the one model that is given."""

    weights: Path | None = None
    """Weights for one model: .safetensors or .pth; for models of other packages also random, for torchvision:NAME also
    a name such as IMAGENET1K_V1."""

    mean: Annotated[list[float] | None, SEVERAL] = None
    """Normalisation of one model, one value or one a channel."""

    std: Annotated[list[float] | None, SEVERAL] = None
    """As --mean."""

    def check(self, models: Sequence[str]) -> None:
        """They are for one model. --mean and --std come together, in units of [0, 1], if it has none of its own."""
        mean, std, name = self.mean, self.std, models[0]
        if len(models) > 1 and (self.weights or mean or std):
            raise UserError(f"--weights, --mean and --std belong to exactly one model; {len(models)} were given.")
        if mean is None and std is None:
            return
        if mean is None or std is None:
            raise UserError("--mean and --std come together: give both, in the units of images in [0, 1].")
        if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
            values = f"got --mean {' '.join(map(str, mean))} --std {' '.join(map(str, std))}"
            raise UserError(
                f"Images are in [0, 1], so mean and std are, too; {values}. Divide values of 0 to 255 by 255."
            )
        path = card_path(name)
        if name in zoo_names() or (path.endswith(".toml") and read_model_card(path).mean):
            raise UserError(f"{name} brings its own normalisation: leave out --mean and --std.")


@Parameter(name="*", group=OUTPUT_PANEL)
@dataclass(frozen=True)
class OutputFlags:
    """The folder to write, and what to do with one that is there."""

    output: Path | None = None
    """The folder to write (default reports/NAME-DATE-TIME, NAME of the data or the trained model)."""

    resume: Flag = False
    """Go on with what --output holds."""

    overwrite: Flag = False
    """Replace what --output holds, once the new is complete."""

    def check(self, what: str) -> None:
        """--resume and --overwrite are about a folder that is named, and one of them excludes the other."""
        if self.resume and self.overwrite:
            raise UserError("--resume goes on with what is there and --overwrite removes it: give one of them.")
        if self.output is None and self.resume:
            raise UserError(f"--resume needs --output: name the {what} folder to go on with (ls reports).")
        if self.output is None and self.overwrite:
            raise UserError(f"--overwrite needs --output: name the {what} folder to replace (ls reports).")


def parse_size(text: str) -> int | tuple[int, int]:
    """A side in pixels, or height x width.

    >>> parse_size("224"), parse_size("32x48")
    (224, (32, 48))
    """
    if not re.fullmatch(r"\d{1,6}(x\d{1,6})?", text.strip().lower(), re.ASCII):
        raise UserError(f"--size is a side in pixels, such as 224, or HEIGHTxWIDTH, such as 96x128; got {text!r}.")
    sides = [int(side) for side in text.strip().lower().split("x")]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def data_of(model: str) -> str:
    """The data set that a model is for, as far as its card says; see --data."""
    if model in zoo_names():
        return zoo_card(model).data or OWN
    path = card_path(model)
    return (read_model_card(path).data if path.endswith(".toml") else "") or OWN


def check_once(flag: str, values: Iterable[object] | None) -> None:
    """No value is given twice."""
    seen: set[object] = set()
    for value in values or ():
        if value in seen:
            raise UserError(f"{flag} was given {value} twice. Give each once.")
        seen.add(value)


def _fetched(model: str) -> bool:
    """May its weights be downloaded?"""
    path = card_path(model)
    if model not in zoo_names() and path.endswith(".toml"):
        return bool(library_of(read_model_card(path).architecture))
    return bool(library_of(model))
