"""Detectors of adversarial images before an attacker who does not know them and one who does: AUROC, noticed, passed.

    python benchmarks/detectors.py                                   n = 500 (more than 10 minutes of a core)
    python benchmarks/detectors.py --n 20 --output /tmp/try.json     does it run?

Each entry is a run of `robustlab attack NET --attack pgd:steps=20 --detector NAME`: linf, the budget of the data set,
seed 0. The attacker who does not know the detector stops at the first success or takes every step; the one who knows
takes 50 more steps of selective gradient descent. Controls: random noise of the same size, and a random score.
No other maintained library evaluates a detector against an attack that knows it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from measuring import NETS, Results, conditions, network

from robustlab.attacks.suite import load_suite
from robustlab.defenses.detectors import DETECTORS
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.runs.detections import RANDOM, SHORT, detections

SHOWN = ["road-signs/cnn", "fashion-mnist/cnn", "road-signs/cnn-robust"]
ATTACK = "pgd:steps=20"


def measure(model: Any, data: Any, eps: float, detector: str) -> dict[str, Any]:
    """The rows of the run's section, and the seconds of the process."""
    where, began = conditions(), time.process_time()
    quiet = Listener(say=lambda text: None)
    with tempfile.TemporaryDirectory() as folder:
        run = evaluate(
            [model],
            data,
            load_suite(attacks=[ATTACK], eps=str(eps)),
            detector=[detector],
            output=Path(folder) / "run",
            listener=quiet,
            audit=0,
            keep=0,
            curve=[],
            device="cpu",
        )
    found = detections(run.info)
    assert found is not None
    return {"rows": found["rows"], "cpu_seconds": time.process_time() - began, "conditions": where}


def show(entries: dict[tuple[str, str], dict[str, Any]]) -> None:
    print("\n| network | detector | false alarms | attacker | AUROC | noticed | wrong | wrong and unnoticed |")
    print("|---|---|--:|---|--:|--:|--:|--:|")
    for (net, _), entry in entries.items():
        for row in entry["rows"]:
            cells = [_percent(row["fpr"]), SHORT[row["attacker"]], _share(row["auroc"], 1, 3)]
            cells += [_percent(row["tpr"]), _percent(row["wrong"]), _percent(row["unnoticed"])]
            print("| " + " | ".join([net, row["detector"], *cells]) + " |")
    rows = [row for entry in entries.values() for row in entry["rows"] if row["detector"] == RANDOM]
    outside = sum(not row["auroc"]["low"] <= 0.5 <= row["auroc"]["high"] for row in rows)
    print(f"\nOf {len(rows)} random scores {outside} have an interval of the AUROC without 0.5.")


def _percent(share: dict[str, Any]) -> str:
    return _share(share, 100, 1) if share["n"] else "none"


def _share(share: dict[str, Any], scale: float, digits: int) -> str:
    if share["value"] is None:
        return "none"
    value, low, high = (f"{scale * share[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low}-{high})"


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=SHOWN, metavar="NET")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("reports/benchmark-nets"), help="where networks are kept")
    parser.add_argument("--data-root", type=Path, help="where the data sets lie")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "detectors.json")
    options = parser.parse_args(None if words is None else list(words))

    torch.set_num_threads(options.threads)
    results, entries = Results(options.output), {}
    for name in options.nets:
        model, data = network(name, options.n, options.cache, options.data_root)
        for detector in DETECTORS:
            key = {"net": name, "detector": detector, "n": options.n}
            spec = {"model": model.hash(), "data": data.hash, "attack": ATTACK, "eps": NETS[name].eps}
            if (entry := results.find(key, spec)) is None:
                entry = {"key": key, "spec": spec, **measure(model, data, NETS[name].eps, detector)}
                print(f"  {name}, {detector}: {entry['cpu_seconds']:.0f} CPU seconds", file=sys.stderr)
                results.put(entry)
            entries[name, detector] = entry
    show(entries)
    print(f"\nWritten to {options.output}")


if __name__ == "__main__":
    main()
