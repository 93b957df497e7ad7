"""Models that answer differently each time: over how many draws their gradients are averaged, and who judges.

Their robust accuracy is that of the majority: an image counts as right where at least half of 10 evaluations are, and
as fooled where more than half are. The model's draws follow from the seed and the unit of work (`oracle.forked`); which
draw an image gets depends on its batch, so batch size may decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from robustlab.attacks.suite import Suite
from robustlab.errors import UserError
from robustlab.options import Options
from robustlab.oracle import EVALUATIONS
from robustlab.threat import ThreatModel

EOT = 20  # draws that a gradient is averaged over, as AutoAttack does (Croce and Hein 2020, arXiv:2003.01690)


class _Named(Protocol):
    name: str


def check_targets(randomised: Collection[str], threat: ThreatModel, options: Options) -> None:
    """A UserError where the targets would follow from an answer that is another one each time."""
    moving = threat.target == "least-likely" or (options.labels == "predicted" and threat.target_class is not None)
    if randomised and threat.targeted and moving:
        raise UserError(
            f"{min(randomised)} is randomised: which class it finds least likely, and which images it takes for the"
            " target already, changes from one evaluation to the next. Give --target random, or a class and the labels"
            " of the data."
        )


def draws_of(
    model: _Named, crafted_on: Sequence[_Named], randomised: Collection[str], options: Options
) -> dict[str, int]:
    """Over how many draws gradients are averaged (`eot`) and how many `evaluations` judge, where that is more than one.

    crafted_on: the surrogates, if the images are crafted on others than the model. randomised: names.
    """
    asked = {each.name for each in crafted_on} or {model.name}
    eot = options.eot or (EOT if asked.intersection(randomised) else 1)
    return ({"eot": eot} if eot > 1 else {}) | ({"evaluations": EVALUATIONS} if model.name in randomised else {})


def averaged(suite: Suite, draws: Mapping[str, int], options: Options) -> Suite:
    """The suite as it attacks this model. --eot overrides the card; the default does not."""
    eot = draws.get("eot", 1)
    return suite.with_eot(eot, over_card=options.eot is not None) if eot > 1 or options.eot else suite


def in_words(draws: Mapping[str, int]) -> str:
    """What is done about it, as a sentence.

    >>> in_words({"eot": 20, "evaluations": 10})
    'gradients are averaged over 20 draws (--eot), and the majority of 10 evaluations is its answer.'
    """
    said = [f"gradients are averaged over {draws['eot']} draws (--eot)"] if "eot" in draws else []
    if "evaluations" in draws:
        said.append(f"the majority of {draws['evaluations']} evaluations is its answer")
    return ", and ".join(said) + "."
