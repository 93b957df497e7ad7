"""`robustlab attack`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from robustlab.attacks import ATTACKS
from robustlab.attacks.suite import DEFAULT_CARD, check_suite
from robustlab.base.cards import card_names
from robustlab.base.errors import UserError
from robustlab.base.words import visible
from robustlab.cli.app import DIGITS, app, command_line
from robustlab.cli.fitted import SUITES, fitted_card, show
from robustlab.cli.flags import (
    DATA_HELP,
    DATA_PANEL,
    OUTPUT_PANEL,
    SEVERAL,
    DataFlags,
    Flag,
    ModelFlags,
    OutputFlags,
    Words,
    check_once,
    data_of,
)
from robustlab.cli.listening import listener_of
from robustlab.cli.patch import attack_with_patch
from robustlab.cli.photo import attack_photo
from robustlab.cli.sticker import attack_sign
from robustlab.cli.streams import print_json
from robustlab.defenses.cards import TABLE, read_defense
from robustlab.evaluation.options import Options
from robustlab.models.zoo import card_path
from robustlab.threat.model import BudgetNorm

if TYPE_CHECKING:
    pass

DEFAULT_MODELS = ("road-signs/cnn", "road-signs/cnn-robust")


@Parameter(name="*", group=Group("Attacks", sort_key=1))
@dataclass(frozen=True)
class AttackFlags:
    """What attacks, and what the attacker may do."""

    suite: Annotated[
        str | None,
        Parameter(
            help=f"A card, by name or path: {', '.join(card_names('attacks', *SUITES))} (default: {DEFAULT_CARD})."
        ),
    ] = None

    attack: Annotated[
        Words | None,
        Parameter(
            help=f"Attacks without a card, name:key=value,...; may be given several times: {', '.join(ATTACKS)}."
        ),
    ] = None

    surrogate: Annotated[list[str] | None, SEVERAL] = None
    """Craft every attack on these models alone (several: on the mean of their logits), and show the attacked ones only
    the finished images: a transfer attack. Names as MODEL; give MODEL first."""

    defense: Annotated[
        Words | None,
        Parameter(
            help="Attack each model bare and behind this preprocessing, there with an attack that knows it and with one"
            f" that does not: {', '.join(card_names('defenses', TABLE))}, name:key=value,... or a card's path; may be"
            " given several times."
        ),
    ] = None

    norm: BudgetNorm | None = None
    """Norm of the threat model; overrides the card."""

    eps: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """Budget, such as 8/255 or 0.5; overrides the card and the data set's default."""

    source: str | None = None
    """The sign that a sticker is put on (suites sticker and sticker-poster); default: stop. With --face: the
    class of the thing."""

    seeds: int = 1
    """Fits of a sticker on a sign, with --seed and the seeds after it: the page shows their mean and spread."""

    face: Path | None = None
    """A photograph, or a folder of them (frames of a video), of the thing that a sticker is put on (suite sticker)."""

    corners: str | None = None
    """Its corners in pixels of the first photograph, "x,y x,y x,y x,y", clockwise from the upper left one; or a JSON or
    CSV file with those of each."""

    targeted: Flag = False
    """Success is only being predicted as the target."""

    target: str | None = None
    """A class name, random, or least-likely. Of a sticker: the sign that it is to be read as (default: speed limit 45),
    or any. Of a patch: the class that images with it are to be read as, or any."""

    @property
    def suite_arguments(self) -> dict[str, Any]:
        """As `load_suite` and `check_suite` take them."""
        threat = {"norm": self.norm, "eps": self.eps, "targeted": self.targeted or None, "target": self.target}
        return {"card": self.suite, "attacks": self.attack or (), **threat}

    def check(self, models: Sequence[str]) -> None:
        """A `UserError` for what cannot be meant. models: their names as given, or none. Loads nothing but cards."""
        if self.surrogate and not models:
            raise UserError(
                "--surrogate takes every name after it. Give the model to attack before: MODEL --surrogate NAME."
            )
        surrogates = [card_path(name) for name in self.surrogate or ()]
        check_once("--surrogate", surrogates)
        if own := set(map(card_path, models)).intersection(surrogates):
            raise UserError(
                f"{min(own)} is attacked, and so no surrogate for itself: a transfer attack is crafted on another"
                " model. Leave it out of --surrogate."
            )
        check_once("--attack", self.attack)
        check_once("--defense", self.defense)
        for text in self.defense or ():
            read_defense(text)
        if self.defense and self.surrogate:
            raise UserError(
                "--defense compares an attack that sees the defense with one that does not, and with --surrogate the"
                " attack sees no attacked model: give one of them."
            )
        if self.suite and self.attack:
            raise UserError("Give either --suite or --attack, not both.")
        for flag, given, what in (
            ("--source", self.source, "the sign that a sticker is put on"),
            ("--face", self.face, "what a sticker is put on"),
            ("--corners", self.corners, "where a sticker lies on --face"),
        ):
            if given is not None:
                raise UserError(f"{flag} is {what}: give --suite sticker, too.")
        if self.seeds != 1:
            raise UserError("--seeds counts the fits of a sticker: give --suite sticker, too.")
        check_suite(**self.suite_arguments)
        if self.target and not self.targeted:
            raise UserError("--target needs --targeted.")


@Parameter(name="*", group=DATA_PANEL)
@dataclass(frozen=True)
class SampleFlags:
    """Which images are attacked."""

    data: Annotated[str | None, Parameter(help=f"{DATA_HELP}; default: what the model is for.")] = None

    limit: str = "500"
    """The first N samples of the test split, or all."""

    ids: Annotated[list[int] | None, SEVERAL] = None
    """Only the samples with these ids."""

    classes: Annotated[list[str] | None, SEVERAL] = None
    """Only samples of these classes."""

    def check(self) -> None:
        """A `UserError` for what cannot be meant."""
        parse_limit(self.limit)
        check_once("--ids", self.ids)
        if self.ids and min(self.ids) < 0:
            raise UserError(f"--ids are numbers from 0 on, got {min(self.ids)}.")
        check_once("--classes", self.classes)


@Parameter(name="*", group=OUTPUT_PANEL)
@dataclass(frozen=True)
class ResultFlags:
    """What is printed, and what the exit code says."""

    json: Flag = False
    """Print the results as JSON on stdout, and the table, as all else, on stderr."""

    quiet: Flag = False
    """Print only warnings, errors and the table."""

    fail_under: float | None = None
    """Exit with 1 if a model's robust accuracy is below this fraction; with --defense, that of a model behind one."""

    def check(self) -> None:
        """A `UserError` for what cannot be meant."""
        if self.fail_under is not None and not 0 <= self.fail_under <= 1:
            raise UserError(f"--fail-under is a fraction between 0 and 1, got {self.fail_under:g}.")

    def show(self, found: dict[str, Any], page: Path) -> int:
        """Print what a run found; returns the exit code."""
        from robustlab.reporting import terminal_table, terminal_width

        if self.json:
            print_json(found)
        stream = sys.stderr if self.json else sys.stdout
        print(terminal_table(found, terminal_width(stream)), f"Page: {visible(page)}", sep="\n", file=stream)
        asked = [result for result in found["results"] if "defense" in result] or found["results"]
        shares = {result["model"]: result["robust_accuracy"]["value"] for result in asked}
        missed = {name: value for name, value in shares.items() if value < (self.fail_under or 0.0)}
        for name, value in missed.items():
            print(f"{visible(name)}: robust accuracy {value:.4f} is under {self.fail_under:g}.", file=sys.stderr)
        return 1 if missed else 0


@app.command
def attack(
    *models: Annotated[
        str,
        Parameter(
            help="Zoo names (`robustlab zoo`), torchvision:NAME, timm:NAME, hf:FOLDER, cards (.toml), folders of"
            f" trainings, exported programs (.pt2), or FILE.py:function; default {' and '.join(DEFAULT_MODELS)}."
        ),
    ],
    attacks: AttackFlags = AttackFlags(),
    samples: SampleFlags = SampleFlags(),
    files: DataFlags = DataFlags(),
    own: ModelFlags = ModelFlags(),
    options: Options = Options(),
    output: OutputFlags = OutputFlags(),
    results: ResultFlags = ResultFlags(),
) -> int:
    """Attack classifiers, and write one page about how they fail."""
    names = models or DEFAULT_MODELS
    check_once("MODEL", [card_path(name) for name in names])
    own.check(names)
    if (card := fitted_card(attacks.suite)) is not None:
        return _fit(*card, names, attacks, samples, files, own, options, output, results)
    attacks.check(models)
    samples.check()
    check_once("--curve", options.curve)
    results.check()
    output.check("run")
    files.check(samples.data or data_of(names[0]), models=[*names, *(attacks.surrogate or ())])

    # now torch, which takes seconds
    from robustlab.attacks.suite import load_suite
    from robustlab.base.environment import resolve_device
    from robustlab.base.files import default_folder, resumable
    from robustlab.base.processes import World
    from robustlab.data import load_data
    from robustlab.defenses import make_defense
    from robustlab.evaluation.evaluate import evaluate
    from robustlab.models import load_model
    from robustlab.models.suitable import suitable
    from robustlab.runs import results as results_of

    load_suite(**attacks.suite_arguments)  # whether it is right, before all else
    for text in attacks.defense or ():
        make_defense(read_defense(text)[1])
    world = World.join()
    options = replace(options, device=str(resolve_device(options.device)))
    targets = [load_model(name, **asdict(own), download=files.download) for name in names]
    surrogates = [load_model(name, download=files.download) for name in attacks.surrogate or ()]
    wanted = samples.data or targets[0].data or "road-signs"
    given = {key: value for key, value in files.arguments.items() if key != "size" or value is not None}
    chosen = load_data(
        wanted,
        "test",
        parse_limit(samples.limit),
        ids=samples.ids or (),
        classes=samples.classes or (),
        **suitable(wanted, targets) | given,
    )
    suite = load_suite(**attacks.suite_arguments, default=chosen.threat)
    folder = output.output or world.agree(default_folder(chosen.name) if world.first else Path())
    with resumable(folder, output.overwrite):
        run = evaluate(
            targets,
            chosen,
            suite,
            surrogate=surrogates or None,
            defense=attacks.defense,
            output=folder,
            resume=output.resume,
            overwrite=output.overwrite,
            command=command_line(),
            listener=listener_of(results.quiet or not world.first),
            **asdict(options),
        )
    if not world.first:
        return 0
    from robustlab.reporting import report

    return results.show(results_of(run), report([run.folder], run.folder / "report.html"))


def _fit(
    kind: str,
    card: dict[str, Any],
    names: Sequence[str],
    attacks: AttackFlags,
    samples: SampleFlags,
    files: DataFlags,
    own: ModelFlags,
    options: Options,
    output: OutputFlags,
    results: ResultFlags,
) -> int:
    """The command with the card of a fitted attack. A flag that means nothing for one is refused."""
    sticker, photo = kind == "sticker" and attacks.face is None, kind == "sticker" and attacks.face is not None
    if attacks.corners is not None and not photo:
        raise UserError("--corners says where a sticker lies on --face: give the photograph, too.")
    own_flags: dict[str, Any] = {"source": attacks.source, "seeds": attacks.seeds} if sticker else {}
    if photo:
        own_flags = {"source": attacks.source, "face": attacks.face, "corners": attacks.corners}
    meant = [
        AttackFlags(suite=attacks.suite, target=attacks.target, **own_flags),
        SampleFlags(limit=samples.limit, data=None if kind == "sticker" else samples.data),
        Options(seed=options.seed, device=options.device),
        DataFlags() if kind == "sticker" else files,
        ModelFlags() if sticker else own,
    ]
    if [attacks, samples, options, files, own] != meant:
        what, ours = {
            "sign": ("a sticker on a sign of the rendered world", "--source, --seeds"),
            "photo": ("a sticker on photographs", "--source, --corners, --weights, --mean, --std, --device"),
            "patch": ("a patch on training images", "--data and its flags, --weights, --mean, --std, --device"),
        }["sign" if sticker else "photo" if photo else "patch"]
        raise UserError(
            f"--suite {attacks.suite} fits {what}. It takes {ours}, --target, --limit"
            f"{' (scenes)' * sticker}, --seed, --output, --resume, --overwrite, --json, --quiet and --fail-under: leave"
            " the other flags out."
        )
    samples.check()
    results.check()
    output.check("run")
    limit = parse_limit(samples.limit)
    if kind == "sticker" and limit is None:
        raise UserError(f"--limit all: there is no end of {'scenes' if sticker else 'views'}. Give a number.")
    data = samples.data or data_of(names[0])
    if kind == "patch":
        files.check(data, models=names)
    from robustlab.base.files import default_folder, resumable
    from robustlab.base.processes import World
    from robustlab.models import load_model

    world = World.join()
    folder = output.output or world.agree(default_folder(kind) if world.first else Path())
    running: dict[str, Any] = {
        "seed": options.seed,
        "output": folder,
        "resume": output.resume,
        "overwrite": output.overwrite,
        "command": command_line(),
        "listener": listener_of(results.quiet or not world.first),
    }
    aim = {"source": attacks.source, "target": attacks.target}
    with resumable(folder, output.overwrite):
        if limit is not None and sticker:
            found = attack_sign(names, card, **aim, seeds=attacks.seeds, n=limit, running=running)
        else:
            running["device"] = str(options.device)
            networks = [load_model(name, **asdict(own), download=files.download) for name in names]
            if limit is not None and attacks.face is not None:
                found = attack_photo(
                    networks, card, **aim, face=attacks.face, corners=attacks.corners, n=limit, running=running
                )
            else:
                data = samples.data or networks[0].data or data
                reading = {key: value for key, value in files.arguments.items() if key != "size" or value is not None}
                target = attacks.target
                found = attack_with_patch(
                    networks, card, data=data, reading=reading, target=target, n=limit, running=running
                )
    if not world.first:
        return 0
    return show(found, kind, json=results.json, fail_under=results.fail_under)


def parse_limit(text: str) -> int | None:
    """`all` as None, otherwise a positive number.

    >>> parse_limit("all"), parse_limit("20")
    (None, 20)
    """
    if text == "all":
        return None
    if not (text.isascii() and text.isdecimal()) or not text.strip("0"):
        raise UserError(f"--limit is a number of samples of at least 1, or all; got {text!r}.")
    if len(text) > DIGITS:
        raise UserError(f"--limit {text:.30} is more than any data set has; for everything write --limit all.")
    return int(text)
