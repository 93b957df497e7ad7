"""Which files a run may have."""

from __future__ import annotations

from robustlab.base.files import Kind

PAGE = "report.html"
PAGE_MARK = b'<meta name="generator" content="robustlab">'


def is_page(beginning: bytes) -> bool:
    """Is a file that begins so a page that robustlab wrote?"""
    return PAGE_MARK in beginning[:1000]


RUN = Kind(
    name="attack",
    files=("data.jsonl", "samples.jsonl", PAGE),
    folders={"parts": (".jsonl", ".json", ".safetensors"), "images": (".png",), "adversarial": (".safetensors",)},
    again=(PAGE,),
)
