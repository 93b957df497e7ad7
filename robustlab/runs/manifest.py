"""Which files a run may have, and which of those in a folder an older run that lists none has written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from robustlab.base.files import Kind, slug
from robustlab.base.files.directory import Directory
from robustlab.runs.aggregates import CLEAN
from robustlab.runs.examples import HEATMAPS
from robustlab.runs.transfer import TRANSFER_MATRIX

Json = dict[str, Any]
PAGE = "report.html"
PAGE_MARK = b'<meta name="generator" content="robustlab">'


def is_page(beginning: bytes) -> bool:
    """Is a file that begins so a page that robustlab wrote?"""
    return PAGE_MARK in beginning[:1000]


def _older(info: Json, place: Directory) -> Iterator[str]:
    """What such a run surely wrote: names that its models and attacks give, and a page that says whose it is."""
    for name in ("data.jsonl", "samples.jsonl"):
        if place.is_file(name):
            yield name
    if place.is_file(PAGE) and is_page(place.read(PAGE, 1000) or b""):
        yield PAGE
    config = info["config"]
    models, attacks = (_names(config, key) for key in ("models", "attacks"))
    both = f"(?:{'|'.join(models)})--(?:{'|'.join([*attacks, CLEAN])})"
    images = re.compile(rf"clean-\d+\.png|{both}--\d+-(?:adv|delta|{'|'.join(HEATMAPS)})\.png")
    units = re.compile(rf"{both}--[0-9.e+-]+--\d{{5}}\.(?:jsonl|safetensors)")
    for folder, pattern in (("images", images), ("parts", units), ("adversarial", units)):
        yield from (f"{folder}/{name}" for name in place.names(folder) if models and pattern.fullmatch(name))
    yield from (name for name in _other_parts(info) if place.is_file(name))


def _other_parts(info: Json) -> Iterator[str]:
    """Those of audits and of the rows of a transfer matrix."""
    config = info["config"]
    tables = [*config.get("models", []), *info.get("surrogates", [])]
    n, chunk = config.get("data", {}).get("n"), config.get("chunk_size")
    chunks = min(-(-n // chunk), 10_000) if type(n) is int and type(chunk) is int and chunk > 0 else 0
    for name in {str(table["name"]) for table in tables}:
        for part in (f"audit--{name}", *(f"{TRANSFER_MATRIX} {name} {number}" for number in range(chunks))):
            yield f"parts/{slug(part)}.json"


def _names(config: Json, key: str) -> list[str]:
    tables = config.get(key)
    rows = tables if isinstance(tables, list) else []
    return [re.escape(slug(str(row["name"]))) for row in rows if isinstance(row, dict) and "name" in row]


RUN = Kind(
    name="attack",
    files=("data.jsonl", "samples.jsonl", PAGE),
    folders={"parts": (".jsonl", ".json", ".safetensors"), "images": (".png",), "adversarial": (".safetensors",)},
    older=_older,
    again=(PAGE,),
)
