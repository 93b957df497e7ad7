"""The audits of a run, as run.json holds them: for each model, the checks of the attack on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
STATUSES = ("fail", "warn", "pass", "not run")


def audit_of(info: Mapping[str, Any], model: str) -> Json | None:
    """The audit of a model; None where there was none."""
    return info.get("audit", {}).get(model)  # type: ignore[no-any-return]


def tally(record: Json | None) -> dict[str, int]:
    """How many checks ended how, for each status."""
    often = Counter(check["status"] for check in record["checks"]) if record else Counter()
    return {status: often[status] for status in STATUSES}


def failed_checks(info: Mapping[str, Any], model: str) -> list[str]:
    """The checks that failed; none where there was no audit."""
    record = audit_of(info, model)
    return [check["name"] for check in record["checks"] if check["status"] == "fail"] if record else []


def in_one_line(record: Json | None) -> str:
    """What came out, and which checks did not pass.

    >>> checks = [{"name": "noise", "status": "warn"}, {"name": "clean", "status": "pass"}]
    >>> in_one_line({"n": 64, "checks": checks})
    '1 of 2 checks passed, 1 warned (noise), none failed; n = 64'
    >>> in_one_line(None)
    'not run'
    """
    if not record:
        return "not run"
    counts = tally(record)
    named = {status: [c["name"] for c in record["checks"] if c["status"] == status] for status in STATUSES}

    def part(status: str, word: str) -> str:
        return f"{counts[status]} {word} ({', '.join(named[status])})" if counts[status] else f"none {word}"

    said = [
        f"{counts['pass']} of {len(record['checks'])} checks passed",
        part("warn", "warned"),
        part("fail", "failed"),
    ]
    if counts["not run"]:
        said.append(f"{counts['not run']} not run")
    return f"{', '.join(said)}; n = {record['n']}"
