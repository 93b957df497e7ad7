"""The registry of detectors of adversarial images. Importing this module imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

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


def read_detector(text: object) -> tuple[str, dict[str, Any]]:
    """Registry name and parameters in `name` or `name:key=value,...`; what cannot be meant is a `UserError`.

    >>> read_detector("energy:temperature=2")
    ('energy', {'temperature': 2})
    """
    name, colon, rest = text.partition(":") if isinstance(text, str) else (text, "", "")
    if name not in DETECTORS:
        raise UserError(
            f"A detector is one of {', '.join(DETECTORS)}; got {name!r}.{did_you_mean(str(name), DETECTORS)}"
        )
    given: dict[str, Any] = {}
    for pair in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (key and equals) or key in given:
            raise UserError(f"Parameters of the detector {name} are key=value, each once, got {rest!r}.")
        given[key] = parse_value(value)
    return str(name), given


def make_detector(text: str) -> Detector:
    """The detector that `name` or `name:key=value,...` describes.

    >>> make_detector("energy:temperature=2").temperature
    2.0
    """
    name, given = read_detector(text)
    return cast("Detector", convert(given, locate(DETECTORS[name]), f"the detector {name}"))


__getattr__ = exports(__name__, [*DETECTORS.values(), *_OTHERS])
