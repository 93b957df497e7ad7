"""A backdoor as a run: poison, train, filter, train again, measure, and write all of it into a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from robustlab.backdoors.job import BackdoorJob, BackdoorRun, poisoned, told
from robustlab.backdoors.looks import Heat, Histograms, Layers, Projection, Spectrum, TriggerShown
from robustlab.backdoors.poisoning import triggered
from robustlab.backdoors.results import REPAIRS, Results
from robustlab.backdoors.setting import FilterPlan, Setting, with_numbers
from robustlab.backdoors.studies import Filters, Models
from robustlab.base.environment import describe_device, resolve_device
from robustlab.base.errors import UserError
from robustlab.base.typed import check_choice, check_whole
from robustlab.data import Data, Loaded
from robustlab.defenses.filters.base import Seen
from robustlab.defenses.representations import found_layer
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.running import run_studies
from robustlab.runs import StoredRun
from robustlab.training.recipe import Recipe
from robustlab.training.start import begin

Json = dict[str, Any]
STUDIES = (TriggerShown, Models, Filters, Histograms, Spectrum, Projection, Layers, Heat, Results)


def evaluate_backdoor(
    setting: Setting,
    data: tuple[Data, Data, Data],
    filters: Sequence[FilterPlan],
    *,
    repairs: Sequence[str] = (),
    layers: Sequence[str] = (),
    recipe: Recipe | None = None,
    seed: int = 0,
    seeds: int = 1,
    each: bool = False,
    device: str = "auto",
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    listener: Listener | None = None,
) -> StoredRun:
    """Poison training images, train, look for the poisons with each filter, train again on what is left, and measure.

    data: training, validation and test images. repairs: of `REPAIRS`. layers: by name; the filters look at the first
    (left out: the last flat one before the logits), and are compared on all. recipe: of every training; its PGD check
    takes few images unless its defense needs it. seed, seeds: so many runs of everything, with consecutive seeds.
    each: controls of the size of each filter; else of the first.
    UserError for bad input, before anything is trained.

    >>> import tempfile
    >>> from robustlab import load_data
    >>> from robustlab.backdoors.setting import read_filter
    >>> three = tuple(load_data("road-signs", split, n) for split, n in (("train", 400), ("val", 40), ("test", 60)))
    >>> quick, quiet = Recipe(epochs=1), Listener(say=lambda text: None)
    >>> run = evaluate_backdoor(Setting(target="stop"), three, [read_filter("spectral", False)], recipe=quick,
    ...     output=tempfile.mkdtemp() + "/run", listener=quiet)
    >>> [row["filter"] for section in run.info["sections"] for row in section["rows"] if section["name"] == "filters"]
    ['spectral']
    """
    check_whole("seed", seed, 0)
    check_whole("seeds", seeds, 1)
    for name in repairs:
        check_choice("repair", name, tuple(REPAIRS))
    for what, names in (("filter", [plan.name for plan in filters]), ("repair", repairs), ("layer", layers)):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"The {what} {twice} was given twice. Give each once.")
    if not filters and not repairs:
        raise UserError("Nothing is to be tried: give a filter or a repair.")
    where = resolve_device(device)
    train, val, test = (each_of.loaded() for each_of in data)
    setting = with_numbers(setting, train.classes)
    recipe = _recipe(recipe or Recipe())
    chosen = _checked(setting, train, test, filters, layers, recipe, seed)
    config: Json = {
        "models": [],
        "attacks": [],
        "architecture": setting.model,
        "trigger": {"name": setting.trigger, "parameters": _plain(setting.made)},
        **{key: getattr(setting, key) for key in ("rate", "of", "relation", "target", "source")},
        "filters": [asdict(plan) for plan in filters],
        "repairs": list(repairs),
        "layers": chosen,
        "controls": "each" if each else "first",
        "recipe": recipe.record(),
        "data": {"name": test.name, "split": test.split, "hash": test.hash, "n": len(test)},
        "training_data": {"hashes": [train.hash, val.hash], "n": [len(train), len(val)]},
        "seed": seed,
        "seeds": seeds,
    }
    about: Json = {
        "command": command,
        "suite": f"backdoor {setting.trigger}",
        "device": describe_device(where),
        "warnings": list(dict.fromkeys([*train.notes, *val.notes, *test.notes])),
        "data": {**config["data"], "shape": list(test.images.shape[1:]), "classes": list(test.classes)},
    }
    return run_studies(
        STUDIES,
        BackdoorRun,
        lambda run, heard, finished: BackdoorJob(
            run,
            setting,
            train,
            val,
            test,
            recipe,
            filters,
            repairs,
            chosen,
            range(seed, seed + seeds),
            each,
            where,
            heard,
            finished,
        ),
        config,
        about,
        output=output,
        name=f"backdoor-{setting.trigger}",
        resume=resume,
        overwrite=overwrite,
        listener=listener or Listener(),
    )


def _checked(
    setting: Setting,
    train: Loaded,
    test: Loaded,
    filters: Sequence[FilterPlan],
    layers: Sequence[str],
    recipe: Recipe,
    seed: int,
) -> list[str]:
    """The names of the layers. UserError for all that can be known before a training."""
    if setting.relation != "all-to-all" and setting.target is None:
        raise UserError(f"A backdoor needs a target class. Classes: {', '.join(train.classes)}.")
    data = poisoned(train, setting, seed)
    triggered(test, setting.made, seed=seed, **setting.poisoning)
    like = torch.randn(len(data), 16, generator=torch.Generator().manual_seed(0))
    for plan in filters:  # with numbers that mean nothing: too few images, a bad eps, a whole class gone
        judge = told(plan, data)
        if plan.needs == ("representations",) and "channels" not in plan.parameters:  # those have to divide the layer
            judge(Seen(data.labels, like, data.ids))
    model = begin(setting.model, data, recipe, seed, Path()).model
    for plan in filters:
        found_layer(model, data.images[:2], plan.layer)
    return [found_layer(model, data.images[:2], layer)[0] for layer in layers or (None,)]


def _recipe(recipe: Recipe) -> Recipe:
    """For all images that are given; the PGD check of every epoch on few images, where it chooses nothing."""
    recipe = replace(recipe, train_size=None, val_size=None)
    return recipe if recipe.defense else replace(recipe, check_size=min(16, recipe.check_size))


def _plain(trigger: Any) -> Json:
    """The parameters of a trigger as JSON; a classifier or a trigger inside it by its text."""
    return {
        name: value if isinstance(value, int | float | str | list | tuple | bool | None) else repr(value)
        for name, value in ((name, getattr(trigger, name)) for name in trigger.__dataclass_fields__)
    }
