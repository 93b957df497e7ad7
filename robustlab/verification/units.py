"""One unit again: the stored adversarials of one attack on one chunk, judged by the model that was attacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from robustlab.base.reading import check_safetensors
from robustlab.data import Loaded
from robustlab.evaluation.judging import judge, logits_of
from robustlab.evaluation.units import judged
from robustlab.runs.aggregates import Line
from robustlab.threat.model import ThreatModel

_TIE = 1e-4  # of 1 + the highest logit: closer than this, the two highest logits may change places by rounding


@dataclass(frozen=True)
class Again:
    """What comes out now: the lines; ids whose prediction is another one and might be so by rounding; two counts."""

    lines: list[Line]
    tied: set[int]
    unverified: int
    leaves_8bit: int


def read_adversarials(folder: Path, name: str, shape: tuple[int, ...]) -> tuple[dict[int, Tensor], str]:
    """The stored images in a run folder's adversarial/ by id, or none and what is wrong with the file."""
    path = folder / "adversarial" / name
    try:
        check_safetensors(f"adversarial/{name}", folder=folder)
        tensors = load_file(path)
        ids, images = tensors["ids"].tolist(), tensors["images"]
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except (SafetensorError, KeyError, OSError) as error:
        return {}, f"{path.name} is damaged ({error})"
    if tensors["ids"].shape != (len(images),) or tensors["ids"].dtype != torch.int64:
        return {}, f"{path.name} holds ids {tuple(tensors['ids'].shape)} for {tuple(images.shape)} images"
    if images.dtype != torch.float32 or images.shape != (len(ids), *shape) or len(set(ids)) != len(ids):
        return {}, f"{path.name} holds {images.dtype} {tuple(images.shape)} for {len(ids)} ids"
    return dict(zip(ids, images, strict=True)), ""


def judge_again(
    model: Callable[[Tensor], Tensor],
    lines: Mapping[int, Line],
    stored: Mapping[int, Tensor],
    chunk: Loaded,
    answers: Mapping[int, int | None],
    targets: Tensor | None,
    threat: ThreatModel,
    batch_size: int,
    device: torch.device,
    evaluations: int = 1,
) -> Again:
    """Judge the stored images of one unit, and write its lines anew.

    answers: the recomputed clean predictions, by id. targets: (n,) of the chunk's samples, in a targeted threat. A line
    keeps what only the search knows: rank, counts, and whether it claimed a success that was not verified.
    """
    where = torch.tensor([i for i, id in enumerate(chunk.ids.tolist()) if id in stored], dtype=torch.long)
    part = chunk.take(where)
    points = torch.stack([stored[id] for id in part.ids.tolist()]).to(device)
    aims = torch.full_like(part.labels, -1) if targets is None else targets.cpu()[where]
    x, y = part.images.to(device), part.labels.to(device)
    verdict = judge(model, points, x, y, aims.to(device), threat, batch_size, evaluations)
    counts = (verdict.success & verdict.inside).tolist()
    rounded, leaves = verdict.success_8bit.tolist(), verdict.leaves_8bit.tolist()
    fields, found = judged(verdict), []
    for i, (id, label) in enumerate(zip(part.ids.tolist(), part.labels.tolist(), strict=True)):
        line = lines[id]
        # of a randomised model the looks of the search may have said otherwise than those of the judge
        success = line.success if evaluations > 1 else counts[i] or line.success
        again = msgspec.structs.replace(
            line,
            label=label,
            clean=answers[id],
            success=success,
            verified=counts[i] if success else None,
            success_8bit=counts[i] and rounded[i] if success else None,
            target=line.target if targets is None else int(aims[i]),
            **fields[i],
        )
        found.append(again)
    changed = [i for i, line in enumerate(found) if line.adv != lines[line.id].adv]
    close = tied(logits_of(model, points[changed], batch_size)).tolist() if changed else []
    return Again(
        lines=found,
        tied={found[i].id for i, is_tied in zip(changed, close, strict=True) if is_tied},
        unverified=sum(line.success and not line.verified for line in found),
        leaves_8bit=sum(left and count for left, count in zip(leaves, counts, strict=True)),
    )


def tied(logits: Tensor) -> Tensor:
    """(n,) bool: another device, batch or version might round these (n, K) logits to another prediction."""
    highest, second = logits.topk(2, 1).values.unbind(1)
    return (highest - second) <= _TIE * (1 + highest.abs())
