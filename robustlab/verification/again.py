"""The models and the data of a run, loaded again as its run.json says, and compared with what it recorded of them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.outputs import Form
from robustlab.data import Data, load_data
from robustlab.defenses import make_defense
from robustlab.defenses.base import defended
from robustlab.models import load_model
from robustlab.models.classifier import Classifier
from robustlab.models.loading import CodeError
from robustlab.runs import StoredRun

T = TypeVar("T")
MOST_SIDE = 4096  # pixels of an image's side that a run may ask for


class _Model(msgspec.Struct):
    name: str
    weights: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    shape: tuple[int, int, int] | None = None
    defense: dict[str, Any] = {}


class _Data(msgspec.Struct):
    name: str
    split: str
    limit: int | None = None
    ids: list[int] = []
    classes: list[str] = []
    seed: int = 0
    size: int | tuple[int, int] | None = None
    channels: int | None = None
    skip_bad: bool = False
    divided: bool = False


def models_again(
    run: StoredRun,
    given: Mapping[str, str | Path | nn.Module],
    weights: Mapping[str, str | Path],
    device: torch.device,
    run_code: bool,
) -> list[Classifier]:
    """The run's models in its order. given: modules, or names to load in place of the recorded ones; weights: files.

    run_code: may code that run.json names be run?
    """
    names = [str(record["name"]) for record in run.info["models"]]
    for name in (*given, *weights):
        if name not in names:
            raise UserError(
                f"{run.folder} has no model {name!r}.{did_you_mean(name, names)} Its models: {', '.join(names)}."
            )
    found = []
    for name, record in zip(names, run.info["models"], strict=True):
        config = next(m for m in run.info["config"]["models"] if m["name"] == name)
        # what is said of a bare model goes for it behind a defense, too
        of = name if name in given or name in weights else config.get("bare") or name
        model = given.get(of)
        if not isinstance(model, nn.Module):
            source = record.get("source")
            if source and source.get("defense", {}) != config.get("defense", {}):
                raise UserError(f"{run.folder / 'run.json'} is damaged: it names two defenses of {name}.")
            model = _load_model(run, name, source, model, weights.get(of), run_code)
        elif of != name and not config.get("defense"):
            raise UserError(f"{run.folder} does not say what {name} stands behind: give it, too, by this name.")
        elif of != name:
            bare = copy.copy(model) if isinstance(model, Classifier) else Classifier(model)
            model = defended(bare, make_defense(config["defense"])).eval()
        if not isinstance(model, Classifier):
            model = Classifier(model)
        wanted, form = config["hash"], config.get("outputs", model.outputs)
        if form not in get_args(Form):
            raise UserError(f"{run.folder / 'run.json'} is damaged: it says that {name} returns {form!r}.")
        if form != model.outputs:
            model = copy.copy(model)  # a caller's own stays as it is
            model.outputs = form
        if model.hash() != wanted:
            raise UserError(
                f"{name} is not the model that was attacked: the hash of its weights is {model.hash()}, in"
                f" {run.folder} it is {wanted}. Give the one that was attacked: --model {name}=MODEL, or --weights"
                f" {name}=FILE."
            )
        found.append(model.to(device))
    return found


def _load_model(
    run: StoredRun, name: str, recorded: Any, given: str | Path | None, weights: str | Path | None, run_code: bool
) -> Classifier:
    if recorded is None and given is None:
        raise UserError(
            f"{run.folder} does not say how to load {name}: it was a module. Name a factory that returns it,"
            f" --model {name}=FILE.py:function, or verify in Python, with"
            f" robustlab.verify(RUN, models={{{name!r}: module}})."
        )
    source = _struct(run, recorded, _Model) if recorded else _Model(name="")
    if given is not None:
        source.name = str(given)
    if weights is not None:
        source.weights = str(weights)
    try:
        return load_model(**msgspec.structs.asdict(source), run_code=run_code or given is not None)
    except CodeError as error:
        raise UserError(
            f"{error} {run.folder} names it, and the run may come from somebody else: look at the file first. If you"
            f" trust it, add --run-code; for this model only: --model {name}={source.name}."
        ) from error
    except UserError as error:
        raise UserError(
            f"{name} cannot be loaded again: {error} Say where it is: --model {name}=MODEL, or --weights {name}=FILE."
        ) from error


def data_again(run: StoredRun, given: Data | str | None, data_root: str | Path | None) -> Data:
    """What the run chose its samples from. given: the data, or the name to load in place of the recorded one."""
    recorded = run.info["data"].get("source")
    if isinstance(given, Data):
        data = given
    elif recorded is None:
        raise UserError(
            f"{run.folder} does not say how to load its data: they came from Python. Verify there:"
            " robustlab.verify(RUN, data=(images, labels))."
        )
    else:
        source = _struct(run, recorded, _Data)
        _check_amount(run, source)
        if given is not None:
            source.name = given
        try:
            data = load_data(**msgspec.structs.asdict(source), data_root=data_root)
        except UserError as error:
            raise UserError(
                f"The data cannot be loaded again: {error} Say where they are: --data NAME or --data-root FOLDER."
            ) from error
    wanted = run.info["config"]["data"]["hash"]
    if data.hash != wanted:
        raise UserError(
            f"{data.name} ({data.split}) is not the data that was attacked: its hash is {data.hash}, in {run.folder} it"
            f" is {wanted}. Give the data that were attacked: --data NAME or --data-root FOLDER."
        )
    return data


def _check_amount(run: StoredRun, source: _Data) -> None:
    """UserError where run.json says to render or scale far more than was attacked: that would take memory and time."""
    high, wide = (source.size, source.size) if isinstance(source.size, int) else source.size or (1, 1)
    most = 20 * len(run.data_lines) + 1000  # an attack on one class leaves samples out
    rendered = source.name == "road-signs" and source.limit is not None
    if not (0 < high <= MOST_SIDE and 0 < wide <= MOST_SIDE) or (rendered and (source.limit or 0) > most):
        raise UserError(
            f"{run.folder / 'run.json'} is damaged: it says to load {source.limit} images of size {source.size}, and"
            f" {len(run.data_lines)} were attacked. Restore the file, or give the data: --data NAME."
        )


def positions(run: StoredRun, data: Data) -> Tensor:
    """Where the run's samples are in the data, in the run's order; their ids must be those that run.json hashed."""
    ids = torch.tensor([line["id"] for line in run.data_lines], dtype=torch.int64)
    if hashlib.sha256(ids.numpy().tobytes()).hexdigest()[:16] != run.info["config"]["data"]["ids"]:
        raise UserError(
            f"{run.folder / 'data.jsonl'} does not list the samples that were attacked: the hash of its ids is not that"
            " of run.json. Restore the file, or run again."
        )
    at = {id: position for position, id in enumerate(data.ids.tolist())}
    missing = [id for id in ids.tolist() if id not in at]
    if missing:
        raise UserError(f"{data.name} ({data.split}) has no sample with id {missing[0]}, which {run.folder} attacked.")
    return torch.tensor([at[id] for id in ids.tolist()], dtype=torch.int64)


def _struct(run: StoredRun, value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{run.folder / 'run.json'} is damaged: a source says {value} ({error}).") from error
