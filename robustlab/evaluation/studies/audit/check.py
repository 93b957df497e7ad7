"""A check: a question that the audit asks of its subject."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robustlab.evaluation.studies.audit.finding import Finding
from robustlab.evaluation.studies.audit.subject import Subject


@dataclass(frozen=True)
class Check:
    """A question to the attack. title: what holds where it passes. advice: what to do where it does not."""

    name: str
    title: str
    advice: str
    source: str
    ask: Callable[[Subject], Finding]
