"""A fit in a run folder: on a search copy, with checkpoints, and its losses."""

from __future__ import annotations

import torch

from robustlab.evaluation.listener import Listener
from robustlab.models.classifier import Classifier
from robustlab.models.search_copy import make_search_copy
from robustlab.physical.checkpoints import Checkpoints
from robustlab.physical.folder import StickerRun
from robustlab.physical.rp2 import RP2
from robustlab.physical.sticker import Sticker, seen
from robustlab.worlds.road_signs import CLASSES, draw, faces


def fit_in_run(
    run: StickerRun, attack: RP2, model: Classifier, size: int, seed: int, name: str, listener: Listener
) -> tuple[Sticker, list[float], dict[str, object]]:
    """The sticker, which is also stored under `name`, the loss of each step, and what run.json says of the search copy.

    A fit of this name that was stopped goes on from its last checkpoint.
    """
    kept, label = Checkpoints(run, name, listener), CLASSES.index(attack.source)
    listener.say(f"{model.name}: fitting a sticker on {attack.source} ({attack.all_steps} steps, seed {seed}).")
    first = draw(seed, "sticker, copy", torch.arange(attack.scenes), label)
    copy = make_search_copy(model, seen(faces()[label], first, size))
    sticker = attack.fit(copy.module or model, size, seed, kept.state, kept.watch)
    run.write_sticker(name, sticker)
    return sticker, kept.losses, copy.describe()
