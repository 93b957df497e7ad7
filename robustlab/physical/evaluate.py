"""A sticker as a run: fit it on a model, judge it on that and on others, and write all of it into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustlab.base.environment import describe_device, resolve_device
from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.base.words import interval, percent
from robustlab.evaluation.inputs import classifiers_of
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.running import run_studies, section_of
from robustlab.physical.folder import StickerRun
from robustlab.physical.heat import Heat
from robustlab.physical.rp2 import RP2
from robustlab.physical.running import config_of
from robustlab.physical.seeds import Seeds
from robustlab.physical.studies import STUDIES, StickerJob, check_model
from robustlab.reporting.text import shown_names
from robustlab.runs import StoredRun
from robustlab.worlds.road_signs import CLASSES, VERSION

Json = dict[str, Any]


def evaluate_sticker(
    models: Any,
    attack: RP2 | None = None,
    *,
    n: int = 500,
    seed: int = 0,
    seeds: int = 1,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    listener: Listener | None = None,
) -> StoredRun:
    """Fit a sticker on the first model, and measure it on all: success with controls, by distance and angle, drive-by.

    models: as `robustlab.evaluate` takes them; networks that know the signs of the rendered world. n: scenes that the
    sticker is judged on. seeds: fits, with seed, seed + 1 and so on; the section `seeds` has each, their mean and
    spread, all others are about the first. It runs on the CPU, where the world is rendered. Raises
    UserError for bad input.

    >>> import tempfile
    >>> quiet = Listener(say=lambda text: None)
    >>> quick = RP2("stop", "yield", mask="bars", steps=1, scenes=2)
    >>> run = evaluate_sticker("road-signs/cnn", quick, n=5, output=tempfile.mkdtemp() + "/run", listener=quiet)
    >>> [section["name"] for section in run.info["sections"]]
    ['fit', 'success', 'grid', 'cells of the paper', 'drive-by', 'heat']
    """
    attack, listener = attack or RP2(), listener or Listener()
    check_whole("n", n, 1)
    check_whole("seed", seed, 0)
    check_whole("seeds", seeds, 1)
    device = resolve_device("cpu")
    networks = classifiers_of(models, device)
    for network in networks:
        check_model(network)
    sides = {network.shape for network in networks if network.shape}
    if len(sides) > 1 or any(shape[0] != 3 or shape[1] != shape[2] for shape in sides):
        raise UserError(f"The models expect images of {sorted(sides)}: give models of one size, in colour and square.")
    size = next(iter(sides))[1] if sides else 32
    config: Json = {
        **config_of(networks, "sticker", "rp2", attack, seed),
        "seeds": seeds,
        "size": size,
        "data": {"name": "road-signs", "split": "sticker, judge", "hash": f"version {VERSION}", "n": n},
    }
    about: Json = {
        "command": command,
        "suite": "sticker",
        "device": describe_device(device),
        "data": {**config["data"], "shape": [3, size, size], "classes": list(CLASSES)},
    }
    return run_studies(
        (*STUDIES, Heat, Seeds),
        StickerRun,
        lambda run, heard, finished: StickerJob(run, attack, networks, n, seed, size, heard, finished, seeds),
        config,
        about,
        output=output,
        name=f"sticker-{attack.source}",
        resume=resume,
        overwrite=overwrite,
        listener=listener,
    )


def in_words(run: StoredRun) -> list[str]:
    """What a run found, a sentence for each model."""
    attack = run.info["config"]["attacks"][0]["parameters"]
    aim = f"read as {attack['target']}" if attack["target"] else "read wrong"
    said, rows = [], section_of(run, "success")["rows"]
    names = shown_names([row["model"] for row in rows])
    for model in dict.fromkeys(row["model"] for row in rows):
        own = {row["sticker"]: row for row in rows if row["model"] == model}
        first = own["sticker"]
        others = ", ".join(f"{name} {percent(row['success'])}" for name, row in own.items() if name != "sticker")
        near = f"{percent(first['near_success'])} ({interval(first['near_success'])})"
        said.append(
            f"{names[model]}: {attack['source']} with the sticker is {aim} in {percent(first['success'])}"
            f" ({interval(first['success'])}) of the {first['success']['n']} scenes in which the bare sign is read"
            f" right; near, {near}. Controls: {others}."
        )
    return said
