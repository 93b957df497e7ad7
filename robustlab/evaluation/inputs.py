"""What goes into a run: models and data of any accepted form, looked at before anything is attacked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.attacks.suite import Suite, load_suite
from robustlab.base.draws import pixel_ids
from robustlab.base.environment import resolve_device
from robustlab.base.errors import UserError, spelled
from robustlab.base.given import check_floats, check_module, check_range, pair_of
from robustlab.base.outputs import form_of
from robustlab.base.typed import check_whole
from robustlab.data import Data, load_data
from robustlab.data.selection import class_index
from robustlab.evaluation.judging import logits_of
from robustlab.evaluation.targets import class_names
from robustlab.models import load_model
from robustlab.models.classifier import Checked, Classifier, check
from robustlab.models.suitable import suitable
from robustlab.oracle import ask
from robustlab.threat.model import ThreatModel

CHECKED = 64  # samples of the first batch, on which models and search copies are checked


def as_data(data: Any, limit: int | None, models: Sequence[Classifier] = ()) -> Data:
    """Data of any form that `evaluate` takes. models: that will see them, which decide in what size."""
    check_whole("limit", limit, 1)
    if isinstance(data, str):
        return load_data(data, "test", limit, **suitable(data, models))
    if isinstance(data, Data):
        if not isinstance(data.images, Tensor):
            return data
        check_floats(data.images, f"the images of {data.name}")
        return replace(data, images=data.images.detach().float().contiguous())
    images, labels = pair_of(data)
    raw = hashlib.sha256(pixel_ids(images.float()).cpu().numpy().tobytes() + labels.cpu().numpy().tobytes())
    return Data(
        name="tensors",
        split="test",
        images=images.detach().float().cpu().contiguous(),
        labels=labels.cpu(),
        ids=torch.arange(len(images)),
        classes=tuple(str(k) for k in range(int(labels.max()) + 1 if len(labels) else 0)),
        hash=raw.hexdigest()[:16],
        threat=ThreatModel(),
    )


def as_suite(suite: Any, data: Data) -> Suite:
    """A suite; or of a card's name or path, or of a list of attacks, under the data's own threat where it says none."""
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, list | tuple) and suite:
        return load_suite(attacks=suite, default=data.threat)
    if not (suite is None or isinstance(suite, str | Path)):
        raise UserError(
            f"suite is a card's name or path, a list such as ['pgd:steps=50'], or a Suite; got"
            f" {type(suite).__name__}. With another threat:"
            " robustlab.attacks.suite.load_suite(attacks=['pgd:steps=50'], eps='8/255')."
        )
    return load_suite(None if suite is None else str(suite), default=data.threat)


def check_data(data: Data, labels: str) -> None:
    if not len(data):
        raise UserError("There is no sample to attack: the selection is empty.")
    if len(data.images) != len(data.labels) or len(data.ids) != len(data.labels):
        counts = f"{len(data.images)} images, {len(data.labels)} labels and {len(data.ids)} ids"
        raise UserError(f"{data.name} has {counts}; every sample needs one of each.")
    if len(data.ids.unique()) != len(data.ids):
        raise UserError(f"{data.name} has ids that occur twice; every sample needs an id of its own.")
    unlabelled = int((data.labels == -1).sum())
    if labels == "given" and unlabelled:
        raise UserError(
            f"{unlabelled} of the {len(data)} selected samples of {data.name} have no label. Give labels (a folder for"
            f" each class, or an array of labels), or attack the models' own answers: {spelled('labels', 'predicted')}."
        )
    if not isinstance(data.images, Tensor):
        return  # decoded from 8 bits
    check_range(data.images, f"the images of {data.name}")


def classifiers_of(models: Any, device: torch.device) -> list[Classifier]:
    """Models of any accepted form as classifiers with unique names, on the device."""
    if isinstance(models, Mapping):
        named: list[tuple[str | None, Any]] = list(models.items())
    else:
        named = [(None, m) for m in (models if isinstance(models, list | tuple) else [models])]
    if not named:
        raise UserError("No model to attack was given.")
    found: list[Classifier] = []
    for name, model in named:
        if isinstance(model, str):
            model = load_model(model)
        check_module(model)
        if not isinstance(model, nn.Module):
            raise UserError(f"A model must be a name or an nn.Module, got {type(model).__name__}.")
        if name is not None and not (isinstance(name, str) and name):
            raise UserError(f"The name of a model is a text, got {name!r}.")
        if not isinstance(model, Classifier):
            model = Classifier(model, name=name or type(model).__name__)
        elif name:
            model.name = name
        found.append(model.to(device))
    names = [model.name for model in found]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise UserError(
            f"Two models are named {twice!r}: give each once. (In Python, a dict gives them names of their own.)"
        )
    return found


def home_of(models: Any) -> torch.device:
    """Where the first module given lies; a caller's own module is not moved unless a device is asked for."""
    given = models.values() if isinstance(models, Mapping) else models if isinstance(models, list | tuple) else [models]
    for model in given:
        if isinstance(model, nn.Module) and (p := next(model.parameters(), None)) is not None and p.is_cuda:
            return p.device
    only_names = all(isinstance(model, str) for model in given)
    return resolve_device("auto") if only_names else torch.device("cpu")


def untrained(model: Classifier) -> bool:
    return (model.source or {}).get("weights") == "random"


def check_of(model: Classifier, data: Data, device: torch.device, probabilities: bool, batch_size: int) -> Checked:
    """The boundary check on the first batch; what cannot be attacked is a UserError.

    probabilities: that is what the model returns; from now on it returns their logits.
    """
    first = data.images[: min(CHECKED, batch_size)].to(device)
    try:
        if probabilities and model.outputs == "logits":
            with torch.no_grad():
                model.outputs = form_of(ask(model, first))
        return check(model, first, None)  # labels: see `matched`
    except UserError as error:
        raise UserError(f"{model.name}: {error}") from error


def unkeyed(suite: Suite) -> list[str]:
    """A warning where attacks of the suite do not draw their random numbers sample by sample."""
    names = [member.name for member in suite.members if not member.attack.keyed]
    if not names:
        return []
    return [
        f"Unkeyed: {', '.join(names)}. Such attacks do not draw their random numbers sample by sample, so what they"
        " find depends on the batch size and on the other images of the batch. `robustlab verify` judges their stored"
        " images; it cannot repeat their search."
    ]


def named_alike(model: Classifier, data: Data) -> list[str]:
    """A warning where model and data call the same classes by other names."""
    if model.classes is None or data.name == "tensors" or len(model.classes) != len(data.classes):
        return []
    differ = [f"{a!r}, {b!r}" for a, b in zip(model.classes, data.classes, strict=True) if a != b]
    return [f"{model.name} and {data.name} name their classes differently (first: {differ[0]})"] if differ else []


def numbers_only(model: Classifier, outputs: int, data: Data) -> list[str]:
    """A warning where the data's classes are mere numbers, fewer than the model has outputs. data: before matching."""
    count = len(data.classes)
    if data.name == "tensors" or data.classes != tuple(str(k) for k in range(count)) or not 0 < count < outputs:
        return []
    return [
        f"{data.name} numbers its classes 0 to {count - 1}, {model.name} has {outputs} outputs: label k is taken for"
        " output k. If that is wrong, name the classes as the model does."
    ]


def answer_names(models: Sequence[Classifier], data: Data, outputs: int) -> tuple[str, ...]:
    """The names of the classes that models answer with: their own where all agree, else numbers.

    The data's names count only where no model has any and there is one for each output.
    """
    named = {model.classes for model in models}
    if len(named) == 1 and (own := named.pop()) is not None:
        return own
    if named <= {None} and len(data.classes) == outputs:
        return data.classes
    return tuple(str(k) for k in range(outputs))


def predictions(model: nn.Module, data: Data, device: torch.device, batch_size: int) -> Tensor:
    """(n,) the classes that a model answers with on the clean images."""
    parts = [data.images[i : i + batch_size] for i in range(0, len(data), batch_size)]
    return torch.cat([logits_of(model, part.to(device), batch_size).argmax(1).cpu() for part in parts])


def without_target_class(data: Data, truths: Sequence[Tensor], threat: ThreatModel, outputs: int) -> tuple[Data, int]:
    """The data without the samples that any of `truths` puts into the target class, and how many those were."""
    if threat.target_class is None:
        return data, 0
    target = class_index(threat.target_class, class_names(data, outputs))
    other = torch.stack([labels != target for labels in truths]).all(0)
    if not bool(other.any()):
        raise UserError(f"Every selected sample is of the target class {threat.target!r}; nothing is left to attack.")
    return data.take(other), int((~other).sum())


def default_batch_size(values: int, device: torch.device) -> int:
    """Rows in the working batch for images of so many values: 128 (GPU: 512) up to 3x64x64, then fewer, at least 8.

    An attack keeps what a network computes on the way, for its gradient: some 100 MB an image of 3x224x224 in a
    ResNet-50.

    >>> default_batch_size(3 * 32 * 32, torch.device("cpu")), default_batch_size(3 * 224 * 224, torch.device("cpu"))
    (128, 10)
    """
    most = 128 if device.type == "cpu" else 512
    return max(8, min(most, most * 3 * 64 * 64 // max(1, values)))


def default_chunk_size(values: int) -> int:
    """Samples in a unit of work: 512, or what 100 MB hold of larger images, of which a unit keeps a few copies.

    >>> default_chunk_size(3 * 32 * 32), default_chunk_size(3 * 224 * 224)
    (512, 167)
    """
    return max(8, min(512, 512 * 3 * 128 * 128 // max(1, values)))
