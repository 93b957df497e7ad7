"""What the flags of a command ask for, looked at before torch is imported: what means nothing is refused at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlab.attacks.suite import check_suite
from robustlab.base.errors import UserError
from robustlab.base.typed import check_once
from robustlab.data import DATA, WITH_PATH, check_name, check_size, check_workers, parse_size
from robustlab.evaluation.options import Options
from robustlab.models.card import read_model_card
from robustlab.models.zoo import card_path, zoo_card, zoo_names

DEFAULT_MODELS = ("road-signs/cnn", "road-signs/cnn-robust")
OWN = "road-signs"  # the data of a model that names none


@dataclass(frozen=True)
class Request:
    """The flags of `robustlab attack` that say what to do; `Options` says how. See the command's help."""

    models: Sequence[str]
    suite: str | None
    attacks: Sequence[str]
    surrogates: Sequence[str] | None
    data: str | None
    threat: dict[str, Any]
    limit: str
    ids: Sequence[int] | None
    classes: Sequence[str] | None
    weights: Path | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    data_root: Path | None
    download: bool
    size: str | None
    workers: int | None
    skip_bad: bool
    output: Path | None
    resume: bool
    overwrite: bool
    json: bool
    quiet: bool
    fail_under: float | None

    @property
    def names(self) -> list[str]:
        """The models to attack."""
        return list(self.models) or list(DEFAULT_MODELS)

    def check(self, options: Options) -> None:
        """A `UserError` for what cannot be meant. Loads nothing but cards."""
        parse_limit(self.limit)
        if self.surrogates and not self.models:
            raise UserError(
                "--surrogate takes every name after it. Give the model to attack before: MODEL --surrogate NAME."
            )
        if len(self.names) > 1 and (self.weights or self.mean or self.std):
            raise UserError(f"--weights, --mean and --std belong to exactly one model; {len(self.names)} were given.")
        check_once("MODEL", [card_path(name) for name in self.names])
        check_once("--surrogate", [card_path(name) for name in self.surrogates or ()])
        if own := set(map(card_path, self.names)) & set(map(card_path, self.surrogates or ())):
            raise UserError(
                f"{min(own)} is attacked, and so no surrogate for itself: a transfer attack is crafted on another"
                " model. Leave it out of --surrogate."
            )
        check_once("--attack", self.attacks)
        check_once("--ids", self.ids)
        if self.ids and min(self.ids) < 0:
            raise UserError(f"--ids are numbers from 0 on, got {min(self.ids)}.")
        check_once("--classes", self.classes)
        check_once("--curve", options.curve)
        _check_normalisation(self.names[0], self.mean, self.std)
        if self.fail_under is not None and not 0 <= self.fail_under <= 1:
            raise UserError(f"--fail-under is a fraction between 0 and 1, got {self.fail_under:g}.")
        if self.suite and self.attacks:
            raise UserError("Give either --suite or --attack, not both.")
        check_output(self.output, self.resume, self.overwrite, "run")
        check_suite(self.suite, attacks=self.attacks, **self.threat)
        if self.threat.get("target") and not self.threat.get("targeted"):
            raise UserError("--target needs --targeted.")
        check_data_flags(
            self.data or data_of(self.names[0]),
            data_root=self.data_root,
            download=self.download and not any(map(_downloads, [*self.names, *(self.surrogates or ())])),
            size=self.size,
            workers=self.workers,
            skip_bad=self.skip_bad,
        )


def parse_limit(text: str) -> int | None:
    """`all` as None, otherwise a positive number.

    >>> parse_limit("all"), parse_limit("20")
    (None, 20)
    """
    if text == "all":
        return None
    if not (text.isascii() and text.isdecimal()) or not text.strip("0"):
        raise UserError(f"--limit is a number of samples of at least 1, or all; got {text!r}.")
    if len(text) > 18:
        raise UserError(f"--limit {text:.30} is more than any data set has; for everything write --limit all.")
    return int(text)


def data_of(model: str) -> str:
    """The data set that a model is for, as far as its card says; see --data."""
    if model in zoo_names():
        return zoo_card(model).data or OWN
    path = card_path(model)
    return (read_model_card(path).data if path.endswith(".toml") else "") or OWN


def check_output(output: Path | None, resume: bool, overwrite: bool, what: str) -> None:
    """--resume and --overwrite are about a folder that is named, and one of them excludes the other."""
    if resume and overwrite:
        raise UserError("--resume goes on with what is there and --overwrite removes it: give one of them.")
    if output is None and resume:
        raise UserError(f"--resume needs --output: name the {what} folder to go on with (ls reports).")
    if output is None and overwrite:
        raise UserError(f"--overwrite needs --output: name the {what} folder to replace (ls reports).")


def check_data_flags(
    name: str,
    *,
    data_root: Path | None = None,
    download: bool = False,
    size: str | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    seed: int | None = None,
) -> None:
    """A `UserError` for an unknown data set, and for flags that mean nothing for this one."""
    kind = check_name(name)
    files = kind not in WITH_PATH and kind != OWN
    for flag, given, fits, of in (
        ("--workers", workers is not None, kind == "folder", "folder:PATH"),
        ("--skip-bad", skip_bad, kind == "folder", "folder:PATH"),
        ("--data-root", data_root is not None, files, _listed()),
        ("--download", download, files, f"{_listed()} and torchvision's models"),
        ("--seed", seed is not None, kind == OWN, OWN),
    ):
        if given and not fits:
            raise UserError(f"{flag} means nothing for {name}: it is for {of}. Leave it out.")
    check_size(name, None if size is None else parse_size(size))
    check_workers(workers)


def _listed() -> str:
    return ", ".join(kind for kind in DATA if kind not in WITH_PATH and kind != OWN)


def _downloads(model: str) -> bool:
    """May torchvision have weights for it?"""
    path = card_path(model)
    if model not in zoo_names() and path.endswith(".toml"):
        return read_model_card(path).architecture.startswith("torchvision:")
    return model.startswith("torchvision:")


def _check_normalisation(name: str, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """--mean and --std make sense together, in units of [0, 1], and for a model that has none of its own."""
    if mean is None and std is None:
        return
    if mean is None or std is None:
        raise UserError("--mean and --std come together: give both, in the units of images in [0, 1].")
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        values = f"got --mean {' '.join(map(str, mean))} --std {' '.join(map(str, std))}"
        raise UserError(f"Images are in [0, 1], so mean and std are, too; {values}. Divide values of 0 to 255 by 255.")
    path = card_path(name)
    if name in zoo_names() or (path.endswith(".toml") and read_model_card(path).mean):
        raise UserError(f"{name} brings its own normalisation: leave out --mean and --std.")
