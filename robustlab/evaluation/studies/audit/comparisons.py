"""Checks that compare attacks: a weaker attack must not succeed where the suite failed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.attacks.apgd import APGD
from robustlab.attacks.base import Attack
from robustlab.attacks.fgsm import FGSM
from robustlab.attacks.mi_fgsm import MIFGSM
from robustlab.attacks.pgd import PGD
from robustlab.attacks.short_tries import ShortTries
from robustlab.attacks.square import Square
from robustlab.attacks.suite import Member
from robustlab.base.draws import keys, normal
from robustlab.base.intervals import mcnemar, share, wilson
from robustlab.base.words import counted, listed
from robustlab.evaluation.studies.audit.check import Check
from robustlab.evaluation.studies.audit.finding import CARLINI, PINTOR, Finding, Status, judged, not_run, worst
from robustlab.evaluation.studies.audit.noise import noise
from robustlab.evaluation.studies.audit.subject import Attacked, Subject
from robustlab.oracle import ask
from robustlab.threat.geometry import diameter

QUERIES = 200  # of Square
RESTARTS = 2
DRAWS = 20  # random points
COPIES = 4  # noisy copies in the smoothed surrogate
TRANSFER_STEPS = 10
COVERED = (
    "The gradients mislead here; the suite's own score-based attack covers it as far as it goes. Report the number of"
    " the whole suite, not that of the gradient attacks alone, and adapt the attack to the defense: more queries, or"
    " gradients that do not mislead, will find more."
)


def black_box(subject: Subject) -> Finding:
    """Does an attack without gradients break what those with gradients did not?"""
    found = subject.found(subject.plain(Square, steps=QUERIES, rescale=True))
    finding = _more(subject, found, f"Square with {QUERIES} queries")
    if not found.any() and any(rival.many for rival in subject.ran.score_based()):
        return replace(finding, advice=COVERED)
    return _covered(subject, finding, found)


def _covered(subject: Subject, finding: Finding, found: Tensor) -> Finding:
    """What Square found, if the suite's own score-based attacks do not find it, too."""
    rivals = [member for member in subject.suite.members if member.attack.needs == "scores"]
    if not rivals or not found.any():
        return finding
    where, covered = found.nonzero()[:, 0], torch.zeros_like(found)
    for member in rivals:
        attack = member.attack
        if isinstance(attack, Square) and any(line.succeeded for line in subject.ran.lines[member.name]):
            attack = replace(attack, probe=0)  # in the run it went on in full
        covered[where] |= subject.run(attack, where).success
    rest = int((found & ~covered).sum())
    names = listed([member.name for member in rivals])
    return replace(
        finding,
        status=worst("warn", judged(rest, len(subject))),
        measured=f"{finding.measured} {names}, of the suite itself, broke {int(covered.sum())} of these.",
        advice="" if rest else COVERED,
    )


def one_step(subject: Subject) -> Finding:
    """Does a single step break what many steps did not?"""
    many = [each for each in subject.white if each.attack.steps > 1]
    if not many:
        return not_run("The suite has no gradient attack of several steps.")
    step = subject.run(subject.plain(FGSM)).success
    by_many = torch.stack([each.success for each in many]).any(0)
    only_step, n = int((step & ~by_many).sum()), len(subject)
    measured = (
        f"One step broke {int(step.sum())} of {counted(n)}, many steps {int(by_many.sum())}; {only_step} fell to one"
        " step only."
    )
    weaker = [each.name for each in many if _weaker(each, step)]
    if weaker:
        measured += f" Weaker than one step (McNemar p < 0.05): {', '.join(weaker)}."
    status = worst(judged(only_step, n), "warn" if weaker else "pass")
    numbers = {"one_step": share(int(step.sum()), n), "only_one_step": share(only_step, n)}
    return Finding(status, measured, numbers)


def _weaker(attacked: Attacked, step: Tensor) -> bool:
    only_many, only_step = int((attacked.success & ~step).sum()), int((step & ~attacked.success).sum())
    return only_step > only_many and mcnemar(only_many, only_step) < 0.05


def restarts(subject: Subject) -> Finding:
    """Do more random starts break what the suite did not?"""
    attack = subject.leading_attack
    more: dict[str, Any] = {"random_start": True} if _has_choice_of_start(attack) else {}
    if isinstance(attack, ShortTries):  # the first of them starts at the clean image
        more = {"share": 1.0, "finish": 0.0}
    tries = RESTARTS + isinstance(attack, ShortTries)
    found = subject.found(replace(attack, restarts=tries, **more), seed=subject.seed + 1)
    return _more(subject, found, f"{subject.leading.name} from {RESTARTS} more random starts")


def transfer(subject: Subject) -> Finding:
    """Do images that were crafted on another model break what the attack on the model itself did not?"""
    attack = subject.plain(MIFGSM, steps=TRANSFER_STEPS)
    sources = subject.others or [("a copy smoothed by noise", Smoothed(subject))]
    found, tried = torch.zeros_like(subject.success), []
    for name, surrogate in sources:
        with torch.no_grad():
            known = ask(surrogate, subject.x[:1]).shape[1]
        if known == subject.classes:
            found |= subject.found(attack, surrogate=surrogate)
            tried.append(name)
    if not tried:
        return not_run("The other models of the run know other classes.")
    return _more(subject, found, f"MI-FGSM on {' and on '.join(tried)}")


class Smoothed(nn.Module):
    """The mean of a model's logits over the same few noises at every image: a model whose gradient is less shattered.

    Gradients averaged over noise, as Pintor et al. 2022 (arXiv:2106.09947) attack models with unstable predictions.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.model = subject.search or subject.model
        key = keys(subject.seed, torch.arange(COPIES, device=subject.device), "audit smoothing")
        self.noise = normal(key, subject.x.shape[1:]) * 0.05

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.model((x + each).clamp(0, 1)) for each in self.noise]).mean(0)


def random_noise(subject: Subject) -> Finding:
    """Does random noise of the same size do as well?"""
    n, found = len(subject), subject.success
    noisy = torch.zeros_like(found)
    for number in range(DRAWS):
        noisy |= subject.succeeds(noise(subject, number))
    only_noise, by_noise, by_attack = int((noisy & ~found).sum()), int(noisy.sum()), int(found.sum())
    measured = (
        f"{DRAWS} random points at the edge of the budget broke {by_noise} of {counted(n)}, {subject.white_name} broke"
        f" {by_attack}; {only_noise} fell to noise only."
    )
    status = judged(only_noise, n)
    if by_noise and wilson(by_noise, n)[0] > 0.1 and by_noise >= 0.9 * by_attack:
        status = "fail"
    return Finding(status, measured, {"noise": share(by_noise, n), "only_noise": share(only_noise, n)})


def huge_eps(subject: Subject) -> Finding:
    """With a budget that reaches across the whole range of an image, does everything fall?"""
    eps = diameter(subject.suite.threat.norm, subject.x[0].numel())
    still_right = torch.arange(len(subject), device=subject.device)
    left: list[int] = []
    for member in subject.climbing:
        if len(still_right) or not left:
            still_right = still_right[~subject.run(_unbounded(subject, member, eps), still_right).success]
            left.append(len(still_right))
    n, chance = len(subject), 1 / subject.classes
    first = subject.leading.name
    first = f"PGD on the loss of {first}" if isinstance(subject.leading_attack, APGD | ShortTries) else first
    measured = f"At {subject.suite.threat.norm} eps = {eps:.4g}, which reaches every image, {first} leaves"
    measured += f" {left[0]} of {counted(n)}"
    measured += f", the others of the suite then {left[-1]}; " if len(left) > 1 else "; "
    many = wilson(left[-1], n)[0] > chance and judged(left[-1], n) == "fail"
    status: Status = "fail" if many else "warn" if left[0] > chance * n else "pass"
    return Finding(
        status, f"{measured}chance is {chance:.1%}.", {"left": share(left[-1], n), "eps": eps, "chance": chance}
    )


def _unbounded(subject: Subject, member: Member, eps: float) -> Attack:
    """A member's attack with the whole box as its budget, untargeted, from the clean image where it has the choice.

    APGD has none, nor have short tries after the first: they are replaced by PGD on the same loss.
    """
    attack = subject.suite.at(member, eps)
    if isinstance(attack, APGD | ShortTries):
        return PGD(attack.norm, eps, steps=attack.steps, loss=attack.loss, random_start=False, eot=attack.eot)
    # such noise would do the work by itself
    more: dict[str, Any] = {"random_start": False} if _has_choice_of_start(attack) else {}
    return replace(attack, targeted=False, **more)


def _has_choice_of_start(attack: Attack) -> bool:
    return any(field.name == "random_start" and field.init for field in fields(attack))


def _more(subject: Subject, found: Tensor, what: str) -> Finding:
    """The finding on an attack that should break nothing of what the suite's gradient attacks have left."""
    k, n, left = int(found.sum()), len(subject), len(subject.left)
    measured = (
        f"{what} broke {k} of the {left} that {subject.white_name} had left, of {counted(n)}."
        if left
        else f"{subject.white_name[0].upper() + subject.white_name[1:]} left none of {counted(n)}."
    )
    return Finding(judged(k, n), measured, {"broken": share(k, n), "left": left})


CHECKS = (
    Check(
        "black-box",
        "An attack without gradients finds no more",
        "The gradients mislead: look for gradient masking (randomness, rounding, saturation). Add square to the suite,"
        " and adapt the attack to the defense.",
        f"{CARLINI}, sections 4.4 and 5.4",
        black_box,
    ),
    Check(
        "one-step",
        "Many steps find more than one",
        "Check the step size and the number of steps of the attacks; if they are right, the gradients mislead.",
        f"{CARLINI}, section 5.2",
        one_step,
    ),
    Check(
        "restarts",
        "More random starts find no more",
        "Give the attacks restarts, until more of them change nothing.",
        f"{CARLINI}, section 4.9",
        restarts,
    ),
    Check(
        "transfer",
        "Images crafted elsewhere find no more",
        "The attack on the model itself is weaker than one that never saw it: gradients are masked. Attack a smooth"
        " copy of the model, or add transfer attacks (--surrogate).",
        f"{CARLINI}, section 4.5; {PINTOR}, transfer failure",
        transfer,
    ),
    Check(
        "noise",
        "Random noise of the same size is weaker",
        "If noise finds what the attack does not, the attack is broken. If both find nearly everything, the budget is"
        " so large, or the model so unstable, that the number says nothing about attacks.",
        f"{CARLINI}, section 4.11",
        random_noise,
    ),
    Check(
        "huge-eps",
        "With a huge budget everything falls",
        "An attack that may change every image into every other and still fails does not work: check the loss, the step"
        " size and the gradients.",
        f"{CARLINI}, sections 5.2 and 5.3; {PINTOR}, unconstrained attack failure",
        huge_eps,
    ),
)
