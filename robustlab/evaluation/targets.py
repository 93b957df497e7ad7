"""The target class of each sample, in a targeted threat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.data import Data
from robustlab.data.selection import class_index
from robustlab.evaluation.judging import logits_of
from robustlab.threat.model import ThreatModel


def targets_of(
    model: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    names: Sequence[str],
    *,
    seed: int,
    batch_size: int,
) -> Tensor | None:
    """(n,) the target class of each sample, None in an untargeted threat. names: of the outputs."""
    if not threat.targeted:
        return None
    if threat.target == "least-likely":
        logits = logits_of(model, x, batch_size)
        return logits.scatter(1, y[:, None], torch.inf).argmin(1)  # where all logits tie, another class all the same
    if threat.target == "random":
        return random_targets(seed, ids, y, len(names))
    return torch.full_like(y, class_index(threat.target, names))


def class_names(data: Data, outputs: int) -> list[str]:
    """The data's class names, then numbers for outputs that it has no class for."""
    return [*data.classes[:outputs], *(str(i) for i in range(len(data.classes), outputs))]


def random_targets(seed: int, ids: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(n,) a class other than the label, uniform, keyed by seed and id."""
    shift = 1 + (uniform(keys(seed, ids, "target"), (1,))[:, 0] * (classes - 1)).long()
    return (labels + shift) % classes
