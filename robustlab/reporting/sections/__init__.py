"""The sections of the page, one file each, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from markupsafe import Markup

from robustlab.reporting.sections import (
    attacks,
    audit,
    backdoor,
    before_after,
    confidence,
    confusion,
    curve,
    data,
    defense,
    detection,
    factors,
    gallery,
    patch,
    photo,
    provenance,
    side_by_side,
    sticker,
    transfer,
    unknown,
    verdict,
    verification,
)
from robustlab.reporting.source import PageRun


class Section(Protocol):
    """NAME is its anchor, TITLE its heading; `render` is asked only where `applies` said yes."""

    NAME: str
    TITLE: str

    def applies(self, runs: Sequence[PageRun]) -> bool: ...

    def render(self, runs: Sequence[PageRun]) -> Markup: ...


SECTIONS: tuple[Section, ...] = (
    sticker,
    photo,
    patch,
    backdoor,
    verdict,
    defense,
    side_by_side,
    before_after,
    curve,
    attacks,
    audit,
    transfer,
    detection,
    confusion,
    gallery,
    factors,
    confidence,
    verification,
    unknown,
    provenance,
    data,
)
# These get the runs as they were given; the others get comparable runs as one (reporting/comparison.py).
OF_EACH_RUN: tuple[Section, ...] = (sticker, photo, patch, backdoor, transfer, detection, unknown, provenance, data)
