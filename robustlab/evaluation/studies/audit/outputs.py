"""Checks on the outputs: are they logits, the same twice, right often enough, not too confident?"""

from __future__ import annotations

import torch

from robustlab.base.intervals import mcnemar, share, wilson
from robustlab.base.outputs import ROUNDED, UNROUNDED, Form, rounded, unlike_logits
from robustlab.base.words import counted, percent
from robustlab.evaluation.judging import logits_of
from robustlab.evaluation.studies.audit.check import Check
from robustlab.evaluation.studies.audit.finding import CARLINI, PINTOR, Finding, Status, judged, mostly, not_run
from robustlab.evaluation.studies.audit.subject import Subject
from robustlab.models.classifier import Classifier
from robustlab.models.repeats import repeats
from robustlab.oracle import ask

SURE = 0.999  # the confidence from which on a wrong answer is a very confident one
UNDERFLOW = 87.0  # exp(-x) of float32 leaves the normal numbers: every other class has probability 0


def outputs(subject: Subject) -> Finding:
    """Logits, or something bounded, or so large that float32 loses the cross-entropy."""
    z, n = subject.logits, len(subject)
    if text := unlike_logits(z):
        return Finding("fail", f"On {counted(n)}: {text}")
    form: Form = getattr(subject.model, "outputs", "logits")
    gone = 0 if form == "logits" else int(rounded(z, form).sum())
    if gone:
        return Finding(judged(gone, n), ROUNDED.format(k=gone, n=counted(n)), {"rounded": share(gone, n)}, UNROUNDED)
    top = z.double().topk(2, dim=1).values
    gap = top[:, 0] - top[:, 1]
    full = int((z.softmax(1).amax(1) == 1).sum())
    lost = int((gap > UNDERFLOW).sum())
    measured = (
        f"On {full} of {counted(n)} the probability rounds to exactly 1 in float32, on {lost} every other one to 0"
        f" (median difference of the two largest outputs: {gap.median():.3g})."
    )
    only_ce = subject.losses_used == ["ce"]
    if lost and not only_ce:
        measured += " The suite also has losses that do not depend on the scale of the outputs."
    status = judged(lost, n)
    if status == "fail" and not only_ce:
        status = "warn"
    if status == "pass" and mostly(full, n, 0.5):
        status = "warn"
    return Finding(status, measured, {"saturated": share(full, n), "underflowing": share(lost, n)})


def randomised(subject: Subject) -> Finding:
    """Does the same image get the same answer, again, and among other images?"""
    x, n = subject.x, len(subject)
    first = subject.logits
    again = subject.batches.fit(lambda size: logits_of(subject.model, x, size))
    other = subject.batches.fit(lambda size: logits_of(subject.model, x.flip(0), max(1, min(size, n) // 2))).flip(0)
    slack = 1e-4 * (1 + float(first.abs().max()))
    differences = [float((first - each).abs().max()) for each in (again, other)]
    flips = int(((first.argmax(1) != again.argmax(1)) | (first.argmax(1) != other.argmax(1))).sum())
    numbers = {"difference": differences[0], "difference_in_other_batches": differences[1], "flips": share(flips, n)}
    if subject.batches.fit(lambda size: _keeps_state(subject, size)):
        return Finding(
            "fail", f"The model keeps state: {counted(n)} get other answers after it has been asked.", numbers
        )
    if max(differences) <= slack:
        return Finding("pass", f"Three evaluations of {counted(n)}, in two orders, agree.", numbers)
    what = "Two evaluations differ" if differences[0] > slack else "Answers depend on the other images of the batch"
    measured = (
        f"{what}, by up to {max(differences):.3g} in an output; the answer changes on {flips} of {counted(n)} in three"
        " evaluations."
    )
    averaged = min(attack.eot for _, attack in subject.gradient_attacks)
    if subject.evaluations > 1 and averaged > 1:
        measured += (
            f" The attacks average over {averaged} evaluations or more, and {subject.evaluations} evaluations decide on"
            " each image."
        )
        return Finding("warn", measured, numbers)
    return Finding("fail", measured, numbers)


def _keeps_state(subject: Subject, size: int) -> bool:
    model, x = subject.model, subject.x[:size]
    return repeats(model, x, lambda images: ask(model, images)).state


def confidence(subject: Subject) -> Finding:
    """Wrong answers on clean images, and the least confident one to each broken image: how confident are they?"""
    clean, lowest = subject.clean.wrong, torch.full((len(subject),), torch.inf, device=subject.device)
    for each in subject.white:
        if each.verdict is not None:
            lowest = torch.where(each.success, torch.minimum(lowest, each.verdict.confidence), lowest)
    attacked = lowest[subject.success].tolist()
    k, n = sum(p >= SURE for p in (*clean, *attacked)), len(clean) + len(attacked)
    if not n:
        return not_run("There was no wrong answer, neither on the run's clean images nor under attack.")
    measured = (
        f"{k} of {counted(n, 'wrong answer')} ({len(clean)} on the run's clean images, {len(attacked)} under attack,"
        f" the least confident to each image) had a confidence of {SURE:.1%} or more."
    )
    return Finding("warn" if mostly(k, n) else "pass", measured, {"sure": share(k, n)})


def clean(subject: Subject) -> Finding:
    """Is the model better than chance without any attack?"""
    if subject.own_labels:
        return not_run("The model's own answers count as right, so they say nothing about it.")
    k, n, chance = subject.clean.right, subject.clean.n, 1 / subject.classes
    low, high = wilson(k, n)
    measured = f"{k} of {counted(n, 'clean image')} right ({percent(share(k, n))}); chance is {chance:.1%}."
    near = chance + 0.1 * (1 - chance)
    status: Status = "fail" if high <= near else "warn" if low <= near else "pass"
    return Finding(status, measured, {"accuracy": share(k, n), "chance": chance})


def normalisation(subject: Subject) -> Finding:
    """Is the model better without the mean and std that it was given?"""
    model = subject.model
    if not isinstance(model, Classifier) or not model.normalised:
        return not_run("The model was given no mean and std.")
    if subject.own_labels:
        return not_run("The model's own answers count as right, so they cannot tell which is better.")
    x, y = subject.some.images.to(subject.device), subject.some.labels.to(subject.device)
    right = [
        subject.batches.fit(lambda size, net=net: logits_of(net, x, size)).argmax(1) == y  # type: ignore[misc]
        for net in (model, model.module)
    ]
    only_with, only_without = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    n = len(y)
    with_, without = (share(int(each.sum()), n) for each in right)
    measured = f"Right on {percent(with_)} of {counted(n)} with it, on {percent(without)} without."
    status: Status = "pass"
    if only_without > only_with:
        status = "fail" if mcnemar(only_with, only_without) < 0.05 else "warn"
    return Finding(status, measured, {"with": with_, "without": without})


CHECKS = (
    Check(
        "outputs",
        "The outputs are logits, and float32 can hold their cross-entropy",
        "Attack the layer before the softmax or the scaling; add an attack on the margin or the DLR loss, which do not"
        " depend on scale.",
        f"{CARLINI}, section 4.7; Croce and Hein 2020, arXiv:2003.01690, section 4",
        outputs,
    ),
    Check(
        "randomised",
        "The same image gets the same answer",
        "If the randomness is meant, average gradients over it (--eot 20); if not, find the dropout or"
        " BatchNorm that eval mode does not reach.",
        f"{CARLINI}, section 4.6; {PINTOR}, unstable predictions",
        randomised,
    ),
    Check(
        "confidence",
        "Wrong answers are not given with full confidence",
        "Look at the scale of the outputs (a temperature, logits times a constant): the confidence says nothing, and"
        " cross-entropy gradients vanish. Calibrate, and attack the unscaled logits.",
        "Hein et al. 2019, arXiv:1812.05720; " + CARLINI + ", section 4.5",
        confidence,
    ),
    Check(
        "clean",
        "The model works without an attack",
        "Check mean, std, the order of the classes and of the colour channels: what is wrong on clean images cannot be"
        " robust.",
        f"{CARLINI}, section 4.2",
        clean,
    ),
    Check(
        "normalisation",
        "The normalisation that the model was given helps",
        "Leave out --mean and --std (or the card's): the module seems to normalise its images itself, and eps then"
        " means another budget.",
        f"{CARLINI}, section 4.2",
        normalisation,
    ),
)
