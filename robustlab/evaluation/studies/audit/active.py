"""The active test: does the suite find adversarial examples that are known to exist?"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from robustlab.attacks.base import Attack, Outcome
from robustlab.attacks.short_tries import ShortTries
from robustlab.base.draws import keys
from robustlab.base.errors import UserError
from robustlab.base.intervals import share, wilson
from robustlab.base.words import counted, interval, listed, percent
from robustlab.evaluation.judging import logits_of
from robustlab.evaluation.studies.audit.check import Check
from robustlab.evaluation.studies.audit.finding import Finding, Status, mostly, not_run
from robustlab.evaluation.studies.audit.noise import at_edge
from robustlab.evaluation.studies.audit.planted import EDGE, INNER, Images, Planted, plant
from robustlab.evaluation.studies.audit.subject import Subject
from robustlab.oracle import NoGradientError, Oracle
from robustlab.threat.geometry import distance
from robustlab.threat.model import allowed

SAMPLES = 24
FEWEST = 8  # with fewer images the test says nothing
SHOULD = 0.9  # the share that a sound suite finds
LOOKS = 1000  # at an image, over all attacks; what would take more is cut
RANDOM = 64  # random points an image, at most
PASSES = EDGE + INNER + 4  # forward passes that planting costs an image
STEPS = 4  # gradient steps in which a sound suite finds what was planted, about


def active(subject: Subject) -> Finding:
    """In how many of some audited images does the suite find an adversarial example that was planted? See `planted`.

    `verdict` says when it fails: where gradients are masked, before the last linear layer or behind it, and where the
    attack is too weak to get to the edge of its budget. An attack without gradients in the suite may make up for it: a
    planted example is easier to find than one of the model itself, so that a pass is no proof.

    Not run where the model's answers vary with chance or with the other images of the batch, so that no point is an
    example for sure; where the budgets of two images overlap; and where random points find most examples, as with a
    detector that changes its answer to every noisy image.
    """
    images = _chosen(subject)
    if len(images.x) < FEWEST:
        return not_run(f"It needs {FEWEST} images more than twice the budget apart, and there are {len(images.x)}.")
    if subject.evaluations > 1 or _varies(subject, images.x):
        return not_run("The answer to an image varies, so that no point is an adversarial example for sure.")
    model, points, apart = subject.batches.fit(
        lambda size: plant(subject.model, images, subject.suite.threat, subject.seed, size)
    )
    chosen, clean = len(apart), _succeeds(subject, model, images.x, images)
    at = (apart & ~clean & _succeeds(subject, model, points, images)).nonzero()[:, 0]
    n = len(at)
    planted = f"An adversarial example could be planted in {n} of {counted(chosen)}"
    if n < FEWEST:
        return not_run(f"{planted}: in the others random points at the edge of the budget look like those inside it.")
    model, images = model.take(at), images.take(at)
    tried = _tried(subject, model, images)
    chance = _at_random(subject, model, images, tried.looks)
    k, r, cut = int(tried.found.sum()), int(chance.sum()), tried.cut
    shown = share(k, n)
    measured = (
        f"{planted}. The suite ({listed(tried.names)}) found one in {k} of these, {percent(shown)}"
        f" (95 % interval {interval(shown)}); as many random points, at most {RANDOM} an image, in {r}."
    )
    if cut:
        measured += f" The suite was cut to {LOOKS:,} looks at an image; the whole of it may find more."
    numbers = {"found": shown, "random": share(r, n), "not_planted": chosen - n, "cut": cut}
    status = verdict(k, r, n, cut)
    if status == "not run":
        measured += " What random points find says nothing about an attack."
    return Finding(status, measured, numbers)


def verdict(k: int, r: int, n: int, cut: bool) -> Status:
    """Of n planted examples the suite found k, random points r; cut: the suite was not run to its end.

    Not run where the 95 % interval of the random points' share lies above a half. Else a pass where the suite's share
    is nine tenths or more, a failure where its interval lies below, unless the suite was cut, and a warning otherwise.

    >>> [verdict(k, 0, 24, False) for k in (24, 22, 21, 19, 18)], verdict(0, 0, 24, True), verdict(24, 20, 24, False)
    (['pass', 'pass', 'warn', 'warn', 'fail'], 'warn', 'not run')
    """
    if mostly(r, n):
        return "not run"
    if k >= SHOULD * n:
        return "pass"
    return "fail" if wilson(k, n)[1] < SHOULD and not cut else "warn"


def _chosen(subject: Subject) -> Images:
    """The images with the smallest keyed draws, but none within twice the budget of one before it."""
    every = Images(subject.x, subject.y, subject.ids, subject.targets)
    images = every.take(keys(subject.seed, subject.ids, "audit, active").argsort()[:SAMPLES])
    x, threat = images.x, subject.suite.threat
    near = torch.stack([distance(x - each, threat.norm) <= 2 * allowed(threat.eps) for each in x])
    return images.take((~near.tril(-1).any(1)).nonzero()[:, 0])


def _varies(subject: Subject, x: Tensor) -> bool:
    """Do two looks differ, the second in another order and in smaller batches?"""
    first = subject.batches.fit(lambda size: logits_of(subject.model, x, size))
    other = subject.batches.fit(lambda size: logits_of(subject.model, x.flip(0), max(1, min(size, len(x)) // 2)))
    return not bool((first - other.flip(0)).abs().amax() <= 1e-4 * (1 + first.abs().amax()))


def _succeeds(subject: Subject, model: Planted, points: Tensor, images: Images) -> Tensor:
    """(n,) bool: a point for each image, is it what the attacker wants?"""
    said = subject.batches.fit(lambda size: logits_of(model, points, size)).argmax(1)
    return said != images.y if images.targets is None else said == images.targets


class _Tried(NamedTuple):
    """found: (n,) bool. looks: (n,) forward passes. names: of the attacks that were run. cut: some not to their end."""

    found: Tensor
    looks: Tensor
    names: list[str]
    cut: bool


def _tried(subject: Subject, model: Planted, images: Images) -> _Tried:
    """The suite as a cascade: each attack on what is left."""
    found, looks, names, cut = torch.zeros_like(images.y, dtype=torch.bool), torch.zeros_like(images.y), [], False
    for member in subject.suite.members:
        left = (~found).nonzero()[:, 0]
        if not len(left):
            break
        attack = _aimed(member.attack)
        shown = _shortened(attack, LOOKS - int(looks.max()))
        if shown is None:
            cut = True
            continue
        names.append(member.name)
        try:
            outcome = _outcome(subject, model, shown, images.take(left))
        except NoGradientError:  # it finds nothing
            continue
        inside = distance(outcome.images - images.x[left], shown.norm) <= allowed(shown.eps)
        found[left] = outcome.success & inside & ~outcome.invalid
        looks[left] += outcome.forwards
        cut |= shown is not attack and bool((~found[left] & (outcome.forwards >= shown.looks)).any())
    return _Tried(found, looks, names, cut and not bool(found.all()))


def _shortened(attack: Attack, room: int) -> Attack | None:
    """The attack with as many steps as `room` looks allow; None where it has no such steps."""
    if attack.looks <= room:
        return attack
    try:
        return replace(attack, steps=attack.steps * max(room, 0) // attack.looks)
    except (UserError, ValueError):  # no step is left, fewer than its other parameters need, or it always takes one
        return None


def _outcome(subject: Subject, model: Planted, attack: Attack, images: Images) -> Outcome:
    return subject.batches.fit(
        lambda size: attack.run(
            Oracle(model),
            images.x,
            images.y,
            targets=images.targets if attack.targeted else None,
            ids=images.ids,
            seed=subject.seed,
            batch_size=size,
        )
    )


def _aimed(attack: Attack) -> Attack:
    """Of an attack that aims at several classes only the likeliest: it is the one whose output moves.

    Short tries without the long ones at their end.
    """
    if isinstance(attack, ShortTries):
        return replace(attack, finish=0.0)
    one = attack.aims and any(field.name == "classes" and field.init for field in fields(attack))
    return replace(attack, classes=1) if one else attack  # type: ignore[call-arg]


def _at_random(subject: Subject, model: Planted, images: Images, looks: Tensor) -> Tensor:
    """(n,) bool: do random points at the edge of the budget find one, as many as the suite looked at?"""
    found, threat = torch.zeros_like(images.y, dtype=torch.bool), subject.suite.threat
    for number in range(min(RANDOM, int(looks.max()))):
        at = (~found & (looks > number)).nonzero()[:, 0]
        if len(at):
            some = images.take(at)
            key = keys(subject.seed, some.ids, "audit, active, random", number)
            found[at] = _succeeds(subject, model, at_edge(some.x, threat.norm, threat.eps, key), some)
    return found


CHECKS = (
    Check(
        "active",
        "The suite finds adversarial examples that are known to exist",
        "The suite misses examples that lie inside the budget, so that an image that withstood it may have some, too."
        " See the checks on gradients; add an attack without gradients (square), more steps or restarts, or adapt the"
        " attack to the defense.",
        "Zimmermann et al. 2022, arXiv:2206.13991",
        active,
    ),
)
