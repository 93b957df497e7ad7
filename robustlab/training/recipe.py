"""How a model is trained, as a checked dataclass, and where recipes come from. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from robustlab.base.cards import card_names, convert, find_card, read_card
from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.typed import check_amounts, check_choice, check_whole
from robustlab.base.words import listed
from robustlab.defenses import parameters
from robustlab.models import ARCHITECTURES, BUILDERS, library_of
from robustlab.models.card import ModelCard, read_model_card
from robustlab.models.zoo import card_path, zoo_card, zoo_names

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "cyclic", "piecewise", "constant"]
Precision = Literal["auto", "float32", "bfloat16"]
# fields that came after the first trainings
LATER = (
    *("clip", "optimizer", "schedule", "drops", "smoothing", "ema", "awp", "awp_warmup", "cutout", "mixup"),
    *("precision", "compile", "model"),
)


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum, or AdamW, under a schedule; a `defense` table makes it adversarial training.

    lr: the peak; it is reached after the share `warmup` of all steps, then `schedule` says how it falls: cosine,
    cyclic, constant, or piecewise, to a tenth at each of `drops`, shares of all steps (`batches.learning_rate`).
    optimizer: sgd or adamw. momentum: of SGD. weight_decay: L2 (with AdamW decoupled), on matrices and kernels only.
    l1: weight of the sum of their absolute values. dropout: before the last layer. smoothing: of the labels. ema: decay
    of the moving average of the weights that is kept and measured, 0 for none. awp: relative size of the worst-case
    change of the weights in each step (Wu et al. 2020), 0 for none, and awp_warmup: epochs without it. shift:
    augmentation, random moves of up to that many pixels; flip: random mirror images (never for signs or digits);
    cutout: side of a hidden square; mixup: alpha of the mixture, 0 for none. init: a zoo name or model card to start
    from. clip: the largest norm of a step's gradient, 0 for any. precision: float32, bfloat16 (autocast), or auto:
    bfloat16 on CUDA. compile: by torch.compile. train_size, val_size: the first so many images, None for all.
    check_size: how many images of each split the PGD check sees every epoch. model: options of the architecture, such
    as its width. defense: `method` and its parameters.

    >>> Recipe(epochs=3, defense={"method": "n-fgsm", "eps": "8/255"}).lr
    0.1
    """

    epochs: int = 12
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    l1: float = 0.0
    dropout: float = 0.0
    shift: int = 2
    flip: bool = False
    warmup: float = 0.25
    init: str = ""
    clip: float = 0.0
    train_size: int | None = None
    val_size: int | None = 1000
    check_size: int = 300
    optimizer: Optimizer = "sgd"
    schedule: Schedule = "cosine"
    drops: list[float] = field(
        default_factory=lambda: [10 / 11, 21 / 22]
    )  # 100 and 105 of 110 epochs, Pang et al. 2021
    smoothing: float = 0.0
    ema: float = 0.0
    awp: float = 0.0
    awp_warmup: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    precision: Precision = "auto"
    compile: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    defense: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "check_size", "train_size", "val_size"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"A recipe needs {key} of at least 1, got {value}.")
            check_whole(f"A recipe's {key}", value, 1)
        if self.train_size == 1:
            raise UserError("A recipe needs train_size of at least 2.")
        check_amounts("A recipe", asdict(self))
        if not all(0 < drop < 1 for drop in self.drops):
            raise UserError(f"A recipe's drops are shares of all steps, above 0 and below 1, got {self.drops}.")
        for key in ("dropout", "warmup", "momentum", "smoothing", "ema"):
            if not getattr(self, key) < 1:
                raise UserError(f"A recipe needs {key} below 1, got {getattr(self, key)}.")
        for key, kind in (("optimizer", Optimizer), ("schedule", Schedule), ("precision", Precision)):
            check_choice(f"A recipe's {key}", getattr(self, key), get_args(kind))

    def calmer(self) -> str:
        """What to try where the loss explodes."""
        tries = [f"Lower lr (--set lr={self.lr / 10:.3g})"]
        tries += ["raise warmup (--set warmup=0.5)"] if self.warmup < 0.5 else []
        tries += ["clip the gradients (--set clip=1)"] if not self.clip or self.clip > 1 else []
        return listed(tries, "or") + "."

    def doubts(self, side: int) -> list[str]:
        """What of it has no effect, or hides all: for the warnings. side: of the images, in pixels, the shorter one.

        >>> Recipe(epochs=2, cutout=40).doubts(32)
        ['cutout hides squares of 40 pixels, and the images have 32: little or nothing of them is left.']
        """
        found = []
        if self.awp and self.awp_warmup >= self.epochs:
            found.append(f"awp begins after {self.awp_warmup:g} epochs, and there are {self.epochs}: it does nothing.")
        if (ramp := self.defense.get("ramp", 0)) >= self.epochs and ramp:
            found.append(f"eps rises over {ramp:g} epochs, and there are {self.epochs}: it does not reach its value.")
        if self.awp >= 1:
            found.append(f"awp = {self.awp:g} moves weights by more than their own size: 0.005 or 0.01 is usual.")
        if self.cutout >= side:
            found.append(
                f"cutout hides squares of {self.cutout} pixels, and the images have {side}: little or nothing of them"
                " is left."
            )
        if self.optimizer == "adamw" and self.lr >= 0.05:
            found.append(f"lr = {self.lr:g} is much for adamw: 0.001 is usual (--set lr=0.001).")
        return found

    def for_few(self, images: int, given: Collection[str]) -> Recipe:
        """The same for a folder of so few images that its batches would be steps too few; what is `given` stays.

        At least 8 batches an epoch of 16 images or more, 300 steps in all (60 epochs at most), and a learning rate in
        proportion to the batch (Goyal et al. 2017, arXiv:1706.02677).

        >>> few = Recipe().for_few(150, given=["epochs"])
        >>> few.batch_size, few.lr, few.epochs, Recipe().for_few(5000, given=[]) == Recipe()
        (18, 0.0141, 12, True)
        """
        size = self.batch_size if "batch_size" in given else min(self.batch_size, max(16, images // 8))
        rate = self.lr if "lr" in given else round(self.lr * size / self.batch_size, 4)
        epochs = self.epochs
        if "epochs" not in given:
            epochs = max(epochs, min(60, math.ceil(300 / math.ceil(images / size))))
        return replace(self, batch_size=size, lr=rate, epochs=epochs)

    def record(self) -> dict[str, Any]:
        """Its content as a run stores it; what came later only where it is used: older trainings resume."""
        default = asdict(Recipe())
        return {key: value for key, value in asdict(self).items() if key not in LATER or value != default[key]}


@dataclass(frozen=True)
class DefenseCard:
    """A file in `defenses/`: what it is, where it comes from, the recipe (see `Recipe`), and what to expect of it."""

    name: str
    summary: str
    source: str
    recipe: dict[str, Any]
    expected: str = ""


def read_recipe(name: str) -> Recipe:
    """The recipe of a card in `defenses/`, by name or path; a key that it does not know is a `UserError`.

    >>> read_recipe("n-fgsm").defense["method"]
    'n-fgsm'
    """
    path = find_card("defenses", name, "recipe")
    return convert(read_card(path, DefenseCard).recipe, Recipe, f"[recipe] in {path}")


@dataclass(frozen=True)
class Assignment:
    """Everything that `train` needs, resolved: which architecture on which data by which recipe."""

    architecture: str
    data: str
    recipe: Recipe
    seed: int = 0


def recipe_for(
    model: str,
    *,
    data: str | None = None,
    recipe: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Assignment:
    """What `robustlab train MODEL` means.

    model: a zoo name (trained again as its card says); an architecture, `torchvision:NAME`, `timm:NAME` or
    `FILE.py:function`, which start from random weights; or a model card (or its folder), trained further from its
    weights and by its own recipe. data: default the card's, or `road-signs`. recipe: the name or path of a card in
    `defenses/`; default the card's own, or `plain`. overrides: values that win over the card's: fields of `Recipe`, and
    parameters of the defense, such as `eps`. Raises UserError.

    >>> wanted = recipe_for("road-signs/cnn-robust", overrides={"epochs": 2, "eps": "4/255"})
    >>> wanted.architecture, wanted.data, wanted.recipe.epochs, wanted.recipe.defense["eps"]
    ('cnn', 'road-signs', 2, '4/255')
    """
    model = card_path(model)
    file, colon, function = model.rpartition(":")
    if model in zoo_names():
        card = zoo_card(model)
        wanted = Assignment(
            card.architecture, card.data, convert(card.recipe, Recipe, f"the recipe of {model}"), card.seed
        )
    elif model.endswith(".toml"):
        card = read_model_card(model)
        wanted = Assignment(model, card.data or "road-signs", _of_card(card, model), card.seed)
    elif model in ARCHITECTURES or library_of(model) in BUILDERS or (function and file.endswith(".py")):
        wanted = Assignment(model, "road-signs", read_recipe(recipe or "plain"))
    else:
        raise UserError(_no_such(model))
    chosen = wanted.recipe
    if recipe is not None:  # a card's weights are started from by whatever recipe
        other = read_recipe(recipe)
        chosen = replace(other, init=chosen.init) if model.endswith(".toml") else other
    return Assignment(wanted.architecture, data or wanted.data, _overridden(chosen, overrides or {}), wanted.seed)


def _no_such(model: str) -> str:
    """The message for a name of nothing that can be trained."""
    hint = did_you_mean(model, [*ARCHITECTURES, *zoo_names()])
    if model.endswith(".py"):
        hint = f" Name the function in it that returns the network: {model}:FUNCTION."
    return (
        f"There is nothing to train called {model!r}.{hint} Give an architecture ({', '.join(ARCHITECTURES)},"
        " torchvision:NAME, timm:NAME or FILE.py:function), a model card (FILE.toml), or a zoo name"
        f" ({', '.join(zoo_names())})."
    )


def _of_card(card: ModelCard, path: str) -> Recipe:
    """How the model of a card is trained further: as it was trained, from the weights that it has."""
    plain = replace(read_recipe("plain"), defense=card.wrap)
    recipe = convert(card.recipe, Recipe, f"the recipe of {path}") if card.recipe else plain
    dropout = card.options.get("dropout", recipe.dropout)
    return replace(recipe, init=path if card.weights else "", dropout=dropout)


def _overridden(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    own = {f.name for f in fields(Recipe)}
    of_defense = parameters(recipe.defense)
    content = asdict(recipe)
    for key, value in overrides.items():
        if key in own:
            content[key] = value
        elif key.startswith("model."):
            content["model"][key.removeprefix("model.")] = value
        elif key in of_defense:
            content["defense"][key] = value
        else:
            raise UserError(_unknown(key, sorted(own), recipe.defense.get("method"), of_defense))
    return convert(content, Recipe, "the recipe")


def _unknown(key: str, own: list[str], method: str | None, of_defense: list[str]) -> str:
    """What is said of a value that neither the recipe nor its defense has a place for."""
    has = f"the defense {method} has {', '.join(of_defense) or 'no fields'}"
    if key == "eps" and method:
        return f"eps is the budget of a defense, and {has}. Leave it out, or take another recipe."
    if key == "eps":
        recipes = {name: read_recipe(name) for name in card_names("defenses", "recipe")}
        names = ", ".join(name for name, one in recipes.items() if "eps" in parameters(one.defense))
        return f"eps is the budget of a defense, and the recipe has no defense. Take one that has: --recipe {names}."
    recipe = f"the recipe has {', '.join(own)}; {has if method else 'it has no defense'}"
    return f"Nothing in the recipe is called {key!r}.{did_you_mean(key, [*own, *of_defense])} Known: {recipe}."
