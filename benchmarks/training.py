"""What adversarial training costs: seconds an epoch, beside plain training and a bare loop of PGD-AT.

    python benchmarks/training.py                                                four minutes on two idle cores
    python benchmarks/training.py --images 256 --repeats 1 --output /tmp/try.json     does it run?

One epoch each, of the same cnn on the same images (28 x 28, one channel, drawn from a seed; only their number counts)
in batches of 128, float32, SGD with Nesterov momentum, no augmentation. The contenders take turns; medians. Seconds are
those of the steps; what robustlab measures after an epoch is left out. `--threads` is of one process; two processes
share the batches under torchrun, and the `--cores`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measuring import Results, conditions, goal, show_goals
from torch import Tensor, nn

from robustlab.base.processes import World
from robustlab.data import Data
from robustlab.models.cnn import cnn
from robustlab.threat.model import ThreatModel
from robustlab.training import Recipe, train
from robustlab.training.session import Moment, Told

EPS, STEPS, BATCH, LR = 0.1, 10, 128, 0.02
SHAPE, CLASSES = (1, 28, 28), 10


@dataclass(frozen=True)
class Contender:
    """defense: of robustlab's recipe; None: a bare loop with so many steps of PGD. processes: under torchrun."""

    defense: dict[str, Any] | None
    steps: int = 0
    processes: int = 1


PGD_AT = {"method": "pgd-at", "eps": EPS, "steps": STEPS}
CONTENDERS = {
    "bare loop, plain": Contender(None),
    "bare loop, PGD-AT": Contender(None, STEPS),
    "plain": Contender({}),
    "fast-at": Contender({"method": "fast-at", "eps": EPS}),
    "pgd-at": Contender(PGD_AT),
    "trades": Contender({"method": "trades", "eps": EPS, "steps": STEPS}),
    "plain, two processes": Contender({}, processes=2),
    "pgd-at, two processes": Contender(PGD_AT, processes=2),
}


def images(n: int, split: str) -> Data:
    generator = torch.Generator().manual_seed(n)
    x, y = torch.rand(n, *SHAPE, generator=generator), torch.randint(0, CLASSES, (n,), generator=generator)
    names = tuple(str(k) for k in range(CLASSES))
    return Data("drawn", split, x, y, torch.arange(n), names, f"drawn-{n}", ThreatModel(eps=EPS))


class Normalised(nn.Module):
    """The network behind a normalisation, as robustlab's classifier has one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - 0.5) / 0.25)


def bare(data: Data, steps: int) -> float:
    """Seconds of an epoch as people write it; steps: of PGD, 0 for plain training."""
    torch.manual_seed(0)
    model = Normalised(cnn(CLASSES, SHAPE)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    began = time.perf_counter()
    for index in torch.randperm(len(data)).split(BATCH):
        x, y = data.images[index], data.labels[index]
        if steps:
            model.eval()
            near = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
            for _ in range(steps):
                near.requires_grad_(True)
                (gradient,) = torch.autograd.grad(F.cross_entropy(model(near), y), near)
                near = near.detach() + EPS / 4 * gradient.sign()
                near = torch.min(torch.max(near, x - EPS), x + EPS).clamp(0, 1)
            model.train()
            x = near
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return time.perf_counter() - began


def ours(data: Data, defense: dict[str, Any]) -> float:
    """Seconds of the steps of an epoch by `robustlab.train`, in this process or in all of torchrun's."""
    last: list[Moment] = []
    recipe = Recipe(epochs=1, batch_size=BATCH, lr=LR, shift=0, warmup=0.0, check_size=4, defense=defense)
    with tempfile.TemporaryDirectory() as folder:
        output, told = Path(folder) / "out", Told(batch=last.append)
        train("cnn", (data, images(16, "val")), recipe, output=output, device="cpu", told=told, drawn=False)
    return last[-1].seconds if last else 0.0


def measured(name: str, n: int, threads: int, cores: int) -> float:
    """Seconds an epoch of a contender."""
    contender, data = CONTENDERS[name], images(n, "train")
    if contender.processes == 1:
        torch.set_num_threads(threads)
        return bare(data, contender.steps) if contender.defense is None else ours(data, contender.defense)
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(contender.processes)]
    words = ["--worker", name, "--images", str(n), "--threads", str(max(1, cores // contender.processes))]
    done = subprocess.run([sys.executable, *several, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def worker(name: str, n: int, threads: int) -> None:
    """One of torchrun's processes; the first one prints the seconds."""
    defense = CONTENDERS[name].defense
    assert defense is not None
    torch.set_num_threads(threads)
    seconds = ours(images(n, "train"), defense)
    if World.join().first:
        print(seconds)


def show(entries: list[dict[str, Any]]) -> None:
    """Medians as a table, and the goals."""
    seconds: dict[str, list[float]] = {}
    for entry in entries:
        seconds.setdefault(entry["key"]["contender"], []).append(entry["seconds"])
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print("\n| contender | seconds an epoch | min - max | plain epochs |\n|---|--:|--:|--:|")
    for name, values in seconds.items():
        epochs = f"{median[name] / median['plain']:.2f}" if "plain" in median else ""
        print(f"| {name} | {median[name]:.2f} | {min(values):.2f} - {max(values):.2f} | {epochs} |")
    if {"plain", "pgd-at", "bare loop, PGD-AT"} <= median.keys():
        cost = median["pgd-at"] / median["plain"] / (STEPS + 1)
        show_goals(
            [
                goal(f"pgd-at / {STEPS + 1} plain epochs", cost, 1.10),
                goal("pgd-at / bare loop", median["pgd-at"] / median["bare loop, PGD-AT"], 1.10),
            ]
        )


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--images", type=int, default=4096, help="images an epoch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of one process")
    parser.add_argument("--cores", type=int, default=2, help="that two processes share")
    parser.add_argument("--minutes", type=float, default=3.7, help="no turn begins that would end later")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "training.json")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args(None if words is None else list(words))
    if options.worker:
        worker(options.worker, options.images, options.threads)
        return

    began, results, where = time.perf_counter(), Results(options.output), conditions()
    print(json.dumps({key: where[key] for key in ("when", "device", "load_at_start", "versions")}))
    spec = {"n": options.images, "batch": BATCH, "steps": STEPS, "threads": options.threads, "cores": options.cores}
    took: dict[str, float] = {}
    for name in options.contenders:  # the first epoch of a process is slower
        if CONTENDERS[name].processes == 1:
            measured(name, 2 * BATCH, options.threads, options.cores)
    for repeat in range(options.repeats):
        turn = repeat % len(options.contenders)
        for name in options.contenders[turn:] + options.contenders[:turn]:
            key = {"contender": name, "repeat": repeat}
            if results.find(key, spec) is not None:
                continue
            if time.perf_counter() - began + took.get(name, 0.0) > 60 * options.minutes:
                print(f"  {name}, repeat {repeat}: no time left; the same command goes on", file=sys.stderr)
                continue
            start = time.perf_counter()
            seconds = measured(name, options.images, options.threads, options.cores)
            took[name] = time.perf_counter() - start
            results.put({"key": key, "spec": spec, "seconds": seconds, "conditions": where})
            print(f"  {name}, repeat {repeat}: {seconds:.2f} s", file=sys.stderr)
    keys = [{"contender": name, "repeat": r} for name in options.contenders for r in range(options.repeats)]
    show([entry for key in keys if (entry := results.find(key, spec)) is not None])


if __name__ == "__main__":
    main()
