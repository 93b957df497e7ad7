"""What was compared, how often it agreed, and where it did not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustlab.base.files.changes import changes
from robustlab.base.words import visible

# confidences: absolute; other batches, devices and versions of torch round logits differently
CONFIDENCE = 1e-4
# every other number that is not a whole one: relative; they follow from stored float32 values in float64
RELATIVE = 1e-6
_SHOWN = 5


@dataclass
class Compared:
    """n things of one kind that were compared; `wrong` says of each that disagrees what and how."""

    what: str
    n: int = 0
    wrong: list[str] = field(default_factory=list)

    def record(self, which: str, differences: list[str]) -> None:
        """Count one thing; it disagrees if there are differences."""
        self.n += 1
        if differences:
            self.wrong.append(f"{which}: {'; '.join(differences)}")


@dataclass(frozen=True)
class Verification:
    """What `verify` found. As a text: the table that `robustlab verify` prints.

    complete: the run stored its adversarials; without them attacked numbers were not recomputed. errors: attacked
    samples that ended in an error of the model, which count as not robust. taken: what was not recomputed, in words.
    warnings: of the check of the models.
    """

    folder: Path
    checks: list[Compared]
    complete: bool
    errors: int
    taken: list[str]
    warnings: list[str]

    @property
    def disagreements(self) -> int:
        return sum(len(check.wrong) for check in self.checks)

    def __str__(self) -> str:
        rows = [("checked", "n", "agree", "disagree")]
        rows += [(c.what, f"{c.n:,}", f"{c.n - len(c.wrong):,}", f"{len(c.wrong):,}") for c in self.checks]
        wide = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [row[0].ljust(wide[0]) + "".join("  " + row[i].rjust(wide[i]) for i in (1, 2, 3)) for row in rows]
        for check in self.checks:
            if check.wrong:
                lines += ["", f"{check.what}:", *(f"  {text}" for text in check.wrong[:_SHOWN])]
            if len(check.wrong) > _SHOWN:
                lines.append(f"  and {len(check.wrong) - _SHOWN:,} more")
        lines += [
            "",
            f"Agree: confidences within {CONFIDENCE:g}, other fractions within one in a million, the rest exactly.",
        ]
        lines += ["Taken as stored, since nothing in the folder tells them from others:"]
        lines += [f"  {text}" for text in self.taken]
        if self.errors:
            lines.append(
                f"{self.errors:,} attacked samples ended in an error of the model: nothing to recompute there."
            )
        lines += [f"Warning: {text}" for text in self.warnings]
        total = sum(check.n for check in self.checks)
        verdict = (
            f"{self.disagreements:,} of {total:,} disagree."
            if self.disagreements
            else f"All {total:,} that could be checked agree; taken as stored: {'; '.join(self.taken)}."
        )
        return "\n".join(visible(line) for line in (*lines, verdict))


# keys of run.json that are recomputed, or that say how to; what stands inside them and is not, is named beside
CHECKED = {"schema_version", "kind", "finished", "config", "config_hash", "suite", "seed", "eps_typed"}
CHECKED |= {"perturbation_scale", "data", "models", "passes", "aggregates", "images", "audit", "sections"}


def taken_as_stored(info: Mapping[str, Any], audit: Sequence[str], complete: bool) -> list[str]:
    """What of a run `verify` believes, in words. audit: its checks that were not repeated."""
    sections = [str(section.get("name")) for section in info.get("sections", [])]
    keys = {str(key) for image in info.get("images", []) for key in image}
    heatmaps = "heatmaps" in info or any(key.startswith("heat") for key in keys)
    others = sorted(info.keys() - CHECKED - {"heatmaps"})
    unkeyed = [attack["name"] for attack in info["config"]["attacks"] if attack.get("unkeyed")]
    return [
        *([] if complete else ["what the attacks found (no adversarial is stored)"]),
        *([f"how {', '.join(unkeyed)} searched (unkeyed: not repeatable sample by sample)"] if unkeyed else []),
        "ranks, classes that attacks chose to aim at, forward and backward passes",
        "seconds, refused successes, errors",
        "parameters of attacks, search copies",
        *([f"audit checks {', '.join(audit)}"] if audit else []),
        *([f"sections {', '.join(sections)}"] if sections else []),
        *(["heatmaps"] if heatmaps else []),
        *([f"how it was run: {', '.join(others)}"] if others else []),
    ]


def differences(stored: Any, again: Any, at: str = "") -> Iterator[str]:
    """Where two JSON values differ by more than their tolerance: dotted field, what is stored, what comes out now.

    >>> list(differences({"n": 3, "left": [0.5, 1.0]}, {"n": 4, "left": [0.5, 1.0000001]}))
    ['n is 3, recomputed 4']
    """
    for where, old, new in changes(stored, again, at, _same, absent="missing"):
        yield f"{where} is {shown(old)}, recomputed {shown(new)}"


def leaves(value: Any) -> int:
    """How many numbers, texts and nulls a JSON value holds.

    >>> leaves({"n": 3, "left": [0.5, None]})
    3
    """
    if isinstance(value, dict | list):
        return sum(leaves(item) for item in (value.values() if isinstance(value, dict) else value))
    return 1


def _same(at: str, a: Any, b: Any) -> bool:
    numbers: Callable[[Any], bool] = lambda v: isinstance(v, int | float) and not isinstance(v, bool)  # noqa: E731
    if not numbers(a) or not numbers(b):
        return bool(a == b)
    if at.endswith("confidence"):
        return math.isclose(a, b, rel_tol=0, abs_tol=CONFIDENCE)
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=1e-12)


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.7g}"
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
