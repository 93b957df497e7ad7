"""What a unit is made of: the draws of its models, its budgets, its lines. The run and `verify` both go by this."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from robustlab.evaluation.judging import Verdict, answers
from robustlab.oracle import forked
from robustlab.runs.aggregates import CLEAN, Line


def clean_draws(device: torch.device, seed: int, model: str, chunk: int) -> AbstractContextManager[None]:
    """What a model draws in its clean pass on a chunk."""
    return forked(device, seed, model, CLEAN, chunk)


def search_draws(
    device: torch.device, seed: int, model: str, attack: str, eps: float, chunk: int
) -> AbstractContextManager[None]:
    """What a model draws while it is attacked."""
    return forked(device, seed, model, attack, eps, chunk)


def judge_draws(
    device: torch.device, seed: int, model: str, attack: str, eps: float, chunk: int
) -> AbstractContextManager[None]:
    """What a model draws while finished points are judged: apart from the search, which `verify` does not repeat."""
    return forked(device, "judge", seed, model, attack, eps, chunk)


def sweep_of(curve: Sequence[float], eps: float, from_distances: bool) -> list[float]:
    """The budgets at which the curve's attack is run beside the suite.

    >>> sweep_of([0.1, 0.2, 0.4], 0.2, from_distances=False)
    [0.1, 0.4]
    """
    return [] if from_distances else [each for each in curve if each != eps]


def clean_lines(model: str, ids: Sequence[int], labels: Tensor, logits: Tensor) -> list[Line]:
    """The lines of a clean pass. logits: (evaluations, n, K)."""
    prediction, confidence = answers(logits, labels)
    columns = (ids, labels.tolist(), prediction.tolist(), confidence.tolist())
    return [
        Line(model, CLEAN, 0.0, id, label, clean=answer, adv=answer, confidence=sure, forwards=len(logits))
        for id, label, answer, sure in zip(*columns, strict=True)
    ]


def error_line(model: str, attack: str, eps: float, id: int, label: int, error: str) -> Line:
    """The line of an attacked sample that ended in an error: it was classified right before."""
    return Line(model, attack, eps, id, label, clean=label, error=error)


def judged(verdict: Verdict) -> list[dict[str, Any]]:
    """The fields of a line that the judge gives, for each point; what is no finite number is None."""
    sizes = {norm: _finite(size) for norm, size in verdict.sizes.items()}
    columns = {"adv": verdict.prediction.tolist(), "confidence": _finite(verdict.confidence), **sizes}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _finite(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
