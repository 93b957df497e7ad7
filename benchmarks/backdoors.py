"""Filters of poisoned training images on synthetic representations, beside ART's.

    python benchmarks/backdoors.py                           50,000 representations of dimension 4,096, two threads
    python benchmarks/backdoors.py --n 2000 --d 256 --output /tmp/try.json       does it run?

Ten classes alike; each is Gaussian with a falling spectrum, and 5 % of one class are shifted. All contenders get the
same array. robustlab's filters are called as they are; ART's by the functions in which its defences compute:
`SpectralSignatureDefense.spectral_signature_scores` on each class, as `detect_poison` calls it, and
`reduce_dimensionality` and `cluster_activations` of `ActivationDefence` with their defaults (PCA to 10, 2-means), the
smaller cluster counted as suspicious. AUROC is measured inside the class that has poisons. Each contender runs once, in
a process of its own, whose peak memory is read at its end; that of the representations alone is given beside it. One
that fails, or has not ended after 15 minutes, is named with its last message. ART is left out where it is not
installed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from measuring import Results, conditions, goal, show_goals
from torch import Tensor

from robustlab.defenses.filters import Seen, filter_class, measure_filter

OURS = ("spectral", "spectre", "robust-z", "activation-clustering")
PEERS = ("ART: spectral", "ART: activation-clustering")
EPS, CLASSES, SHIFT = 0.05, 10, 8.0
_LIMIT = 900  # seconds, for each contender


def made(n: int, d: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Representations (n, d) float32, labels and which are poisoned (of class 0). Chunked by class."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.empty(n, d)
    for part in x.split(5000):
        part.normal_(generator=draws)
    x *= torch.arange(1, d + 1) ** -0.25
    labels = torch.arange(n) % CLASSES
    poisoned = (labels == 0) & (torch.rand(n, generator=draws) < EPS)
    x[poisoned, 10] += SHIFT
    return x, labels, poisoned


def art_scores(name: str, x: Tensor, labels: Tensor) -> Tensor:
    """What ART computes for each class of the array."""
    import numpy as np
    from art.defences.detector.poison import SpectralSignatureDefense
    from art.defences.detector.poison.activation_defence import cluster_activations, reduce_dimensionality

    scores = torch.zeros(len(x))
    for label in range(CLASSES):
        where = labels == label
        own = x[where].numpy()
        if name == "ART: spectral":
            found = SpectralSignatureDefense.spectral_signature_scores(own)
            scores[where] = torch.as_tensor(np.asarray(found)).flatten().float()
        else:
            reduced = reduce_dimensionality(own, nb_dims=10, reduce="PCA")
            clusters = torch.as_tensor(cluster_activations([reduced], nb_clusters=2, nb_dims=10, reduce="PCA")[0][0])
            scores[where] = (clusters == clusters.bincount().argmin()).float()
    return scores


def contender(name: str, n: int, d: int, seed: int, threads: int) -> dict[str, Any]:
    """One contender, in this process."""
    torch.set_num_threads(threads)
    x, labels, poisoned = made(n, d, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    clock, cpu = time.perf_counter(), time.process_time()
    if name in OURS:
        found = filter_class(name)()(Seen(labels, representations=x))
        scores, removed = found.scores, found.removed
    else:
        scores, removed = art_scores(name, x, labels), torch.zeros(n, dtype=torch.bool)
    seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
    own = labels == 0
    measured = measure_filter(scores[own], removed[own], poisoned[own])
    area: dict[str, Any] = dict(measured["auroc"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_gb": peak, "data_gb": before, "auroc": area}


def in_own_process(command: list[str]) -> dict[str, Any]:
    """What a contender prints in its own process, or why it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {_LIMIT} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--d", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "backdoors.json")
    parser.add_argument("--one", choices=[*OURS, *PEERS], help=argparse.SUPPRESS)
    args = parser.parse_args()
    settings = {key: getattr(args, key) for key in ("n", "d", "seed", "threads")}
    if args.one:
        print(json.dumps(contender(args.one, **settings)))
        return
    results = Results(args.output)
    print("| contender | seconds | CPU seconds | peak GB (data alone) | AUROC |\n|---|---|---|---|---|", flush=True)
    for name in args.only:
        if name in PEERS and find_spec("art") is None:
            print(f"| {name} | not installed | | | |")
            continue
        key = {"contender": name}
        entry = results.find(key, settings)
        if entry is None:
            about = conditions()
            flags = [text for key_, value in settings.items() for text in (f"--{key_}", str(value))]
            command = [sys.executable, __file__, "--one", name, *flags]
            entry = {"key": key, "spec": settings, "conditions": about, **in_own_process(command)}
            results.put(entry)
        if "failed" in entry:
            print(f"| {name} | failed: {entry['failed']} | | | |", flush=True)
            continue
        area = entry["auroc"]
        peak = f"{entry['peak_gb']:.2f} ({entry['data_gb']:.2f})"
        value = f"{area['value']:.3f} ({area['poisoned']} of {area['poisoned'] + area['clean']})"
        print(f"| {name} | {entry['seconds']:.1f} | {entry['cpu_seconds']:.1f} | {peak} | {value} |", flush=True)
    if (args.n, args.d) == (50_000, 4096):
        stored = {name: results.find({"contender": name}, settings) for name in OURS}
        limits = (("seconds", 120), ("peak_gb", 4))
        show_goals(
            [goal(f"{name}: {of}", entry[of], most) for name, entry in stored.items() if entry for of, most in limits]
        )


if __name__ == "__main__":
    main()
