"""Preprocessing defenses: what each seems to do, and what it does against an attack that knows it.

    python benchmarks/preprocessing.py --threads 1                            all of it (some 15 CPU minutes)
    python benchmarks/preprocessing.py --eps 2/255 --defenses jpeg --n 200    some of it
    python benchmarks/preprocessing.py --n 10 --output /tmp/try.json          does it run?

`robustlab attack road-signs/cnn --defense NAME --suite linf-standard` at two budgets, seed 0, first test images. Four
numbers of the same images: the bare model under the suite; the model behind the defense shown what the suite crafts on
the bare model, with every step; the same under the suite, which sees the defense (JPEG: BPDA with a smooth JPEG, bit
depth: BPDA with the identity, median: its own gradient, random resize: gradients averaged over 20 draws, 10 draws
judge); and what withstands both. 95 % Wilson intervals. What is measured is kept; a run that is cut short goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measuring import Results, conditions

from robustlab import evaluate, load_model
from robustlab.attacks.suite import load_suite
from robustlab.base.words import interval, percent
from robustlab.runs import results

NET, SUITE = "road-signs/cnn", "linf-standard"
DEFENSES = ("jpeg", "bit-depth", "median", "random-resize")
BUDGETS = ("8/255", "2/255")


def measure(defense: str, eps: str, n: int, cache: Path) -> dict[str, Any]:
    where, began = conditions(), time.process_time()
    run = evaluate(
        NET,
        "road-signs",
        load_suite(SUITE, eps=eps),
        defense=defense,
        limit=n,
        output=cache / f"{defense}-{eps.replace('/', '-')}-{n}",
        resume=True,
        chunk_size=100,
        audit=0,
        keep=0,
        curve=[],
        device="cpu",
    )
    bare, behind = results(run)["results"]
    return {
        "clean": {"bare": bare["clean_accuracy"], "behind": behind["clean_accuracy"]},
        "bare": bare["robust_accuracy"],
        "unaware": behind["defense"]["unaware"],
        "aware": behind["defense"]["aware"],
        "gap": behind["defense"]["gap"],
        "robust": behind["robust_accuracy"],
        "defense": run.info["config"]["models"][1]["defense"],
        "cpu_seconds": time.process_time() - began,  # of this call: less where it went on with a run
        "conditions": where,
    }


def show(entries: list[dict[str, Any]]) -> None:
    print("\n| eps | defense | clean: bare, behind | bare | attack does not know it | attack knows it | both | n |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for entry in entries:
        clean = ", ".join(percent(entry["clean"][key]) for key in ("bare", "behind"))
        shares = [f"{percent(entry[key])} ({interval(entry[key])})" for key in ("bare", "unaware", "aware", "robust")]
        cells = [entry["key"]["eps"], entry["key"]["defense"], clean, *shares, entry["robust"]["n"]]
        print("| " + " | ".join(map(str, cells)) + " |")


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--eps", nargs="+", default=BUDGETS)
    parser.add_argument("--defenses", nargs="+", default=DEFENSES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("reports") / "preprocessing")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "preprocessing.json")
    options = parser.parse_args(None if words is None else list(words))
    torch.set_num_threads(options.threads)
    stored, entries, model = Results(options.output), [], load_model(NET).hash()
    spec = {"suite": SUITE, "model": model, "seed": 0}
    for eps, defense in product(options.eps, options.defenses):
        key = {"defense": defense, "eps": eps, "n": options.n}
        if (entry := stored.find(key, spec)) is None:
            entry = {"key": key, "spec": spec, **measure(defense, eps, options.n, options.cache)}
            stored.put(entry)
        entries.append(entry)
    show(entries)


if __name__ == "__main__":
    main()
