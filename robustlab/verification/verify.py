"""`verify`: read a run, load its models and its data again, and recompute its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from robustlab.base.environment import resolve_device
from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.evaluation.inputs import as_data
from robustlab.runs import read_run
from robustlab.verification.again import data_again, models_again
from robustlab.verification.checks import Verification
from robustlab.verification.header import compare_header, compare_page
from robustlab.verification.recomputation import Recomputation

NEEDED = [
    *("models", "data.classes", "passes", "aggregates", "perturbation_scale"),
    *(
        f"config.{key}"
        for key in ("models", "attacks", "threat", "seed", "suite", "chunk_size", "precision", "save_adversarial")
    ),
    *(f"config.data.{key}" for key in ("name", "hash", "ids")),
]


def verify(
    run: str | Path,
    *,
    models: Mapping[str, str | Path | nn.Module] | None = None,
    weights: Mapping[str, str | Path] | None = None,
    data: Any = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    run_code: bool = False,
    audit: bool = False,
) -> Verification:
    """Recompute a run's numbers from its stored adversarials, and compare them with what its folder says.

    run: the folder of a finished run. Without stored adversarials (`save_adversarial`) only the clean pass, and what
    follows from the lines, is recomputed. models: by name, a module or what to load, where it is not to be loaded as
    recorded; weights (by name) and data likewise. run_code: run FILE.py and FILE.pt2 that run.json names, directly or
    through a card; whoever made the run chose these names. Without it they need `models`. audit: audit the
    attack again, which takes as long as it took; otherwise only by the checks that run no attack. Raises UserError
    where the folder cannot be read, or where model or data are not those that were attacked.

    >>> import tempfile, torch
    >>> from robustlab.evaluation.evaluate import evaluate
    >>> from robustlab.evaluation.listener import Listener
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> pair = torch.rand(8, 3, 2, 2), torch.zeros(8, dtype=torch.long)
    >>> folder, quiet = tempfile.mkdtemp() + "/run", Listener(say=lambda text: None)
    >>> run = evaluate({"net": net}, pair, "fgsm", output=folder, listener=quiet, save_adversarial=True)
    >>> verify(folder, models={"net": net}, data=pair).disagreements
    0
    """
    stored = read_run(run)
    if stored.info.get("kind") != "attack":
        raise UserError(f"{run} is no run of `robustlab attack` (its kind is {stored.info.get('kind')!r}).")
    lacking = [key for key in NEEDED if not _has(stored.info, key)]
    lacking += [] if stored.info.get("models") else ["models"]
    lacking += [
        f"config.models.{number}.hash" for number, m in enumerate(stored.info["config"]["models"]) if "hash" not in m
    ]
    lacking += [
        f"config.attacks.{number}.{key}"
        for number, attack in enumerate(stored.info["config"].get("attacks", []))
        for key in ("method", "parameters")
        if key not in attack
    ]
    if lacking:
        raise UserError(
            f"{Path(run) / 'run.json'} is damaged: it has no {', '.join(lacking)}. Restore it, or run again."
        )
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch-size must be at least 1, got {batch_size}.")
    where = resolve_device(device)
    classifiers = models_again(stored, models or {}, weights or {}, where, run_code)
    samples = data_again(
        stored, data if data is None or isinstance(data, Data | str) else as_data(data, None), data_root
    )
    found = Recomputation(stored, samples, where, batch_size, audit).run(classifiers)
    # where the data are elsewhere now, they may bear another name
    name = samples.name if data is None else stored.info["config"]["data"]["name"]
    found.checks.extend([compare_header(stored, samples, name, classifiers), *compare_page(stored)])
    return found


def _has(info: Any, key: str) -> bool:
    """Does run.json have this dotted key?"""
    first, _, rest = key.partition(".")
    return first in info and (not rest or _has(info[first], rest))
