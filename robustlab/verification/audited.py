"""The audit of a run once more: what of it needs few passes, or all of it, against what run.json says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args

from robustlab import __version__
from robustlab.base.files.changes import changes
from robustlab.base.intervals import share
from robustlab.evaluation.studies.audit.active import verdict
from robustlab.evaluation.studies.audit.check import Check
from robustlab.evaluation.studies.audit.choosing import which
from robustlab.evaluation.studies.audit.comparisons import COVERED
from robustlab.evaluation.studies.audit.finding import TOLERATED, Finding, Status, judged, mostly, worst
from robustlab.evaluation.studies.audit.rows import with_rows
from robustlab.evaluation.studies.audit.study import CHECKS, not_asked, record_of
from robustlab.evaluation.studies.audit.subject import Subject
from robustlab.verification.checks import Compared, shown

# they ask the model a few times, and run no attack
CHEAP = ("outputs", "randomised", "clean", "normalisation", "gradient")
NO_PASSES = ("clean",)  # all that can be repeated of a randomised model without the draws of the other checks
SIMILAR = 2e-3  # of numbers that follow from logits: relative
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")

Json = dict[str, Any]


class AuditAgain:
    """The audits of all models of a run. whole: with the checks that run attacks.

    stored: run.json's `audit`. asked: its number of samples, as configured. written: by which robustlab.
    """

    def __init__(self, stored: Mapping[str, Any], asked: int, written: str | None, whole: bool) -> None:
        self.stored, self.asked, self.whole = stored, asked, whole
        self.compared = Compared("run.json: audit")
        self.taken: list[str] = []  # checks that were not recomputed, as `verify` names them
        self.by = "" if written == __version__ else f" (by robustlab {__version__}; the run was written by {written})"

    def compare(self, name: str, subject: Subject) -> None:
        """The audit of one model. subject: what is audited of it, as it comes out now."""
        record = self.stored.get(name)
        if not self.asked:
            self._record(f"{name}", [] if record is None else ["there is an audit, and none was asked for"])
            return
        if not isinstance(record, Mapping) or not isinstance(record.get("checks"), list):
            self._record(name, ["its audit is missing"])
            return
        again = {**which(subject), "asked": self.asked, "tolerated": TOLERATED}
        for key, value in again.items():
            self._record(f"{name}, {key}", _differences({key: record.get(key)}, {key: value}))
        names = [check.name for check in CHECKS]
        listed = [str(check.get("name")) for check in record["checks"]]
        self._record(f"{name}, list of checks", [] if listed == names else [f"they are {', '.join(listed)}"])
        asked = [check for check in CHECKS if self._repeated(check, subject)]
        found = {each["name"]: each for each in record_of(subject, asked, name, self.asked)["checks"]}
        for check, each in zip(CHECKS, record["checks"], strict=False):
            if check.name == each.get("name"):
                if check.name in found:
                    wrong = _differences(each, found[check.name])
                else:
                    self.taken += [] if check.name in self.taken else [check.name]
                    wrong = list(_contradictions(check, each, subject))
                self._record(f"{name}, {check.name}", wrong)

    def no_others(self, names: Sequence[str]) -> None:
        """There is no audit of a model that the run does not have."""
        for name in self.stored.keys() - set(names):
            self._record(name, ["the run has no such model"])

    def _repeated(self, check: Check, subject: Subject) -> bool:
        if self.whole or not_asked(check, subject) is not None:
            return True
        return check.name in (NO_PASSES if subject.evaluations > 1 else CHEAP)

    def _record(self, which: str, wrong: Sequence[str]) -> None:
        self.compared.record(which, [f"{text}{self.by}" for text in wrong])


def _contradictions(check: Check, stored: Json, subject: Subject) -> Iterator[str]:
    """What must be wrong in a check that was not repeated, by its own numbers and by the run's lines."""
    yield from _differences(
        {"title": stored.get("title"), "source": stored.get("source")}, {"title": check.title, "source": check.source}
    )
    if stored.get("advice") not in (check.advice, COVERED if check.name == "black-box" else check.advice):
        yield "its advice is not that of the check"
    status, numbers, measured = stored.get("status"), stored.get("numbers"), str(stored.get("measured"))
    if status not in get_args(Status) or not isinstance(numbers, dict):
        yield f"its status is {status!r}, and its numbers are {shown(numbers)}"
        return
    yield from _odd_shares(numbers, "numbers")
    if "error" in numbers:  # the model failed, and nothing was asked
        return
    rows = with_rows(check.name, Finding("pass", ""), subject.ran)
    yield from _differences({"run": numbers.get("run")}, {"run": rows.numbers.get("run")})
    if not measured.endswith(rows.measured):
        yield f"it does not say what the run's lines do:{rows.measured}"
    try:
        odd = check.name == "inside" and subject.ran.unconfirmed() > 0
        least = worst(rows.status, _least(check.name, numbers), "warn" if odd else "pass")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        yield f"its numbers are {shown(numbers)}"
        return
    if worst(least, cast(Status, status)) != status and not (status == "not run" and least == "pass"):
        yield f"its status is {status}, and its numbers make it {least}"


def _odd_shares(value: Any, at: str) -> Iterator[str]:
    """Where {value, low, high, n} is no share of n with its interval."""
    if isinstance(value, dict) and value.keys() == {"value", "low", "high", "n"}:
        if all(isinstance(each, int | float) for each in value.values()) and 0 <= value["value"] <= 1 <= value["n"]:
            k = value["value"] * value["n"]
            if not math.isclose(k, round(k), abs_tol=1e-6):
                yield f"{at} is {shown(value['value'])}, which is no share of {value['n']}"
            else:
                yield from (f"{at}: {text}" for text in _differences(value, share(round(k), int(value["n"]))))
        else:
            yield f"{at} is {shown(value)}, which is no share"
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _odd_shares(each, f"{at}.{key}")


def _least(check: str, numbers: Json) -> Status:
    """The status that the stored numbers of a check alone would give it; what was seen besides may be worse."""

    def counts(key: str) -> tuple[int, int]:
        return round(numbers[key]["value"] * numbers[key]["n"]), numbers[key]["n"]

    nothing = {key for key in numbers if key != "run"} == set()
    if nothing:
        return "pass"
    if check == "black-box":  # what the suite's own score-based attack broke, too, is only a warning
        return "warn" if counts("broken")[0] else "pass"
    if check == "inside":
        return "fail" if numbers["outside"] or numbers["invalid"] else "warn" if numbers["unconfirmed"] else "pass"
    if check == "active":
        (found, n), (chance, _) = counts("found"), counts("random")
        return verdict(found, chance, n, bool(numbers["cut"]))
    if check in ("rounding", "confidence"):
        return "warn" if mostly(*counts(_KEYS[check]), *([TOLERATED] if check == "rounding" else [])) else "pass"
    return judged(*counts(_KEYS[check])) if check in _KEYS else "pass"


_KEYS = {
    "converged": "broken_by_twice_the_steps",
    "one-step": "only_one_step",
    "restarts": "broken",
    "transfer": "broken",
    "noise": "only_noise",
    "rounding": "lost",
    "confidence": "sure",
}


def _differences(stored: Any, again: Any) -> list[str]:
    return [f"{at} is {shown(old)}, recomputed {shown(new)}" for at, old, new in changes(stored, again, same=_same)]


def _same(at: str, a: Any, b: Any) -> bool:
    """Do two values agree? Fractions may differ where they follow from logits, which round differently elsewhere."""
    if isinstance(a, str) and isinstance(b, str):
        words, values = _NUMBER.split(a), zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=False)
        return words == _NUMBER.split(b) and all(_close(x, y) for x, y in values)
    if isinstance(a, float) and isinstance(b, float) and at.startswith("numbers.difference"):
        return math.isclose(a, b, rel_tol=0.5, abs_tol=1e-3)
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (a, b))
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12) if numbers else bool(a == b)


def _close(a: str, b: str) -> bool:
    """Whole numbers alike, fractions nearly so."""
    whole = a.replace(",", "").isdecimal() and b.replace(",", "").isdecimal()
    return a == b or (not whole and math.isclose(*(float(each.replace(",", "")) for each in (a, b)), rel_tol=SIMILAR))
