"""`robustlab explain`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from robustlab.attacks.suite import check_suite
from robustlab.base.errors import UserError
from robustlab.base.files import check_new_folder
from robustlab.base.typed import check_whole
from robustlab.base.words import visible, visible_json
from robustlab.cli.app import app
from robustlab.cli.flags import DATA_HELP, DATA_PANEL, DataFlags, Flag, ModelFlags, data_of
from robustlab.cli.streams import print_json
from robustlab.explain.methods import METHODS, method
from robustlab.threat.model import BudgetNorm

if TYPE_CHECKING:
    from robustlab.data import Loaded
    from robustlab.models.classifier import Classifier

FEW = 4  # images, unless --ids or files say which
JUDGED = 32  # images of the data set for the sanity checks
SEARCHED = 500  # images of the data set among which --channels looks


@app.command
def explain(
    model: str,
    /,
    *images: Path,
    data: Annotated[str | None, Parameter(group=DATA_PANEL, help=f"{DATA_HELP}.")] = None,
    ids: str | None = None,
    methods: Annotated[str, Parameter(help=f"Of {', '.join(METHODS)}, with commas.")] = "grad-cam,activations",
    layer: str | None = None,
    list_layers: Flag = False,
    channels: int = 0,
    attack: str | None = None,
    norm: BudgetNorm | None = None,
    eps: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    judge: int = JUDGED,
    seed: int = 0,
    json: Flag = False,
    files: DataFlags = DataFlags(),
    weights: ModelFlags = ModelFlags(),
    output: Path | None = None,
) -> int:
    """Where does a model look? Heatmaps of images of a data set or of your own, and whether they can be trusted.

    Parameters
    ----------
    model
        As robustlab attack takes it.
    images
        Image files of your own, instead of --data.
    ids
        Images of the data set, such as 3,17 (default: the first 4 of its test images).
    layer
        The layer to look at, by its name (default: the last with a map that matters).
    list_layers
        Only list the layers that can be looked at.
    channels
        Also show what the N strongest channels of the layer respond to, among the first 500 images of the data set, or
        among your own, and with --attack how they change.
    attack
        Also explain the images after this attack, such as pgd or pgd:steps=50, and measure how far the heat moves.
    norm
        Norm of the attack's budget (default: the data set's).
    eps
        Budget of the attack, such as 8/255 (default: the data set's).
    judge
        Sanity checks, and the measures of how far the heat moves, on the first N images of the data set (0: no checks);
        with images of your own, on those.
    seed
        Of the controls and the sanity checks.
    json
        Print the numbers as JSON.
    output
        A folder for explain.html, explain.json and images (default reports/explain-NAME-DATE-TIME).
    """
    chosen = list(dict.fromkeys(word.strip() for word in methods.split(",") if word.strip()))
    for name in chosen:
        method(name)
    if not chosen:
        raise UserError(f"--methods needs one at least: {', '.join(METHODS)}.")
    numbers = _numbers(ids)
    check_whole("--judge", judge, 0)
    check_whole("--channels", channels, 0)
    check_whole("--seed", seed, 0)
    if images and (data or ids):
        raise UserError("Give image files, or --data and --ids, not both.")
    source = data or data_of(model)
    if not images:
        files.check(source, models=[model])
    weights.check([model])
    if attack:
        check_suite(attacks=[attack], norm=norm, eps=eps)
    elif norm or eps:
        raise UserError("--norm and --eps are the budget of --attack: give an attack, or leave them out.")
    if output and not list_layers:
        check_new_folder(output)

    import msgspec
    import torch

    from robustlab.attacks.suite import load_suite
    from robustlab.base.files import default_folder, give_back, new_folder
    from robustlab.data import load_data
    from robustlab.data.own_images import own_images
    from robustlab.evaluation.explained_page import files_of, said, told
    from robustlab.evaluation.explaining import explain_images
    from robustlab.explain.layers import layers_with_maps
    from robustlab.models.loading import load_model
    from robustlab.models.suitable import suitable
    from robustlab.threat.model import ThreatModel

    def say(text: str) -> None:
        print(visible(text), file=sys.stderr)

    given = load_model(model, weights=weights.weights, mean=weights.mean, std=weights.std, download=files.download)
    judged = searched = None
    if images:
        x = own_images(images, _size(files, given), given.shape[0] if given.shape else None)
        labels, places, threat = torch.full((len(x),), -1), torch.arange(len(x)), ThreatModel()
        names = [file.name for file in images]
        judged = (x, labels, places) if judge else None
        searched = (x, names) if channels else None
    else:
        fitting = suitable(source, [given])
        reading: dict[str, Any] = files.arguments | {key: fitting[key] for key in ("channels", "divided")}
        reading |= {"size": files.pixels or fitting["size"]}
        shown = load_data(source, "test", None if numbers else FEW, ids=numbers, **reading).loaded()
        x, labels, places, threat = shown.images, shown.labels, shown.ids, shown.threat
        names = [f"{shown.name} {id}" for id in places.tolist()]
        if judge and not list_layers:
            more = load_data(source, "test", judge, **reading).loaded()
            judged = more.images, more.labels, more.ids
        if channels and not list_layers:
            more = load_data(source, "test", SEARCHED, **reading).loaded()
            searched = more.images, _captions(more)
    if list_layers:
        lines = [f"{each.name:40} {' x '.join(map(str, each.grid)):>10}" for each in layers_with_maps(given, x[:2])]
        print(*map(visible, ["layer                                     rows x columns", *lines]), sep="\n")
        return 0
    suite = load_suite(attacks=[attack], default=threat, norm=norm, eps=eps) if attack else None
    attacker = suite.members[0].attack if suite else None
    folder = output or default_folder("explain", model)
    about = {"model": model, "attack": attack, "seed": seed, "judged": 0 if judged is None else len(judged[0])}
    about["threat"] = f"{suite.threat.norm} eps {suite.eps_typed}" if suite else None
    found = explain_images(
        given,
        x,
        labels,
        places,
        chosen,
        layer=layer,
        attack=attacker,
        judged=judged,
        searched=searched,
        count=max(channels, 1),
        seed=seed,
        say=say,
    )
    numbers_found = told(found, names, about)
    try:
        with new_folder(folder) as place:
            for name, content in files_of(found, names, given.classes, about).items():
                place.write(name, content)
            place.write("explain.json", visible_json(msgspec.json.encode(numbers_found).decode()).encode())
    finally:
        give_back(folder)
    if json:
        print_json(numbers_found)
    lines = [*said(found), f"Page: {folder / 'explain.html'}"]
    print(*map(visible, lines), sep="\n", file=sys.stderr if json else sys.stdout)
    return 0


def _numbers(ids: str | None) -> list[int]:
    """Ids with commas."""
    words = [word.strip() for word in (ids or "").split(",") if word.strip()]
    if bad := next((word for word in words if not (word.isascii() and word.isdecimal())), None):
        raise UserError(f"--ids are numbers with commas, such as 3,17; got {bad!r}.")
    return list(dict.fromkeys(map(int, words)))


def _captions(data: Loaded) -> list[str]:
    """The id of each image, and its class."""
    labels = [data.classes[k] if data.classes else f"class {k}" for k in data.labels.tolist()]
    return [f"{id} ({label})" for id, label in zip(data.ids.tolist(), labels, strict=True)]


def _size(files: DataFlags, model: Classifier) -> tuple[int, int] | None:
    """Height and width of images of the user's own."""
    if files.pixels is not None:
        return files.pixels if isinstance(files.pixels, tuple) else (files.pixels, files.pixels)
    return model.shape[1:] if model.shape is not None else None
