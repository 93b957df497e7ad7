"""What a suite costs on a large data set, on one GPU and on many: `python benchmarks/cost.py`. COST.md says more.

Passes are those that autoattack.py counted on `road-signs/cnn` and `road-signs/cnn-robust` (n = 1,000;
results/autoattack.json). Speeds and accuracies are assumptions, and arguments.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "autoattack.json"
SUITES = ("autoattack-standard", "linf-strong")
UNDEFENDED, ROBUST = "road-signs/cnn", "road-signs/cnn-robust"


@dataclass(frozen=True)
class Passes:
    """Of one image: forward and backward passes."""

    forwards: float
    backwards: float


@dataclass(frozen=True)
class Speed:
    """Images a second on one GPU: forward alone, and forward and backward together."""

    forward: float
    both: float

    def seconds(self, passes: Passes) -> float:
        """Of one image."""
        return passes.forwards / self.forward + passes.backwards * (1 / self.both - 1 / self.forward)


def per_image(suite: str, entries: list[dict[str, Any]]) -> tuple[Passes, Passes]:
    """What a suite takes for an image on which it succeeds, and for one on which it does not.

    Two runs, on an undefended and on a robust network, are two equations for two unknowns. The counts are those of the
    attacks: the forward pass that finds out whether an image is classified right is not among them.
    """
    rows = []
    for net in (UNDEFENDED, ROBUST):
        key = {"net": net, "contender": suite, "n": 1000, "shorten": 1}
        entry = next(entry for entry in entries if entry["key"] == key)
        n, clean, robust = entry["clean"]["n"], entry["clean"]["value"], entry["robust"]["value"]
        left = round(n * robust)
        rows.append((round(n * clean) - left, left, entry["forwards"], entry["backwards"]))
    (a, b, f1, b1), (c, d, f2, b2) = rows
    det = a * d - b * c
    falls = Passes((f1 * d - f2 * b) / det, (b1 * d - b2 * b) / det)
    stays = Passes((a * f2 - c * f1) / det, (a * b2 - c * b1) / det)
    return falls, stays


def busiest(images: int, chunk: int, gpus: int) -> int:
    """The images of the GPU that has most of them: whole chunks, the i-th goes to process i modulo `gpus`.

    >>> busiest(50_000, 512, 64), busiest(50_000, 512, 512), busiest(50_000, 49, 512)
    (1024, 512, 98)
    """
    return min(images, math.ceil(math.ceil(images / chunk) / gpus) * chunk)


def chunk_for(images: int, gpus: int, most: int = 512) -> int:
    """The largest chunk, up to `most`, with which the busiest GPU has at most a twentieth more than its share.

    >>> [chunk_for(50_000, gpus) for gpus in (1, 8, 64, 512)]
    [512, 504, 410, 102]
    """
    fair = images / gpus
    return next(chunk for chunk in range(most, 0, -1) if busiest(images, chunk, gpus) <= 1.05 * fair or chunk == 1)


def unlucky(mine: int, gpus: int, robust: float, falls: float, stays: float, clean: float) -> float:
    """How much longer the unluckiest GPU works than the mean: it has more images that withstand.

    Their number is binomial; the largest of `gpus` of them is about sqrt(2 ln gpus) standard deviations above the mean.
    """
    mean = (clean - robust) * falls + robust * stays
    if gpus == 1 or not mean:
        return 1.0
    more = math.sqrt(2 * math.log(gpus)) * math.sqrt(robust * (1 - robust) / mine) * (stays - falls)
    return 1 + more / mean


def clock(seconds: float) -> str:
    """Rounded to two digits.

    >>> clock(45), clock(750), clock(36_000)
    ('45 s', '12 min', '10 h')
    """
    value, unit = (seconds, "s") if seconds < 90 else (seconds / 60, "min") if seconds < 5400 else (seconds / 3600, "h")
    return f"{float(f'{value:.2g}'):,.{1 if value < 9.95 else 0}f} {unit}"


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument(
        "--forward", type=float, default=3000, help="images a second forward on one GPU (an assumption)"
    )
    parser.add_argument("--both", type=float, default=1000, help="the same, forward and backward (an assumption)")
    parser.add_argument("--undefended", type=float, nargs=2, default=(0.76, 0.0), metavar=("CLEAN", "ROBUST"))
    parser.add_argument("--robust", type=float, nargs=2, default=(0.64, 0.35), metavar=("CLEAN", "ROBUST"))
    parser.add_argument("--gpus", type=int, nargs="+", default=(1, 8, 64, 512))
    parser.add_argument("--chunk", type=int, help="chunk size (default: the largest up to 512 that shares well)")
    parser.add_argument("--share", type=float, default=1.0, help="of the counted passes that are taken (default: all)")
    options = parser.parse_args(None if words is None else list(words))
    entries, speed = json.loads(RESULTS.read_text())["runs"], Speed(options.forward, options.both)
    heads = [f"{gpus} GPU{'s' * (gpus > 1)}" for gpus in options.gpus]
    print("| network | suite | passes an image, forward / backward | GPU hours | " + " | ".join(heads) + " |")
    print("|---|---|--:|--:|" + "--:|" * len(heads))
    for name, (clean, robust) in (("undefended", options.undefended), ("robust", options.robust)):
        for suite in SUITES:
            falls, stays = (
                Passes(each.forwards * options.share, each.backwards * options.share)
                for each in per_image(suite, entries)
            )
            forwards = 1 + (clean - robust) * falls.forwards + robust * stays.forwards
            backwards = (clean - robust) * falls.backwards + robust * stays.backwards
            once = speed.seconds(Passes(forwards, backwards))
            cells = []
            for gpus in options.gpus:
                chunk = options.chunk or chunk_for(options.images, gpus)
                mine = busiest(options.images, chunk, gpus)
                busy = min(gpus, math.ceil(options.images / chunk))
                luck = unlucky(mine, busy, robust, speed.seconds(falls), speed.seconds(stays), clean)
                cells.append(f"{clock(once * mine * luck)} ({chunk})")
            hours = once * options.images / 3600
            print(f"| {name} | `{suite}` | {forwards:,.1f} / {backwards:,.1f} | {hours:,.2g} | {' | '.join(cells)} |")
    print("\nBy image: where the suite succeeds, and where it does not")
    for suite in SUITES:
        falls, stays = per_image(suite, entries)
        print(
            f"- {suite}: {falls.forwards:.1f} forward and {falls.backwards:.1f} backward passes;"
            f" {stays.forwards:,.0f} and {stays.backwards:,.0f}"
        )


if __name__ == "__main__":
    main()
