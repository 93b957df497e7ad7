"""What a run with detectors attacks, and with what: which attack does not know the detector, and which inputs do."""

from __future__ import annotations

from torch import Tensor

from robustlab.attacks.apgd import APGD
from robustlab.attacks.pgd import PGD
from robustlab.attacks.suite import Member, Suite
from robustlab.base.draws import keys, normal, uniform
from robustlab.base.errors import UserError, spelled
from robustlab.defenses.detectors import make_detector
from robustlab.evaluation.plan import Plan
from robustlab.threat.geometry import column, project, random_start
from robustlab.threat.model import BUDGET_NORMS


def check_detectors(plan: Plan) -> None:
    """A UserError where the run's detectors cannot be evaluated. Looks at one image."""
    texts, suite = plan.options.detector, plan.suite
    if not texts:
        return
    flag = spelled("detector")
    if suite.threat.norm not in BUDGET_NORMS:
        raise UserError(
            f"{flag} needs a threat in {', '.join(BUDGET_NORMS)}; that of the suite is {suite.threat.norm}."
        )
    if suite.threat.targeted:
        raise UserError(f"{flag} needs an untargeted threat: any wrong answer that is not noticed is a success.")
    if suite.transfer or any(plan.crafted_on):
        raise UserError(f"{flag} attacks the model itself: leave the surrogates out.")
    if plan.randomised:
        raise UserError(
            f"{flag} needs models that answer the same each time, and {min(plan.randomised)} is randomised."
        )
    for text in texts:
        make_detector(text).views(plan.data.images[:1])


def unaware(suite: Suite) -> Member:
    """The attack that does not know the detector: the suite's first PGD or APGD, else PGD with 20 steps.

    >>> from robustlab.attacks.suite import load_suite
    >>> unaware(load_suite("pgd")).name, unaware(load_suite("linf-standard")).name
    ('pgd', 'pgd-20')
    """
    for member in suite.members:
        attack = member.attack
        if isinstance(attack, PGD | APGD) and attack.steps > 1 and not attack.aims:
            return member
    threat = suite.threat
    return Member("pgd-20", "pgd", {}, PGD(norm=threat.norm, eps=threat.eps, steps=20))


def noise(x: Tensor, norm: str, eps: float, seed: int, ids: Tensor) -> Tensor:
    """Images (N, C, H, W) with random noise as large as the attack may be, inside the box; keyed by seed and ids.

    linf: each value up or down by eps. l2: a random direction of length eps. l1: few values, as an attack starts.
    """
    key = keys(seed, ids, "noise")
    if norm == "linf":
        return (x + eps * (2 * (uniform(key, x.shape[1:]) < 0.5).float() - 1)).clamp_(0, 1)
    if norm == "l1":
        return random_start(x, norm, eps, key)
    direction = normal(key, x.shape[1:])
    return project(x + eps * direction / column(direction.flatten(1).norm(dim=1), x), x, norm, eps)
