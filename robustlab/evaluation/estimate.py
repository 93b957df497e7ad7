"""How long a run takes: a guess from one step that is timed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from robustlab.attacks import FGSM
from robustlab.evaluation.cascade import Task
from robustlab.evaluation.judging import logits_of

FORWARD = 0.4  # of a gradient step: what a forward pass alone costs


@dataclass(frozen=True)
class Timing:
    """step: seconds of a gradient step on one image. left: the share of the images that one step of FGSM leaves."""

    step: float = 1e-3
    left: float = 1.0


def timed(task: Task) -> Timing:
    """What one step of FGSM on a batch says; the default where the model cannot be timed."""
    threat, size = task.suite.threat, task.batches.size
    once = FGSM(norm=threat.norm, eps=threat.eps) if threat.norm in FGSM.norms else FGSM()
    x = task.data.images[:size].to(task.device)
    try:
        search = task.search if task.surrogate is None else None
        y = logits_of(task.crafted_on, x, size).argmax(1)
        for part in (8, size):  # the first call only warms up
            start = time.perf_counter()
            success = once.run(task.crafted_on, x[:part], y[:part], search=search, batch_size=part).success
            _wait(task.device)
            seconds = time.perf_counter() - start
    except Exception:  # the run itself will meet it and say so, sample by sample
        return Timing()
    cascaded = task.surrogate is None and not threat.targeted
    return Timing(seconds / len(x), 1 - success.double().mean().item() if cascaded else 1.0)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
