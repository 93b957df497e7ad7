"""Stickers on the stop sign: every target, three seeds, controls, no expectation, and what a fit costs.

    python benchmarks/physical.py                                    all of it (about 20 minutes on 2 cores)
    python benchmarks/physical.py --steps 20 --n 50 --output /tmp/try.json    does it run?

Each sticker is fitted by `RP2` in a searched mask of at most 20 % of the face, and judged on n scenes that no fit has
seen: in all of the world's scenes, and near (up to 20 m and 30 degrees of yaw). A success counts only where the bare
sign is read right. 95 % Wilson intervals. "one scene" is the same fit in the same mask without the expectation.
Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from measuring import Results, conditions

from robustlab import load_model
from robustlab.base.words import interval, percent
from robustlab.models.search_copy import make_search_copy
from robustlab.physical import RP2, Sticker, answers, controls, judged
from robustlab.physical.sticker import seen
from robustlab.physical.studies import NEAR
from robustlab.worlds.road_signs import CLASSES, draw, faces

SOURCE, AIM = "stop", "speed limit 45"
NETS = ("road-signs/cnn", "road-signs/cnn-robust")


def judge(model: Any, sticker: Sticker, n: int, seed: int) -> dict[str, Any]:
    return {
        "all": answers(model, sticker, judged(sticker, n, seed)).summary(),
        "near": answers(model, sticker, judged(sticker, n, seed, NEAR)).summary(),
    }


def measure(net: str, target: str, seed: int, steps: int, n: int) -> dict[str, Any]:
    """One fit on a network, judged there; for the default target with controls and without the expectation, too."""
    model, attack = load_model(net), RP2(SOURCE, target, steps=steps)
    start, busy = time.perf_counter(), time.process_time()
    bare = seen(
        faces()[CLASSES.index(SOURCE)], draw(seed, "sticker, copy", torch.arange(32), CLASSES.index(SOURCE)), 32
    )
    searched = make_search_copy(model, bare).module or model  # as a run does
    sticker = attack.fit(searched, seed=seed)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    found = {"sticker": judge(model, sticker, n, seed)}
    if target == AIM:
        single = attack.without_expectation(model, sticker.mask, seed=seed)
        for name, other in {"one scene": single, **controls(sticker, seed)}.items():
            found[name] = judge(model, other, n, seed)
    return {
        "seconds": seconds,
        "cpu_seconds": busy,
        "steps_a_second": attack.all_steps / busy,
        "images_a_second": attack.all_steps * attack.scenes / busy,
        "found": found,
        "conditions": conditions(),
    }


def show(entries: list[dict[str, Any]], n: int) -> None:
    print("\n| network | target | seed | sticker | success, all scenes | near | read wrong, near | fit, CPU |")
    print("|---|---|--:|---|---|---|--:|--:|")
    for entry in entries:
        key = entry["key"]
        for name, found in entry["found"].items():
            near, every = found["near"], found["all"]
            cells = [f"{percent(share)} ({interval(share)})" for share in (every["success"], near["success"])]
            cost = f"{entry['cpu_seconds']:.0f} s" if name == "sticker" else ""
            cells += [percent(near["misread"]), cost]
            print(f"| {key['net']} | {key['target'] or 'any'} | {key['seed']} | {name} | {' | '.join(cells)} |")
    print(f"\nn = {n} scenes each, of which those count in which the bare sign is read right.")


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--targets", nargs="*", default=[name for name in CLASSES if name != SOURCE])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "physical.json")
    options = parser.parse_args(None if words is None else list(words))
    torch.set_num_threads(options.threads)
    results = Results(options.output)
    wanted = [(NETS[0], AIM, seed) for seed in (0, 1, 2)] + [(NETS[1], AIM, 0), (NETS[0], "", 0)]
    wanted += [(NETS[0], target, 0) for target in options.targets if target != AIM]
    entries = []
    for net, target, seed in wanted:
        key = {"net": net, "target": target, "seed": seed}
        spec = {"steps": RP2(steps=options.steps).all_steps, "n": options.n, "model": load_model(net).hash()}
        if (entry := results.find(key, spec)) is None:
            entry = {"key": key, "spec": spec, **measure(net, target, seed, options.steps, options.n)}
            results.put(entry)
        entries.append(entry)
        show([entry], options.n)
    show(entries, options.n)


if __name__ == "__main__":
    main()
