"""The same PGD five ways: a bare loop, torchattacks, foolbox, ART and robustlab.

Each entry builds a function from (images, labels) to `Result`: which samples end up misclassified, judging included.
All take the same start (uniform in the ball), step size, number of steps and restarts, and the same batch size.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.models.search_copy import make_search_copy
from robustlab.oracle import undisturbed


@dataclass(frozen=True)
class Setting:
    """PGD in the linf ball. n: how many samples. eps, step_size: images in [0, 1]."""

    name: str
    steps: int
    restarts: int
    n: int
    eps: float = 8 / 255
    step_size: float = 2 / 255
    batch_size: int = 128


class Result(NamedTuple):
    """fooled: (n,) bool. row_steps: gradients of one sample that were computed, where the contender counts them."""

    fooled: Tensor
    row_steps: int | None = None


Contender = Callable[[Tensor, Tensor], Result]


def judge(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1) != y


def restarted(attack: Callable[[Tensor, Tensor], Tensor], model: nn.Module, setting: Setting) -> Contender:
    """Batches and restarts for an attack that knows neither: a sample is fooled if any restart's last point fools."""

    def run(images: Tensor, labels: Tensor) -> Result:
        fooled = []
        for x, y in zip(images.split(setting.batch_size), labels.split(setting.batch_size), strict=True):
            hits = [judge(model, attack(x, y), y) for _ in range(setting.restarts)]
            fooled.append(torch.stack(hits).any(0))
        return Result(torch.cat(fooled))

    return run


def bare_loop(model: nn.Module, setting: Setting) -> Contender:
    """What everybody writes: every sample takes every step, and only the last point is judged."""

    def attack(x: Tensor, y: Tensor) -> Tensor:
        adv = (x + torch.empty_like(x).uniform_(-setting.eps, setting.eps)).clamp(0, 1)
        for _ in range(setting.steps):
            adv.requires_grad_(True)
            with undisturbed(model):  # frozen parameters, as the driver has them
                loss = F.cross_entropy(model(adv), y, reduction="sum")
            (g,) = torch.autograd.grad(loss, adv)
            moved = adv.detach() + setting.step_size * g.sign()
            adv = (x + (moved - x).clamp(-setting.eps, setting.eps)).clamp(0, 1)
        return adv

    return restarted(attack, model, setting)


def torchattacks_pgd(model: nn.Module, setting: Setting) -> Contender:
    import torchattacks

    attack = torchattacks.PGD(model, eps=setting.eps, alpha=setting.step_size, steps=setting.steps, random_start=True)
    return restarted(attack, model, setting)


def foolbox_pgd(model: nn.Module, setting: Setting) -> Contender:
    import foolbox

    target = foolbox.PyTorchModel(model, bounds=(0, 1), device=next(model.parameters()).device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=setting.step_size, steps=setting.steps, random_start=True)
    repeated = attack.repeat(setting.restarts) if setting.restarts > 1 else attack

    def run(images: Tensor, labels: Tensor) -> Result:
        parts = zip(images.split(setting.batch_size), labels.split(setting.batch_size), strict=True)
        return Result(torch.cat([repeated(target, x, y, epsilons=setting.eps)[2] for x, y in parts]))

    return run


def art_pgd(model: nn.Module, setting: Setting) -> Contender:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    def run(images: Tensor, labels: Tensor) -> Result:
        classes = int(model(images[:1]).shape[1])
        target = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), images.shape[1:], classes, clip_values=(0, 1), device_type="cpu"
        )
        attack = ProjectedGradientDescentPyTorch(
            target,
            eps=setting.eps,
            eps_step=setting.step_size,
            max_iter=setting.steps,
            num_random_init=setting.restarts,
            batch_size=setting.batch_size,
            verbose=False,
        )
        found = torch.from_numpy(attack.generate(images.numpy(), labels.numpy().astype(np.int64)))
        fooled = [judge(model, x, y) for x, y in zip(found.split(128), labels.split(128), strict=True)]
        return Result(torch.cat(fooled))

    return run


def ours(
    model: nn.Module, setting: Setting, images: Tensor, *, retire: bool, search: str | None = None
) -> Contender | str:
    """robustlab's PGD. search: the precision of the search copy, "auto" as in the library, None for the module alone.

    Returns the reason where there is no such copy.
    """
    copy = "auto" if search == "auto" else None
    if search not in (None, "auto"):
        made = make_search_copy(model, images[:64], precision=search)
        if made.module is None:
            return made.reason
        copy = made.module
    attack = PGD(
        eps=setting.eps,
        steps=setting.steps,
        step_size=setting.step_size,
        restarts=setting.restarts,
        stop_at_success=retire,
    )

    def run(images: Tensor, labels: Tensor) -> Result:
        ids = torch.arange(len(images))
        seed = torch.initial_seed()  # another one each repeat, as for the peers
        outcome = attack.run(model, images, labels, ids=ids, seed=seed, batch_size=setting.batch_size, search=copy)
        return Result(outcome.success, int(outcome.backwards.sum()))

    return run


BARE, FULL, RETIRING = "bare loop", "robustlab, full length", "robustlab, retirement"
COPY, COPY_BF16 = "robustlab, full length, search copy", "robustlab, full length, bfloat16 search copy"
AUTO = 'robustlab, full length, search="auto"'  # with the making of the copy
PEERS: dict[str, Callable[[nn.Module, Setting], Contender]] = {
    "torchattacks": torchattacks_pgd,
    "foolbox": foolbox_pgd,
    "art": art_pgd,
}


def contenders(model: nn.Module, setting: Setting, images: Tensor) -> tuple[dict[str, Contender], dict[str, str]]:
    """All that can run here, and what cannot and why."""
    able: dict[str, Contender] = {BARE: bare_loop(model, setting)}
    unable = {}
    for name, make in PEERS.items():
        if importlib.util.find_spec(name) is None:
            unable[name] = "not installed"
        else:
            able[name] = make(model, setting)
    for name, retire, search in (
        (FULL, False, None),
        (COPY, False, "float32"),
        (AUTO, False, "auto"),
        *([(COPY_BF16, False, "bfloat16")] if bfloat16_is_native() else []),
        (RETIRING, True, None),
        (RETIRING + ", search copy", True, "float32"),
    ):
        made = ours(model, setting, images, retire=retire, search=search)
        if isinstance(made, str):
            unable[name] = made
        else:
            able[name] = made
    if not bfloat16_is_native():
        unable[COPY_BF16] = "this CPU does not compute in bfloat16"
    return able, unable


def bfloat16_is_native() -> bool:
    """Whether the CPU computes in bfloat16, rather than converting to and fro. Known on Linux only."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
