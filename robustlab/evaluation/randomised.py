"""Models that answer differently each time: over how many evaluations their gradients are averaged, and who judges.

Their robust accuracy is that of the majority: an image counts as right where at least half of 10 evaluations are, and
as fooled where more than half are. The model's draws follow from the seed and the unit of work (`oracle.forked`); which
draw an image gets depends on its batch, so batch size may decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

from robustlab.attacks.suite import Suite, load_suite
from robustlab.base.errors import UserError, spelled
from robustlab.evaluation.options import Options
from robustlab.oracle import EVALUATIONS
from robustlab.threat.model import BUDGET_NORMS, ThreatModel

SUITE = "autoattack-rand"  # AutoAttack's version for such models
LONG = 3600.0  # seconds from which on a run names it
EOT = 20  # evaluations that a gradient is averaged over, as AutoAttack does (Croce and Hein 2020, arXiv:2003.01690)


class _Named(Protocol):
    name: str


def check_targets(randomised: Collection[str], threat: ThreatModel, options: Options) -> None:
    """A UserError where the targets would depend on an answer that changes each time."""
    moving = threat.target == "least-likely" or (options.labels == "predicted" and threat.target_class is not None)
    if randomised and threat.targeted and moving:
        raise UserError(
            f"{min(randomised)} is randomised: which class it finds least likely, and which images it takes for the"
            " target already, changes from one evaluation to the next. Give"
            f" {spelled('target', 'random')}, or a class and the labels of the data."
        )


def averaging_of(
    model: _Named, crafted_on: Sequence[_Named], randomised: Collection[str], options: Options
) -> dict[str, int]:
    """How many evaluations a gradient is averaged over (`eot`) and how many judge (`evaluations`); only those above 1.

    crafted_on: the surrogates, if the images are crafted on others than the model. randomised: names.
    """
    asked = {each.name for each in crafted_on} or {model.name}
    eot = options.eot or (EOT if asked.intersection(randomised) else 1)
    return ({"eot": eot} if eot > 1 else {}) | ({"evaluations": EVALUATIONS} if model.name in randomised else {})


def averaged(suite: Suite, averaging: Mapping[str, int], options: Options) -> Suite:
    """The suite as it attacks this model. --eot overrides the card; the default does not."""
    eot = averaging.get("eot", 1)
    return suite.with_eot(eot, over_card=options.eot is not None) if eot > 1 or options.eot else suite


def long_run(suite: Suite, randomised: Collection[str], seconds: float) -> str | None:
    """What to say before a run on randomised models that may take over an hour; None where there is nothing to say.

    suite: as it attacks them. randomised: names of those that are attacked. seconds: the estimate.

    >>> from robustlab.attacks.suite import load_suite
    >>> long_run(load_suite("autoattack-standard"), ["noisy"], 1800) is None
    True
    """
    threat = suite.threat
    if seconds <= LONG or not randomised or suite.name == SUITE or threat.norm not in BUDGET_NORMS:
        return None
    looks, fewer = (sum(m.attack.looks for m in s.members) for s in (suite, load_suite(SUITE, **asdict(threat))))
    return (
        f"{', '.join(sorted(randomised))}: gradients are means over several evaluations, which takes long. AutoAttack's"
        f" version for such models is --suite {SUITE}: at most {fewer:,} looks at an image, here at most {looks:,}."
    )


def how_averaged(averaging: Mapping[str, int]) -> str:
    """What is done about it, as a sentence.

    >>> how_averaged({"eot": 20, "evaluations": 10})
    'gradients are averaged over 20 evaluations (--eot), and the majority of 10 evaluations is its answer.'
    """
    said = [f"gradients are averaged over {averaging['eot']} evaluations (--eot)"] if "eot" in averaging else []
    if "evaluations" in averaging:
        said.append(f"the majority of {averaging['evaluations']} evaluations is its answer")
    return ", and ".join(said) + "."
