"""Checks on the points that attacks return: inside the budget and the box, and still adversarial in 8 bits."""

from __future__ import annotations

import torch

from robustlab.base.intervals import share
from robustlab.base.words import counted
from robustlab.evaluation.studies.audit.check import Check
from robustlab.evaluation.studies.audit.finding import CARLINI, TOLERATED, Finding, Status, mostly, not_run
from robustlab.evaluation.studies.audit.subject import Subject


def inside(subject: Subject) -> Finding:
    """Every point, of successes and of failures, counted again."""
    points = outside = unconfirmed = invalid = 0
    for each in subject.white:
        if each.outcome is None or each.verdict is None:
            continue
        size = each.attack.keep != "smallest"  # a nearest point may lie outside the budget; it then counts as robust
        out = ~each.verdict.inside & (each.outcome.success | size)
        points += len(out)
        outside += int(out.sum())
        unconfirmed += int((each.outcome.success & each.verdict.inside & ~each.verdict.success).sum())
        invalid += int(each.outcome.invalid.sum())
    if not points:
        return not_run("Every gradient attack ended in an error.")
    measured = (
        f"Of {counted(points, 'point')} {outside} lie outside the budget or [0, 1]; {unconfirmed} successes were not"
        f" confirmed when judged again; {invalid} attempts ended in NaN."
    )
    in_run = subject.ran.unconfirmed()
    if in_run:
        measured += f" In the run itself {in_run:,} successes were not confirmed."
    numbers = {"outside": outside, "unconfirmed": unconfirmed, "invalid": invalid, "points": points}
    # what is not confirmed counts as robust in the run, too
    status: Status = "fail" if outside or invalid else "warn" if unconfirmed or in_run else "pass"
    return Finding(status, measured, numbers)


def rounding(subject: Subject) -> Finding:
    """Successes that no attack of the suite keeps when its image is rounded to 8 bits."""
    success = subject.success
    rounded = torch.zeros_like(success)
    for each in subject.white:
        if each.verdict is not None:
            rounded |= each.success & each.verdict.success_8bit
    n, lost = len(subject), int((success & ~rounded).sum())
    if not success.any():
        return not_run("There was no success to round.")
    # the number stands, for images that need not be files; it is never a failure of the attack
    status: Status = "warn" if mostly(lost, n, TOLERATED) else "pass"
    measured = (
        f"{lost} of {counted(int(success.sum()), 'broken image')}, of {n} in all, are broken no more after rounding to"
        " 8 bits."
    )
    return Finding(status, measured, {"lost": share(lost, n)})


CHECKS = (
    Check(
        "inside",
        "All points lie inside the budget and the box, and are what they are said to be",
        "The attack does not keep its own limits, or the model does not repeat its answers: the numbers are not those"
        " of the stated threat. Fix the attack, or see the check on randomness.",
        f"{CARLINI}, section 2.3",
        inside,
    ),
    Check(
        "rounding",
        "Successes survive 8 bits",
        "Report the robust accuracy after rounding beside the other: what lives between two grey levels cannot be"
        " stored in a file. Attacks with a fixed budget lose less than those that look for the nearest point.",
        "Carlini and Wagner 2017, arXiv:1608.04644, section V.D",
        rounding,
    ),
)
