"""A patch as a run: fit it on training images, judge it on test images, and write all of it into a run folder."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustlab.base.environment import describe_device, resolve_device
from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.data import Data, Loaded
from robustlab.evaluation.inputs import classifiers_of
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.running import run_studies
from robustlab.physical.folder import StickerRun
from robustlab.physical.patch import PatchAttack
from robustlab.physical.patch_heat import Heat
from robustlab.physical.patch_studies import PATCH, STUDIES, PatchJob
from robustlab.physical.running import config_of
from robustlab.runs import StoredRun

Json = dict[str, Any]
FITTED = 4000  # images of a fit, at most


def evaluate_patch(
    models: Any,
    fitted: Data,
    judged: Data,
    attack: PatchAttack,
    *,
    seed: int = 0,
    device: str = "auto",
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    listener: Listener | None = None,
) -> StoredRun:
    """Fit a patch on the first model, and measure it on all: success with controls, by size, by place, and heat.

    models: as `robustlab.evaluate` takes them. fitted, judged: two splits of one data set; of the first at most 4,000
    images are used, at even distances. Raises UserError for bad input.

    >>> import tempfile
    >>> from robustlab import load_data
    >>> train, test = load_data("road-signs", "train", limit=8), load_data("road-signs", "test", limit=5)
    >>> quick, quiet = PatchAttack(target="yield", steps=1), Listener(say=lambda text: None)
    >>> run = evaluate_patch("road-signs/cnn", train, test, quick, output=tempfile.mkdtemp() + "/run", listener=quiet)
    >>> [section["name"] for section in run.info["sections"]]
    ['fit', 'success', 'by size', 'by place', 'heat']
    """
    check_whole("seed", seed, 0)
    where = resolve_device(device)
    networks = classifiers_of(models, where)
    if (fitted.name, fitted.split) == (judged.name, judged.split):
        raise UserError(f"The patch would be judged on the images of its fit, {judged.split}: give two splits.")
    attack.number(judged.classes)
    shape = list(judged.images.shape[1:])
    attack.check_fits(*shape[1:])
    first, second = _evenly(fitted, FITTED).loaded(), judged.loaded()
    config: Json = {
        **config_of(networks, PATCH, PATCH, attack, seed),
        "data": {
            "name": judged.name,
            "split": judged.split,
            "hash": judged.hash,
            "n": len(second),
            "chosen": _chosen(first, second),
            "fitted": f"{len(first)} images of {fitted.split}, {fitted.hash}",
        },
    }
    about: Json = {
        "command": command,
        "suite": PATCH,
        "device": describe_device(where),
        "warnings": [*judged.notes],
        "data": {**config["data"], "shape": shape, "classes": list(judged.classes)},
    }
    return run_studies(
        (*STUDIES, Heat),
        StickerRun,
        lambda run, heard, finished: PatchJob(
            run, attack, networks, _on(first, where), _on(second, where), seed, heard, finished
        ),
        config,
        about,
        output=output,
        name=f"patch-{judged.name}",
        resume=resume,
        overwrite=overwrite,
        listener=listener or Listener(),
    )


def _evenly(data: Data, most: int) -> Data:
    """At most so many samples from the whole split, which may lie sorted by class."""
    return data.take(torch.arange(0, len(data), max(1, math.ceil(len(data) / most))))


def _chosen(*selections: Data) -> str:
    """A hash of the ids of what was chosen."""
    return hashlib.sha256(torch.cat([data.ids.cpu() for data in selections]).numpy().tobytes()).hexdigest()[:16]


def _on(data: Loaded, device: torch.device) -> Loaded:
    return replace(data, images=data.images.to(device))
