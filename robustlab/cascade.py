"""The work of a run, unit by unit: the clean pass, the suite as a cascade, and the sweep for the security curve."""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from robustlab.attacks.base import INVALID, Outcome, RowAttack
from robustlab.attacks.suite import Member, Suite
from robustlab.data import Data
from robustlab.data.selection import class_index
from robustlab.draws import keys, uniform
from robustlab.errors import RunError, UserError
from robustlab.judging import Verdict, judge, logits_of
from robustlab.runs import Run
from robustlab.runs.kept import image_name, keep_candidates
from robustlab.threat import ThreatModel

CLEAN = "clean"
# errors of the machine, not of the model: they say nothing about the samples
_RESOURCES = re.compile("CUDA error|CUBLAS|CUDNN|out of memory|can't allocate memory", re.IGNORECASE)


@dataclass(frozen=True)
class Task:
    """What is the same for all units of one model."""

    run: Run
    name: str
    model: nn.Module
    search: Callable[[Tensor], Tensor] | None
    outputs: int  # classes that the model knows
    data: Data
    suite: Suite
    curve: tuple[float, ...]
    seed: int
    batch_size: int
    chunk_size: int
    full: bool
    keep: int
    save_adversarial: bool
    device: torch.device
    told: Callable[[str], None]

    def chunks(self) -> list[tuple[int, Tensor]]:
        """(number, positions) of the chunks: `chunk_size` consecutive samples, whatever the batch size."""
        return list(enumerate(torch.arange(len(self.data)).split(self.chunk_size)))

    def unit_count(self) -> int:
        """Units of one chunk."""
        return 1 + len(self.suite.members) + sum(eps != self.suite.threat.eps for eps in self.curve)


def evaluate_chunk(task: Task, number: int, where: Tensor) -> Iterator[str]:
    """Do the units of one chunk that are not done yet, in order; yields the name of each when it is finished."""
    run, suite, eps = task.run, task.suite, task.suite.threat.eps
    chunk = task.data.take(where)
    if not run.has_unit(task.name, CLEAN, 0.0, number):
        _clean_unit(task, number, chunk)
    yield CLEAN
    lines = run.unit_lines(task.name, CLEAN, 0.0, number)
    right = {line.id for line in lines if line.error is None and line.clean == line.label}

    standing, on_curve = set(right), set(right)
    before_curve_ends = True
    for member in suite.members:
        fallen = _attack_unit(task, member, eps, number, chunk, right if task.full else standing)
        standing -= fallen
        if before_curve_ends:
            on_curve -= fallen
        before_curve_ends &= member is not suite.curve_member
        yield member.name

    # the sweep: what falls at one eps counts as fallen at every larger one, and at eps what the suite broke so far
    standing = set(right)
    for e in task.curve:
        if e == eps:
            standing &= on_curve
            continue
        standing -= _attack_unit(task, suite.curve_member, e, number, chunk, standing)
        yield f"{suite.curve_member.name} at {e:.4g}"


def _attack_unit(task: Task, member: Member, eps: float, number: int, chunk: Data, ids: set[int]) -> set[int]:
    """Do one unit if it is not done; returns the ids that no longer stand: broken, or failed with an error."""
    name = (task.name, member.name, eps, number)
    done = task.run.unit_lines(*name) if task.run.has_unit(*name) else None
    if done is None or any(line.error for line in done):  # what ended in an error is tried again
        index = torch.tensor([i for i, id in enumerate(chunk.ids.tolist()) if id in ids], dtype=torch.long)
        attempted = chunk.take(index)
        start = time.perf_counter()
        try:
            lines, info = _attack(task, member, eps, number, attempted)
        except (RunError, RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, UserError | torch.OutOfMemoryError) or _RESOURCES.search(str(error)):
                raise
            text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            task.told(f"{task.name}, {member.name}, chunk {number}: {text}")
            lines = [{**_line(task, member.name, eps, id, label), "error": text} for id, label in _pairs(attempted)]
            info = {"errors": len(lines)}
        info["seconds"] = time.perf_counter() - start
        task.run.write_unit(*name, lines, info)
        done = task.run.unit_lines(*name)
    return {line.id for line in done if line.broken or line.error is not None}


def _clean_unit(task: Task, number: int, chunk: Data) -> None:
    start = time.perf_counter()
    logits = logits_of(task.model, chunk.images.to(task.device), task.batch_size).cpu()
    if not bool(torch.isfinite(logits).all()):
        raise RunError(f"{task.name} returns NaN or infinite values on clean images; nothing can be measured on it.")
    confidence, prediction = logits.softmax(1).amax(1), logits.argmax(1)
    lines = [
        {**_line(task, CLEAN, 0.0, id, label), "clean": c, "adv": c, "confidence": p, "forwards": 1}
        for (id, label), c, p in zip(_pairs(chunk), prediction.tolist(), confidence.tolist(), strict=True)
    ]
    task.run.write_unit(task.name, CLEAN, 0.0, number, lines, {"seconds": time.perf_counter() - start})


def _attack(
    task: Task, member: Member, eps: float, number: int, chunk: Data
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One attack on the attempted samples of a chunk: its lines, and the numbers of the unit."""
    if not len(chunk):
        return [], {}
    threat = replace(task.suite.threat, eps=eps)
    x, y, ids = (each.to(task.device) for each in (chunk.images, chunk.labels, chunk.ids))
    targets = _targets(task, threat, x, y, ids)
    outcome = _run_attack(task, task.suite.at(member, eps), x, y, targets, ids)
    verdict = judge(task.model, outcome.images, x, y, outcome.target, threat, task.batch_size)
    verified = outcome.success & verdict.fooled & verdict.inside & ~outcome.invalid
    lines = _lines(task, member.name, eps, chunk, outcome, verdict, verified)
    if eps == task.suite.threat.eps:
        _keep_images(task, member.name, chunk, outcome.images.cpu(), verified.tolist(), threat)
        if task.save_adversarial:
            tensors = {"ids": chunk.ids.contiguous(), "images": outcome.images.cpu().contiguous()}
            task.run.write_adversarial(task.name, member.name, eps, number, save_safetensors(tensors))
    unverified = int((outcome.success & ~verified).sum())
    left = int((verdict.leaves_8bit & verified).sum())
    info = {"refused": outcome.refused, "unverified": unverified, "leaves_8bit": left}
    errors = int(outcome.invalid.sum())
    return lines, info | ({"errors": errors} if errors else {})


def _run_attack(task: Task, attack: RowAttack, x: Tensor, y: Tensor, targets: Tensor | None, ids: Tensor) -> Outcome:
    """The attack, with the batch halved as often as memory runs out."""
    batch_size = task.batch_size
    while True:
        try:
            return attack.run(
                task.model, x, y, targets=targets, ids=ids, seed=task.seed, batch_size=batch_size, search=task.search
            )
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise RunError(
                    "Memory runs out with a batch of one image. Use smaller images or another device."
                ) from None
            batch_size //= 2
            torch.cuda.empty_cache()
            task.told(f"Out of memory: going on with batches of {batch_size}.")


def _targets(task: Task, threat: ThreatModel, x: Tensor, y: Tensor, ids: Tensor) -> Tensor | None:
    if not threat.targeted:
        return None
    if threat.target == "least-likely":
        return logits_of(task.model, x, task.batch_size).argmin(1)
    if threat.target == "random":
        return random_targets(task.seed, ids, y, task.outputs)
    return torch.full_like(y, class_index(threat.target, class_names(task.data, task.outputs)))


def class_names(data: Data, outputs: int) -> list[str]:
    """The data's class names, then numbers for outputs that it has no class for."""
    return [*data.classes[:outputs], *(str(i) for i in range(len(data.classes), outputs))]


def random_targets(seed: int, ids: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(n,) a class other than the label, uniform, keyed by seed and id."""
    shift = 1 + (uniform(keys(seed, ids, "target"), (1,))[:, 0] * (classes - 1)).long()
    return (labels + shift) % classes


def _pairs(chunk: Data) -> list[tuple[int, int]]:
    return list(zip(chunk.ids.tolist(), chunk.labels.tolist(), strict=True))


def _line(task: Task, attack: str, eps: float, id: int, label: int) -> dict[str, Any]:
    """The fields that name a line; an attack only ever sees samples that were classified right."""
    return {"model": task.name, "attack": attack, "eps": eps, "id": id, "label": label, "clean": label}


def _lines(
    task: Task, name: str, eps: float, chunk: Data, outcome: Outcome, verdict: Verdict, verified: Tensor
) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {
        "adv": verdict.prediction.tolist(),
        "confidence": verdict.confidence.tolist(),
        "success": outcome.success.tolist(),
        "verified": verified.tolist(),
        "success_8bit": (verified & verdict.fooled_8bit).tolist(),
        "rank": outcome.rank.tolist(),
        "target": outcome.target.tolist(),
        "forwards": outcome.forwards.tolist(),
        "backwards": outcome.backwards.tolist(),
        **{norm: size.tolist() for norm, size in verdict.sizes.items()},
    }
    lines, invalid = [], outcome.invalid.tolist()
    for i, (id, label) in enumerate(_pairs(chunk)):
        line = _line(task, name, eps, id, label) | {key: values[i] for key, values in columns.items()}
        if invalid[i]:
            line = _line(task, name, eps, id, label) | {"error": INVALID}
        elif not line["success"]:
            line["verified"] = line["success_8bit"] = None
        lines.append(line)
    return lines


def perturbation_scale(threat: ThreatModel, values: int) -> float:
    """The change of a value that a picture of the perturbation shows as full colour; one for the whole run.

    linf: eps. l2: eight times the change of a value if all changed alike. l1: half the range, since few values change.
    """
    if threat.norm == "linf":
        return max(threat.eps, 1 / 255)
    return min(1.0, 8 * threat.eps / math.sqrt(values)) if threat.norm == "l2" and threat.eps > 0 else 0.5


def _keep_images(
    task: Task, attack: str, chunk: Data, adversarial: Tensor, broken: list[bool], threat: ThreatModel
) -> None:
    ids, labels = chunk.ids.tolist(), chunk.labels.tolist()
    scale = perturbation_scale(threat, chunk.images[0].numel())
    for id in keep_candidates(task.seed, task.keep, ids, labels, broken):
        i = ids.index(id)
        clean, adv = chunk.images[i], adversarial[i]
        task.run.write_image(image_name("clean", id), png(clean))
        task.run.write_image(image_name("adv", id, task.name, attack), png(adv))
        task.run.write_image(image_name("delta", id, task.name, attack), png(0.5 + (adv - clean) / (2 * scale)))


def png(image: Tensor) -> bytes:
    """An image (C, H, W) in [0, 1] with 1 or 3 channels as the bytes of a PNG; other channel counts show the first."""
    from PIL import Image

    array = (image if len(image) == 3 else image[0]).clamp(0, 1).mul(255).round().byte().cpu()
    picture = Image.fromarray((array.permute(1, 2, 0) if array.ndim == 3 else array).contiguous().numpy())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
