"""The sections of the page, one file each, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from markupsafe import Markup

from robustlab.reporting.sections import attacks, curve, data, gallery, others, provenance, verdict
from robustlab.reporting.source import PageRun


class Section(Protocol):
    """NAME is its anchor, TITLE its heading; `render` is asked only where `applies` said yes."""

    NAME: str
    TITLE: str

    def applies(self, runs: Sequence[PageRun]) -> bool: ...

    def render(self, runs: Sequence[PageRun]) -> Markup: ...


SECTIONS: tuple[Section, ...] = (verdict, curve, attacks, gallery, others, provenance, data)
