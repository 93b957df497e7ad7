"""Checks on the search: is there a gradient, and did the attack take enough steps along it?"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robustlab.attacks.apgd import APGD, schedule
from robustlab.attacks.losses import LOSSES
from robustlab.attacks.row_attack import RowAttack
from robustlab.base.intervals import share
from robustlab.base.module_state import kept_state
from robustlab.base.words import counted
from robustlab.evaluation.studies.audit.check import Check
from robustlab.evaluation.studies.audit.finding import CARLINI, PINTOR, Finding, judged, mostly, not_run, worst
from robustlab.evaluation.studies.audit.noise import noise
from robustlab.evaluation.studies.audit.subject import Subject
from robustlab.oracle import ask

TINY = 1e-12  # of the largest value of a gradient by an image in [0, 1]
LATE = 0.1  # the last share of the steps, in which
STEEP = 0.05  # no more than this share of the whole rise of the loss should happen


def gradient(subject: Subject) -> Finding:
    """Gradients of the suite's losses at the clean image and at a corner of the ball around it.

    They are those that attacks follow: of the search copy, where there is one.
    """
    n = len(subject)
    losses, points = subject.losses_used, (subject.x, noise(subject, 0))
    zero, tiny, undefined = [], [], []
    for loss in losses:
        sizes = [_size(subject, at, loss) for at in points]
        if any(size is None for size in sizes):
            return Finding("fail", "The outputs carry no gradient back to the image: the graph is cut.")
        found = torch.stack([size for size in sizes if size is not None])
        undefined.append(found.isnan().any(0))
        least = found.amin(0)
        zero.append(least == 0)
        tiny.append(least < TINY)
    dead = int(torch.stack(zero).all(0).sum())  # for every loss
    by_loss = {loss: int(each.sum()) for loss, each in zip(losses, zero, strict=True)}
    faint = int(torch.stack(tiny).all(0).sum())
    lost = int(torch.stack(undefined).any(0).sum())  # one step along NaN ends an attack, whatever the other losses do
    each = ", ".join(f"{k} with {loss}" for loss, k in by_loss.items())
    measured = (
        "The gradient is exactly zero, at the clean image or, where that is no success yet, at a random point at the"
        f" edge of the budget, on {each}, of {counted(n)}; on {faint} it is under {TINY:g} with every loss, on {lost}"
        " it is NaN or infinite."
    )
    some = max(by_loss.values())
    status = worst(
        judged(dead, n), judged(lost, n), "warn" if judged(some, n) == "fail" or mostly(faint, n, 0.1) else "pass"
    )
    numbers = {"zero": share(dead, n), "tiny": share(faint, n), "not_finite": share(lost, n), "zero_by_loss": by_loss}
    return Finding(status, measured, numbers)


def _size(subject: Subject, images: Tensor, loss: str) -> Tensor | None:
    """(n,) the largest absolute value of each image's gradient; None where the outputs do not depend on the images.

    inf for images that are a success already, from which no attack goes on (there, DLR may be constant). NaN where not
    finite.
    """

    def sizes(batch: int) -> Tensor | None:
        found = []
        for i in range(0, len(images), batch):
            with torch.enable_grad(), kept_state(subject.search or subject.model):
                leaf = images[i : i + batch].detach().requires_grad_(True)
                logits = ask(subject.search or subject.model, leaf).float()
                targets = None if subject.targets is None else subject.targets[i : i + batch]
                total = LOSSES[loss](logits, subject.y[i : i + batch], targets).sum()
                if not total.requires_grad:
                    return None
                (slope,) = torch.autograd.grad(total, leaf, allow_unused=True)
            if slope is None:
                return None
            size = slope.flatten(1).abs().amax(1)
            predicted, y = logits.argmax(1), subject.y[i : i + batch]
            success = predicted != y if targets is None else predicted == targets
            found.append(torch.where(size.isfinite(), torch.where(success, torch.inf, size), torch.nan))
        return torch.cat(found)

    return subject.batches.fit(sizes)


def converged(subject: Subject) -> Finding:
    """Would the attack get further with more steps?"""
    attack = subject.leading_attack
    left = subject.left
    if any(each.error for each in subject.white if each.name == subject.leading.name):
        return not_run("The attack ended in an error.")
    if not len(left):
        return Finding("pass", f"Nothing withstood {subject.white_name} for more steps to find.")
    more = int(subject.found(replace(attack, steps=2 * attack.steps)).sum())
    status = judged(more, len(subject))
    measured = f"Twice as many steps of {subject.leading.name} break {more} more of {counted(len(subject))}."
    numbers = {"broken_by_twice_the_steps": share(more, len(subject))}
    losses = subject.losses[left]
    wide = _in_wider_balls(attack, losses.device)
    losses = losses[:, wide : int((losses > -torch.inf).any(0).sum())]
    if losses.shape[1] > 1:
        best = losses.cummax(1).values
        steps, what = attack.steps - wide, " in the ball of 1 eps" if wide else ""
        last = max(1, round(LATE * steps))
        rise = best[:, -1] - best[:, 0]
        rising = int((best[:, -1] - best[:, max(best.shape[1] - 1 - last, 0)] > STEEP * rise).sum())
        measured = (
            f"On {rising} of the {counted(len(left))} that withstood, the loss of {subject.leading.name} rose by more"
            f" than {STEEP:.0%} of its whole rise in the last {last} of its {steps} steps{what}. {measured}"
        )
        status = worst(status, "warn" if mostly(rising, len(left)) else "pass")
        numbers["still_rising"] = share(rising, len(left))
    return Finding(status, measured, numbers)


def _in_wider_balls(attack: RowAttack, device: torch.device) -> int:
    """The steps that an attack begins with in balls of more than eps, as APGD in l1: their losses are out of reach."""
    return int((schedule(attack.steps, attack.norm, device).radius != 1).sum()) if isinstance(attack, APGD) else 0


CHECKS = (
    Check(
        "gradient",
        "There is a gradient to follow",
        "Look for rounding, thresholds, argmax, detach() or no_grad() in the model; replace them on the way back by a"
        " smooth function (BPDA), or rely on attacks that need no gradient, such as square. Where it is NaN or"
        " infinite, look for a root, a logarithm or a quotient at 0.",
        f"{CARLINI}, section 4.7; {PINTOR}, unavailable gradients",
        gradient,
    ),
    Check(
        "converged",
        "The loss has stopped rising at the last step",
        "Give the attacks more steps and restarts, or use APGD, which sets its own step size; keep an attack on the"
        " distance, such as fab-t, where it found more.",
        f"{CARLINI}, section 4.8; {PINTOR}, incomplete optimization",
        converged,
    ),
)
