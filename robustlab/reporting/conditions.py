"""What `robustlab compare --fail-if` takes: "robust_accuracy < base - 0.01", read without evaluating anything."""

from __future__ import annotations

import re
from dataclasses import dataclass

from robustlab.base.errors import UserError, did_you_mean

METRICS = {
    "robust_accuracy": "robust accuracy",
    "clean_accuracy": "clean accuracy",
    "worst_class": "robust accuracy of a class",
}
EXAMPLES = '"robust_accuracy < base - 0.01", "clean_accuracy < base" or "worst_class < 0.2"'

_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_TOKEN = re.compile(rf"\s*(?:(?P<number>{_NUMBER.pattern})|(?P<word>[A-Za-z_]\w*)|(?P<sign>\S))", re.ASCII)
_LONGEST = 200  # characters


@dataclass(frozen=True)
class Condition:
    """A build fails where `metric` is below a number: `value`, or with `relative` that of the base plus `value`."""

    text: str
    metric: str
    value: float
    relative: bool

    @property
    def margin(self) -> float:
        """How far the new value may lie under that of the base."""
        return -self.value if self.value else 0.0


def parse_condition(text: str) -> Condition:
    """METRIC < BOUND, BOUND being `base`, `base - NUMBER`, `base + NUMBER` or NUMBER, all of them fractions.

    UserError for anything else.

    >>> parse_condition("robust_accuracy < base - 0.01")
    Condition(text='robust_accuracy < base - 0.01', metric='robust_accuracy', value=-0.01, relative=True)
    >>> parse_condition("worst_class<.2").relative
    False
    """
    words = _words(text)
    if not words:
        raise _unread(text, "it is empty")
    metric = words[0]
    if metric not in METRICS:
        known = ", ".join(METRICS)
        raise _unread(text, f"it begins with {metric!r}; there are: {known}.{did_you_mean(metric, METRICS)}")
    if words[1:2] != ["<"]:
        raise _unread(text, f"after {metric} comes {words[1]!r}, not <" if len(words) > 1 else "it ends too early")
    bound = words[2:]
    match bound:
        case ["base"]:
            return Condition(" ".join(words), metric, 0.0, True)
        case ["base", "-" | "+" as sign, number] if _NUMBER.fullmatch(number):
            value = float(number)
            if value >= 1:
                raise _unread(text, f"{number} is no fraction below 1 (one percentage point is 0.01)")
            return Condition(" ".join(words), metric, -value if sign == "-" else value, True)
        case [number] if _NUMBER.fullmatch(number):
            value = float(number)
            if not 0 < value <= 1:
                raise _unread(text, f"{number} is no fraction above 0 and up to 1 (40 % is 0.4)")
            return Condition(" ".join(words), metric, value, False)
    raise _unread(text, f"after < comes {' '.join(bound)!r}" if bound else "it ends too early")


def _words(text: str) -> list[str]:
    if len(text) > _LONGEST:
        raise _unread(text[:40] + "...", f"it is longer than {_LONGEST} characters")
    return [found[0].strip() for found in _TOKEN.finditer(text)]


def _unread(text: str, why: str) -> UserError:
    stop = "" if why.endswith(("?", ".")) else "."
    return UserError(f"The condition {text!r} cannot be read: {why}{stop} Give one such as {EXAMPLES}.")
