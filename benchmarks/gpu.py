"""On one GPU, in nine minutes: the tests marked cuda, PGD-100 and `linf-strong` on four networks, and the goals.

    python benchmarks/gpu.py --output gpu.json
    python benchmarks/gpu.py --device cpu --nets resnet18 --n 4 --shorten 50 --output /tmp/try.json     does it run?

Needs the checkout, torch, torchvision, pytest and msgspec (a wheel of it where it is missing); torchattacks and foolbox
are compared where they can be imported. No cell is begun that would not end within --minutes; each finished one is
written at once, and a second call goes on with what is missing. On a CPU the cells that need CUDA are left out.

- *ceiling*: forward and gradient by the image, again and again, in a full batch, on the module that the contender
  searches on and in its precision. *of the ceiling*: image-steps a second by those of the ceiling.
- *float32* is without TF32, for judging always. In *TF32* the attack judges in TF32, too; the number of robust images
  is judged afterwards in float32, as for all contenders.
- *waits*: how often the host waits for the device in a steady step of PGD (torch.cuda.set_sync_debug_mode). On a CPU:
  the operations that would wait on a GPU, without copies to the host.

PGD takes every step on every image (but *as it comes*), from one random start, linf 8/255, steps of 2/255; only
resnet20-robust is trained, so only there the numbers of robust images mean something.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_cells import BARE, COMPILING, ORDER, SUITE, SUITES, WAYS, Bench, cannot, members, pgd, suite, tests
from gpu_nets import NETS, prepared
from measuring import Results, conditions, goal, show_goals
from torch import Tensor, nn


def cells(bench: Bench, nets: list[str]) -> None:
    """Contender after contender, each on all networks."""
    ready: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    took: dict[str, float] = {}  # by the bare loop
    for who in ORDER:
        if why := cannot(who, bench.device):
            bench.left_out.append(f"{who}: {why}")
            continue
        for name in nets:
            if name not in ready:
                ready[name] = prepared(NETS[name], min(NETS[name].batch, bench.n or NETS[name].batch), bench.device)
            of, key, bare = ready[name], {"net": name, "contender": who}, took.get(name, 0.0)
            if who in SUITES:
                attacks = members(bench.shorten)
                looks = sum(a.likely_looks / (1 if a.needs == "gradient" else 3) for _, a in attacks)
                cost = bare * looks * bench.shorten / 100
                bench.cell(key, [str(each) for each in attacks], cost, partial(suite, bench, SUITES[who], *of))
                continue
            cost = 2 * bare + (COMPILING if who in WAYS and WAYS[who].compiled else 0)
            entry = bench.cell(key, WAYS.get(who), cost, partial(pgd, bench, who, *of))
            if who == BARE and entry is not None:
                took[name] = entry["seconds"]


def goals(name: str, entries: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What the project has promised of these numbers, where they have been measured."""
    found, full = [], {who: entries[who] for who, way in WAYS.items() if who in entries and not way.retire}
    for who, entry in full.items():
        found.append(goal(f"{name}, {who}: ceiling / image-steps a second", 1 / entry["of_ceiling"], 1 / 0.6))
        if entry["waits"] is not None:
            found.append(goal(f"{name}, {who}: waits in a steady step", sum(entry["waits"].values()), 0))
    fast = [entry["seconds"] for who, entry in full.items() if WAYS[who].precision == "bfloat16"]
    if fast and BARE in entries:
        ratio = min(fast) / entries[BARE]["seconds"]
        found.append(goal(f"{name}: the best bfloat16 search / bare loop, in seconds", ratio, 0.4))
    if entries.keys() >= SUITES.keys():
        exact, rough = (entries[who] for who in SUITES)
        more = (rough["robust"] - exact["robust"]) / exact["n"]
        found.append(goal(f"{name}, {SUITE}: robust accuracy, bfloat16 search - float32 search", more, 0.001))
    return found


def show(name: str, entries: dict[str, dict[str, Any]]) -> None:
    """The contenders of a network as a markdown table."""
    n = next(iter(entries.values()))["n"]
    print(f"\n### {name}, n = {n}, one batch\n")
    print("| contender | seconds | / bare loop | image-steps a second | of the ceiling | waits a step | robust |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for who, entry in entries.items():
        bare = entries[BARE]["seconds"] if BARE in entries else float("nan")
        rates = (
            f"{entry['seconds'] / bare:.2f} | {entry['rate']:,.0f} | {entry['of_ceiling']:.0%}"
            if "rate" in entry
            else "| |"
        )
        waits = "" if entry.get("waits") is None else f"{sum(entry['waits'].values()):.1f}"
        print(f"| {who} | {entry['seconds']:.2f} | {rates} | {waits} | {entry['robust']} |")
    for who, entry in list(entries.items())[::-1]:
        if entry.get("waits"):
            print(f"\nWaits of *{who}*: " + ", ".join(f"{line} {count:g}" for line, count in entry["waits"].items()))
            break


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--n", type=int, help="fewer images, to try the script out; the numbers then say little")
    parser.add_argument("--shorten", type=int, default=1, help="1 / so many of all steps, to try the script out")
    parser.add_argument("--no-tests", action="store_true", help="without pytest -m cuda")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    options = parser.parse_args(None if words is None else list(words))
    until = time.perf_counter() + 60 * options.minutes - 10  # tables and goals, too, take their time

    device = torch.device(options.device)
    where = conditions(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        where |= {"memory": properties.total_memory, "multiprocessors": properties.multi_processor_count}
        where |= {"cudnn": torch.backends.cudnn.version()}
    bench = Bench(device, Results(options.output), until, options.n, options.shorten, where)
    if not options.no_tests:
        bench.cell({"tests": "pytest -m cuda"}, None, 30, lambda: tests(bench))
    cells(bench, options.nets)

    print(f"Device: {where['device']}. Versions: {where['versions']}.")
    for entry in bench.results.entries:
        if "tests" in entry["key"]:
            print(f"\npytest -m cuda: exit status {entry['rc']}, {' '.join(entry['said'][-1:])}")
    promised = []
    for name in options.nets:
        entries = {e["key"]["contender"]: e for e in bench.results.entries if e["key"].get("net") == name}
        if entries:
            show(name, {who: entries[who] for who in ORDER if who in entries})
            promised += goals(name, entries) if device.type == "cuda" else []
    print()
    show_goals(promised)
    for text in bench.left_out:
        print(f"- left out: {text}")
    print(f"\nWritten to {options.output}")


if __name__ == "__main__":
    main()
