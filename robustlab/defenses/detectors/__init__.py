"""The registry of detectors of adversarial images. Importing this module imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from robustlab.base.cards import convert, parse_value
from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.lazy import exports, locate

if TYPE_CHECKING:
    from robustlab.defenses.detectors.base import Detector as Detector
    from robustlab.defenses.detectors.confidence import Confidence as Confidence
    from robustlab.defenses.detectors.energy import Energy as Energy
    from robustlab.defenses.detectors.evasion import Evasion as Evasion
    from robustlab.defenses.detectors.feature_squeezing import FeatureSqueezing as FeatureSqueezing

DETECTORS: dict[str, str] = {
    "confidence": "robustlab.defenses.detectors.confidence:Confidence",
    "energy": "robustlab.defenses.detectors.energy:Energy",
    "feature-squeezing": "robustlab.defenses.detectors.feature_squeezing:FeatureSqueezing",
}
_OTHERS = ["robustlab.defenses.detectors.base:Detector", "robustlab.defenses.detectors.evasion:Evasion"]


def check_detector(text: object) -> str:
    """The registry name in `name` or `name:key=value,...`; an unknown one is a `UserError`.

    >>> check_detector("energy:temperature=2")
    'energy'
    """
    name = text.partition(":")[0] if isinstance(text, str) else text
    if name not in DETECTORS:
        raise UserError(
            f"A detector is one of {', '.join(DETECTORS)}; got {name!r}.{did_you_mean(str(name), DETECTORS)}"
        )
    return str(name)


def make_detector(text: str) -> Detector:
    """The detector that `name` or `name:key=value,...` describes.

    >>> make_detector("energy:temperature=2").temperature
    2.0
    """
    name, _, rest = text.partition(":")
    kind = locate(DETECTORS[check_detector(text)])
    given = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"A parameter of the detector {name} is given as key=value, got {pair!r}.")
        given[key.strip()] = parse_value(value.strip())
    return cast("Detector", convert(given, kind, f"the detector {name}"))


__getattr__ = exports(__name__, [*DETECTORS.values(), *_OTHERS])
