"""How many images crafted on one network fool another: MI, NI, SI, DI, TI and an ensemble, beside torchattacks.

    python benchmarks/transfer.py                                   the zoo, n = 500 (minutes)
    python benchmarks/transfer.py --n 20 --output /tmp/try.json     does it run?

linf 8/255, 10 steps of eps / 10, decay 1, on the samples that all networks classify right. Each network of the zoo is
the surrogate for every other one; the ensemble (the mean of the logits) is that of all networks but the target.
The parameters are the same for both: torchattacks' DI and TI get the decay of 1 that robustlab has by default, its TI
no input diversity and the same kernel (5 pixels, standard deviation 1); the ensemble is handed to its MI-FGSM as a
model. Success is judged here, by one look of the plain target in float32 at each image, inside ball and box.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from measuring import Results, conditions, goal, show_goals
from torch import Tensor, nn

from robustlab import attacks, load_data, load_model
from robustlab.base.intervals import wilson
from robustlab.models.ensemble import Ensemble
from robustlab.models.zoo import zoo_names

EPS, STEPS, BATCH = 8 / 255, 10, 128
METHODS = {"MI": "MIFGSM", "NI": "NIFGSM", "SI-NI": "SINIFGSM", "DI": "DIFGSM", "TI": "TIFGSM"}
ENSEMBLE = "MI, ensemble"
SLACK = 0.02  # of the success rate: what the random draws of DI may move
Craft = Callable[[nn.Module, Tensor, Tensor], Tensor]


def ours(name: str) -> Craft:
    attack = getattr(attacks, METHODS[name])(eps=EPS, steps=STEPS)

    def craft(surrogate: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        ids = torch.arange(len(x))
        # crafted on the surrogate alone with every step, whoever is then shown the images
        return attack.run(surrogate, x, y, ids=ids, batch_size=BATCH, surrogate=surrogate).images

    return craft


def theirs(name: str) -> Craft:
    import torchattacks

    more: dict[str, Any] = {"decay": 1.0}
    if name == "TI":
        more |= {"len_kernel": 5, "nsig": 3, "diversity_prob": 0.0}

    def craft(surrogate: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        attack = getattr(torchattacks, METHODS[name])(surrogate, eps=EPS, alpha=EPS / STEPS, steps=STEPS, **more)
        torch.manual_seed(0)
        return torch.cat([attack(*part).detach() for part in zip(x.split(BATCH), y.split(BATCH), strict=True)])

    return craft


def fooled(target: nn.Module, found: Tensor, x: Tensor, y: Tensor) -> int:
    with torch.no_grad():
        wrong = torch.cat([target(part).argmax(1) for part in found.split(BATCH)]) != y
    inside = (found - x).flatten(1).abs().amax(1) <= EPS + 1e-6
    return int((wrong & inside & (found.flatten(1).amin(1) >= 0) & (found.flatten(1).amax(1) <= 1)).sum())


def measure(craft: Craft, name: str, nets: dict[str, nn.Module], x: Tensor, y: Tensor) -> dict[str, Any]:
    """Fooled samples by "surrogate > target", and the seconds of crafting."""
    where, pairs, seconds = conditions(), {}, 0.0
    jobs: list[tuple[str, nn.Module, list[str]]]
    if name == ENSEMBLE:
        jobs = [("all others", Ensemble([net for o, net in nets.items() if o != t]), [t]) for t in nets]
    else:
        jobs = [(s, net, [t for t in nets if t != s]) for s, net in nets.items()]
    for surrogate, net, targets in jobs:
        began = time.perf_counter()
        found = craft(net.eval(), x, y)
        seconds += time.perf_counter() - began
        for target in targets:
            pairs[f"{surrogate} > {target}"] = fooled(nets[target], found, x, y)
    return {"pairs": pairs, "n": len(x), "seconds": seconds, "conditions": where}


def pooled(entry: dict[str, Any]) -> float:
    return sum(entry["pairs"].values()) / (entry["n"] * len(entry["pairs"]))


def show(entries: dict[tuple[str, str], dict[str, Any]]) -> None:
    n = next(iter(entries.values()))["n"]
    print(f"\n### Success rate over all pairs, and the seconds of crafting; n = {n} samples a pair\n")
    packages = list(dict.fromkeys(package for package, _ in entries))
    print("| method |" + "".join(f" {package} | seconds |" for package in packages))
    print("|---|" + "--:|--:|" * len(packages))
    goals = []
    for name in [*METHODS, ENSEMBLE]:
        cells = [entries[package, name] for package in packages]
        print(f"| {name} |" + "".join(f" {pooled(e):.3f} | {e['seconds']:.1f} |" for e in cells))
        if len(cells) > 1:
            goals.append(goal(f"{name}: success below {packages[1]}'s", pooled(cells[1]) - pooled(cells[0]), SLACK))
    print("\n| method | surrogate > target |" + "".join(f" {package} (95 % interval) |" for package in packages))
    print("|---|---|" + "--:|" * len(packages))
    for name in [*METHODS, ENSEMBLE]:
        for pair in entries[packages[0], name]["pairs"]:
            counts = [entries[package, name]["pairs"][pair] for package in packages]
            shown = (f" {k / n:.3f} ({wilson(k, n)[0]:.3f}-{wilson(k, n)[1]:.3f}) |" for k in counts)
            print(f"| {name} | {pair} |" + "".join(shown))
    print()
    show_goals(goals)


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=zoo_names(), help="at least two networks of the zoo")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "transfer.json")
    options = parser.parse_args(None if words is None else list(words))
    if len(options.nets) < 2:
        parser.error("--nets needs at least two networks")

    torch.set_num_threads(options.threads)
    results = Results(options.output)
    nets: dict[str, Any] = {name: load_model(name).eval() for name in options.nets}
    data = load_data("road-signs", "test", limit=options.n)
    with torch.no_grad():
        answers = [torch.cat([net(part).argmax(1) for part in data.images.split(BATCH)]) for net in nets.values()]
    right = torch.stack([answer == data.labels for answer in answers]).all(0)
    x, y = data.images[right], data.labels[right]
    entries = {}
    for package, make in (("robustlab", ours), ("torchattacks", theirs)):
        if package != "robustlab" and importlib.util.find_spec(package) is None:
            print(f"{package} is not installed (see benchmarks/README.md).", file=sys.stderr)
            continue
        for name in [*METHODS, ENSEMBLE]:
            key = {"contender": package, "method": name, "n": options.n, "nets": options.nets}
            spec = {"models": [net.hash() for net in nets.values()]}
            if (entry := results.find(key, spec)) is None:
                entry = {"key": key, "spec": spec, **measure(make(name.removesuffix(", ensemble")), name, nets, x, y)}
                print(f"  {package} {name}: {entry['seconds']:.1f} s", file=sys.stderr)
                results.put(entry)
            entries[package, name] = entry
    show(entries)
    print(f"\nWritten to {options.output}")


if __name__ == "__main__":
    main()
