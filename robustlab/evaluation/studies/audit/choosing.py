"""Which samples are audited, and all that the checks may look at, during a run or after it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.attacks.suite import Suite
from robustlab.base.draws import keys
from robustlab.base.memory import Batches
from robustlab.data import Data, Loaded
from robustlab.evaluation.studies.audit.rows import Ran
from robustlab.evaluation.studies.audit.subject import CleanPass, Subject
from robustlab.evaluation.targets import class_names, targets_of
from robustlab.runs.aggregates import Line

SAMPLES = 128  # for what looks at samples whatever the model answers


def subject_of(
    model: nn.Module,
    clean: Sequence[Line],
    data: Data,
    suite: Suite,
    ran: Ran,
    *,
    asked: int,
    seed: int,
    outputs: int,
    device: torch.device,
    batches: Batches,
    search: Callable[[Tensor], Tensor] | None,
    others: Sequence[tuple[str, nn.Module]],
    own_labels: bool,
    elsewhere: bool,
    evaluations: int,
) -> Subject:
    """The `asked` samples with the smallest keyed draws among those that the clean pass found right.

    clean: the lines of the clean pass, whose labels count. outputs: classes that the model knows; else as in `Subject`.
    """
    right = {line.id: line.label for line in clean if line.error is None and line.clean == line.label}
    chosen = _smallest(seed, torch.tensor(sorted(right), dtype=torch.int64), asked, "audit")
    x, ids = _loaded(data, chosen).images.to(device), chosen.to(device)
    y = torch.tensor([right[id] for id in chosen.tolist()], dtype=torch.int64, device=device)
    threat, names = suite.threat, class_names(data, outputs)
    targets = None
    if len(chosen):
        targets = batches.fit(lambda size: targets_of(model, threat, x, y, ids, names, seed=seed, batch_size=size))
    return Subject(
        model=model,
        search=search,
        suite=suite,
        x=x,
        y=y,
        ids=ids,
        targets=targets,
        classes=outputs,
        others=others,
        clean=CleanPass(
            n=len(clean),
            right=len(right),
            wrong=tuple(line.confidence or 0.0 for line in clean if line.id not in right and line.error is None),
        ),
        ran=ran,
        some=_loaded(data, _smallest(seed, data.ids, SAMPLES, "audit, any")),
        own_labels=own_labels,
        elsewhere=elsewhere,
        evaluations=evaluations,
        seed=seed,
        batches=batches,
    )


def rows_of(suite: Suite, sweep: Iterable[float], lines: Callable[[str, float], Sequence[Line]], *, full: bool) -> Ran:
    """What the run's own attacks did. sweep: the curve's budgets; lines: those of an attack at a budget."""
    eps, curve = suite.threat.eps, suite.curve_member.name
    below = {line.id for e in sweep if e < eps for line in lines(curve, e) if line.succeeded}
    return Ran(suite, {m.name: lines(m.name, eps) for m in suite.members}, below=frozenset(below), full=full)


def which(subject: Subject) -> dict[str, Any]:
    """How many samples were audited, and a hash of their ids."""
    return {"n": len(subject), "ids": hashlib.sha256(subject.ids.cpu().numpy().tobytes()).hexdigest()[:16]}


def _loaded(data: Data, ids: Tensor) -> Loaded:
    place = {id: i for i, id in enumerate(data.ids.tolist())}
    return data.take(torch.tensor([place[id] for id in ids.tolist()], dtype=torch.int64)).loaded()


def _smallest(seed: int, ids: Tensor, count: int, purpose: str) -> Tensor:
    """The `count` ids with the smallest keyed draws, in order."""
    return ids[keys(seed, ids, purpose).argsort()[:count]].sort().values
