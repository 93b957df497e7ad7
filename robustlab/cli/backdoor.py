"""`robustlab backdoor`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from robustlab.backdoors.setting import CONTROLS, read_filter, read_setting
from robustlab.backdoors.triggers import TRIGGERS
from robustlab.base.cards import card_names
from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.base.words import visible
from robustlab.cli.app import app, command_line
from robustlab.cli.flags import DATA_HELP, DATA_PANEL, OWN, DataFlags, Flag, OutputFlags, Words
from robustlab.cli.listening import listener_of
from robustlab.cli.streams import print_json
from robustlab.defenses.filters import FILTERS
from robustlab.models import ARCHITECTURES, BUILDERS, library_of

DEFAULT_FILTERS = ("spectral", "robust-z")
CARDS = card_names("attacks", "backdoor")
KNOWN = ", ".join(name for name in FILTERS if name not in CONTROLS)


@Parameter(name="*", group=Group("Backdoor", sort_key=1))
@dataclass(frozen=True)
class BackdoorFlags:
    """What is put into the training images."""

    card: Annotated[str | None, Parameter(help=f"A card, by name or path; flags override it: {', '.join(CARDS)}.")] = (
        None
    )

    trigger: Annotated[
        str | None, Parameter(help=f"name:key=value,... of {', '.join(TRIGGERS)} (default: badnets).")
    ] = None

    rate: float | None = None
    """The poisons' share of the training images, or of the target class; see --of (default 0.05)."""

    of: Literal["data", "target"] | None = None
    """What --rate is a share of (default: data)."""

    relation: Literal["all-to-one", "one-to-one", "all-to-all"] | None = None
    """Which classes the poisons come from, and what they are labelled as (default: all-to-one)."""

    target: str | None = None
    """The class that the trigger is to give, by name or number."""

    source: str | None = None
    """Of one-to-one: the class that the poisons come from."""


@Parameter(name="*", group=Group("Defenses", sort_key=2))
@dataclass(frozen=True)
class DefenseFlags:
    """What is tried against it."""

    filter: Annotated[
        Words | None,
        Parameter(
            help=f"name:key=value,..., or a card in defenses/ (default: {', '.join(DEFAULT_FILTERS)}): {KNOWN}. It may"
            " be given several times; the key layer names the layer that it looks at. A filter that wants the share of"
            " poisons is told the true one, and the table says so."
        ),
    ] = None

    repair: Annotated[
        Words | None, Parameter(help="Repair the poisoned model with clean images: fine-tuning, fine-pruning.")
    ] = None

    layer: Annotated[
        Words | None,
        Parameter(help="The layer that filters look at (default: the last flat one); of several, all are compared."),
    ] = None

    controls: Literal["first", "each"] = "first"
    """A random and a perfect filter that remove as many images as the first filter, or as each."""

    score: Annotated[
        Words | None, Parameter(help="As --filter, but it is only scored and counted; no training follows.")
    ] = None


@app.command
def backdoor(
    *,
    data: Annotated[str, Parameter(group=DATA_PANEL, help=f"{DATA_HELP}.")] = OWN,
    limit: int | None = None,
    test_limit: int | None = None,
    model: Annotated[
        str | None,
        Parameter(help=f"What is trained: {', '.join(ARCHITECTURES)}, torchvision:NAME or timm:NAME (default: cnn)."),
    ] = None,
    recipe: str = "plain",
    epochs: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    device: str = "auto",
    json: Flag = False,
    quiet: Flag = False,
    setting: BackdoorFlags = BackdoorFlags(),
    defenses: DefenseFlags = DefenseFlags(),
    files: DataFlags = DataFlags(),
    output: OutputFlags = OutputFlags(),
) -> int:
    """Poison training images, train, look for the poisons, train again on what is left; beside controls.

    Parameters
    ----------
    limit
        Take the first N training images.
    test_limit
        Judge on the first N test images (default: all).
    recipe
        How models are trained: a card in defenses/, by name or path.
    epochs
        Of every training (default: the recipe's).
    seed
        Of the poisons, the trainings and the controls.
    seeds
        So many runs of everything, with --seed and the seeds after it: the table shows their mean and spread.
    device
        auto, cpu, cuda or cuda:N.
    json
        Print the summary as JSON.
    quiet
        Print nothing but the table and warnings.
    """
    flags: dict[str, Any] = {key: getattr(setting, key) for key in setting.__dataclass_fields__ if key != "card"}
    chosen = read_setting(setting.card, {**flags, "model": model})
    asked = DEFAULT_FILTERS if defenses.filter is None and not defenses.score else defenses.filter or ()
    filters = [*map(read_filter, asked), *(read_filter(text, again=False) for text in defenses.score or ())]
    if chosen.model not in ARCHITECTURES and library_of(chosen.model) not in BUILDERS:
        raise UserError(f"--model is {', '.join(ARCHITECTURES)}, torchvision:NAME or timm:NAME; got {chosen.model!r}.")
    for flag, value, least in (
        ("--limit", limit, 1),
        ("--epochs", epochs, 1),
        ("--seed", seed, 0),
        ("--seeds", seeds, 1),
    ):
        check_whole(flag, value, least)
    output.check("run")
    files.check(data)

    from robustlab.backdoors.evaluate_backdoor import evaluate_backdoor
    from robustlab.base.processes import World
    from robustlab.data import load_data
    from robustlab.reporting import report
    from robustlab.reporting.backdoor_words import in_words
    from robustlab.runs.backdoors import summary
    from robustlab.training.recipe import read_recipe

    how = read_recipe(recipe)
    how = how if epochs is None else replace(how, epochs=epochs)
    reading = {key: value for key, value in files.arguments.items() if value is not None}
    train = load_data(data, "train", limit or how.train_size, **reading)
    reading |= {"size": tuple(train.images.shape[2:])} if data.startswith("folder:") else {}
    val = load_data(data, "val", how.val_size, **reading)
    test = load_data(data, "test", test_limit, **reading, divided=True)
    world = World.join()
    run = evaluate_backdoor(
        chosen,
        (train, val, test),
        filters,
        repairs=defenses.repair or (),
        layers=defenses.layer or (),
        recipe=how,
        seed=seed,
        seeds=seeds,
        each=defenses.controls == "each",
        device=device,
        output=output.output,
        resume=output.resume,
        overwrite=output.overwrite,
        command=command_line(),
        listener=listener_of(quiet or not world.first),
    )
    if not world.first:
        return 0
    page = report([run.folder], run.folder / "report.html")
    if json:
        print_json({"run": str(run.folder), "summary": summary(run.info)})
    lines = [*in_words(run.info), f"Page: {page}"]
    print(*map(visible, lines), sep="\n", file=sys.stderr if json else sys.stdout)
    return 0
