"""A backdoor run at work: its folder, its data, and what its studies share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from robustlab.backdoors.fitting import Watch, agreement, fitted
from robustlab.backdoors.poisoning import Poisoned, poison, triggered
from robustlab.backdoors.setting import FilterPlan, Setting
from robustlab.base.draws import keys, uniform
from robustlab.base.files import Kind, slug
from robustlab.data import Data, Loaded
from robustlab.defenses.filters.base import Scores, Seen, top
from robustlab.defenses.representations import representations
from robustlab.evaluation.listener import Listener
from robustlab.models.card import card_text, read_model_card
from robustlab.models.classifier import Classifier
from robustlab.models.loading import load_model
from robustlab.oracle import answers
from robustlab.runs import StudiedRun
from robustlab.runs.manifest import PAGE
from robustlab.training.recipe import Recipe

Json = dict[str, Any]
T = TypeVar("T")
CLEAN = 500  # validation images that a defender has, where a filter or a repair needs clean ones

BACKDOORS = Kind(
    name="backdoor",
    files=(PAGE,),
    folders={
        "parts": (".json", ".safetensors"),
        "images": (".png",),
        "models": (".toml", ".safetensors"),
        "scores": (".csv",),
    },
    again=(PAGE,),
)


class BackdoorRun(StudiedRun):
    """The folder: poisoned models in models/, what each filter said of each training image in scores/."""

    files = BACKDOORS

    def write_model(self, name: str, folder: Path) -> None:
        """Store the model that a training left in a folder."""
        weights = f"{slug(name)}.safetensors"
        card = replace(read_model_card(folder / "model.toml"), name=name, weights=weights)
        self.write_file(f"models/{weights}", (folder / "model.safetensors").read_bytes())
        self.write_file(f"models/{slug(name)}.toml", card_text(card))

    def model(self, name: str) -> Classifier:
        """A model that `write_model` stored; of a run that will replace another one, its own."""
        with tempfile.TemporaryDirectory() as temporary:
            for end in ("toml", "safetensors"):
                file = f"{slug(name)}.{end}"
                (Path(temporary) / file).write_bytes(self.read_file(f"models/{file}"))
            return load_model(str(Path(temporary) / f"{slug(name)}.toml"))


@dataclass(frozen=True)
class BackdoorJob:
    """A run that goes on, as its studies see it.

    train, val, test: three splits; val chooses the epoch of a training, and its first images are the defender's clean
    ones. layers: names, of which the first is filtered on. each: controls beside every filter, not the first alone.
    """

    run: BackdoorRun
    setting: Setting
    train: Loaded
    val: Loaded
    test: Loaded
    recipe: Recipe
    filters: Sequence[FilterPlan]
    repairs: Sequence[str]
    layers: Sequence[str]
    seeds: Sequence[int]
    each: bool
    device: torch.device
    listener: Listener
    finished: Callable[[Hashable, str], None]
    kept: dict[str, tuple[Hashable, Any]] = field(default_factory=dict)

    def poisoned(self, seed: int) -> Poisoned:
        """The training set of a seed."""
        return self._once("poisoned", seed, lambda: poisoned(self.train, self.setting, seed))

    def triggered(self, seed: int) -> Poisoned:
        """The test images on which attack success is measured."""
        setting = self.setting
        return self._once("triggered", seed, lambda: triggered(self.test, setting.made, seed=seed, **setting.poisoning))

    def model(self, seed: int) -> Classifier:
        """The undefended model of a seed."""
        return self._once("model", seed, lambda: self.run.model(model_name(seed)).to(self.device))

    def representations(self, seed: int, layer: str) -> Tensor:
        """Of all training images, by the undefended model."""
        return self._once("representations", (seed, layer), lambda: self._represented(seed, layer))

    def _represented(self, seed: int, layer: str) -> Tensor:
        model = self.model(seed)
        parts = [representations(model, x.to(self.device), layer).cpu() for x in self.poisoned(seed).images.split(2048)]
        return torch.cat(parts)

    def _once(self, what: str, key: Hashable, make: Callable[[], T]) -> T:
        """The last one of each kind is kept: parts of one seed follow each other."""
        if what not in self.kept or self.kept[what][0] != key:
            self.kept.pop(what, None)
            self.kept[what] = key, make()
        found: T = self.kept[what][1]
        return found

    def trained(self, data: Data, seed: int, name: str, watch: Watch = lambda model: None) -> Json:
        """Train on data, and what is `measured` of the best epoch.

        name: the model is stored as that, unless it is empty. watch: is handed the model after each epoch.
        """
        architecture, place = self.setting.model, str(self.device)
        with fitted(
            architecture, data, self.val, self.recipe, seed, name=name or "model", device=place, watch=watch
        ) as (model, done):
            if name:
                self.run.write_model(name, done.output)
        found = self.measured(model.to(self.device), seed)
        return {"trained": len(data), "epoch": done.best_epoch, **found, "train_seconds": done.seconds}

    def measured(self, model: nn.Module, seed: int) -> Json:
        """clean: accuracy. asr: triggered images read as the class that the trigger wants. right: as their own."""
        tried = self.triggered(seed)
        said = self.answers(model, tried.images)
        return {
            "clean": agreement(self.answers(model, self.test.images), self.test.labels),
            "asr": agreement(said, tried.wanted),
            "right": agreement(said, tried.labels),
        }

    def answers(self, model: nn.Module, images: Tensor) -> Tensor:
        """(n,) the classes that a model names."""
        return answers(model, images, self.device)

    def seen(self, seed: int, plan: FilterPlan, layer: str | None = None) -> Seen:
        """What a filter may look at, and no more."""
        data, needs = self.poisoned(seed), plan.needs
        given: Json = {}
        if "representations" in needs:
            given["representations"] = self.representations(seed, layer or plan.layer or self.layers[0])
        if "classifier" in needs:
            given["classifier"] = self.model(seed)
        if "images" in needs:
            given["images"] = data.images.to(self.device)
        if "clean_images" in needs:
            given["clean_images"] = self.val.images[:CLEAN].to(self.device)
        if "losses" in needs:
            given["losses"] = load(self.run.state(f"losses {seed}") or save({"losses": torch.zeros(0)}))["losses"]
        return Seen(data.labels, ids=data.ids, **given)

    def filter(self, seed: int, plan: FilterPlan) -> Any:
        """The filter of a plan, told of this seed's poisons what its plan leaves open."""
        return told(plan, self.poisoned(seed))

    def keep(self, seed: int, plan: FilterPlan, found: Scores) -> None:
        """Store what a filter found, for the studies that follow."""
        state = {"removed": found.removed, "scores": found.scores}
        self.run.write_state(f"found {seed} {plan.name}", save(state))

    def found(self, seed: int, plan: FilterPlan) -> tuple[Tensor, Tensor] | None:
        """(n,) bool what a filter removed, and (n,) its scores; None where it did not end."""
        state = self.run.state(f"found {seed} {plan.name}")
        return None if state is None else (load(state)["removed"], load(state)["scores"])


def poisoned(train: Data, setting: Setting, seed: int) -> Poisoned:
    """The training set of a seed. UserError: see `poison`."""
    return poison(train, setting.made, setting.rate, seed=seed, of=setting.of, **setting.poisoning)


def told(plan: FilterPlan, data: Poisoned) -> Any:
    """The filter of a plan; where it wants a share of poisons, it gets the true one of the target class."""
    rates = data.rates
    return plan.made(eps=rates["target"] or rates["data"] or 0.0, target=data.target)


def model_name(seed: int) -> str:
    """What the undefended model of a seed is called."""
    return f"seed-{seed}"


def as_many(data: Poisoned, removed: Tensor, seed: int, *, knowing: bool) -> Tensor:
    """(n,) bool: in each class as many images at random as in `removed`, drawn by seed and id.

    knowing: the poisons first, all of them, even where that is more.
    """
    drawn = uniform(keys(seed, data.ids, "control"), (1,))[:, 0] + (data.changed.float() if knowing else 0)
    chosen = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels.unique().tolist():
        where = (data.labels == label).nonzero()[:, 0]
        count = int(removed[where].sum())
        if knowing:
            count = max(count, int(data.changed[where].sum()))
        chosen[where] = top(drawn[where], count, data.ids[where])
    return chosen
