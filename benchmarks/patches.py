"""Patches of 10 % of the image's area: how often images with one are read as the target, beside controls.

    python benchmarks/patches.py --threads 1 --data-root DIR                  all of it (about 15 minutes)
    python benchmarks/patches.py --steps 5 --n 20 --nets road-signs/cnn --output /tmp/try.json    does it run?

Each patch (a circle, scale 0.8 to 1.2, up to 20 degrees either way, anywhere in the image) is fitted by `PatchAttack`
on at most 4,000 training images, at even distances in the set's order, and judged on the first n test images, rounded
to 8 bits. A success counts only where the clean image is read right and is not of the target class; 95 % Wilson
intervals. The controls lie in the same places. The networks of GTSRB and CIFAR-10 are trained once, into --cache: DIR
holds gtsrb32.npz, cifar10-5k.npz (4,000 training images, 400 of them held out, 1,000 test images), pneumoniamnist.npz
(chest X-rays), and torchvision's folder FashionMNIST.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measuring import Results, conditions

from robustlab import load_data, load_model, train
from robustlab.base.words import interval, percent
from robustlab.data import Loaded
from robustlab.models.classifier import Classifier
from robustlab.physical import PatchAttack, measure_patch, patch_controls
from robustlab.training import Recipe
from robustlab.worlds.road_signs import CLASSES

SHARE, FITTED = 0.10, 4000


class Net(NamedTuple):
    """data: a name, or a file in the data root. target: a class number. epochs: of the training, 0 for the zoo's."""

    data: str
    target: int
    name: str
    epochs: int = 0


NETS = {
    "road-signs/cnn": Net("road-signs", CLASSES.index("speed limit 45"), "speed limit 45"),
    "road-signs/cnn-robust": Net("road-signs", CLASSES.index("speed limit 45"), "speed limit 45"),
    "gtsrb/cnn": Net("gtsrb32.npz", 14, "stop", 3),
    "cifar10/cnn": Net("cifar10-5k.npz", 3, "cat", 25),
    "fashion-mnist/cnn": Net("fashion-mnist", 8, "bag", 1),
    "x-rays/cnn": Net("pneumoniamnist.npz", 0, "normal", 5),
}

FOLDERS = {"fashion-mnist": "FashionMNIST"}  # of torchvision's sets, in the data root


def network(name: str, cache: Path, root: Path) -> tuple[Classifier, str]:
    """The network and the name of its data."""
    net = NETS[name]
    if not net.epochs:
        return load_model(name), net.data
    data = f"npz:{(root / net.data).resolve()}" if net.data.endswith(".npz") else net.data
    folder = cache / name.replace("/", "-")
    recipe = Recipe(epochs=net.epochs, lr=0.1)
    train("cnn", data, recipe, output=folder, name=name, device="cpu", resume=True, data_root=root)
    return load_model(str(folder / "model.toml")), data


def evenly(data: str, most: int, root: Path) -> Loaded:
    """At most so many training images from the whole set, which may lie sorted by class."""
    if data == "road-signs":
        return load_data(data, "train", limit=most).loaded()
    whole = load_data(data, "train", data_root=root)
    return whole.take(torch.arange(0, len(whole), math.ceil(len(whole) / most))).loaded()


def measure(model: Classifier, data: str, root: Path, target: int, seed: int, steps: int, n: int) -> dict[str, Any]:
    where, fitted, test = (
        conditions(),
        evenly(data, FITTED, root),
        load_data(data, "test", limit=n, data_root=root).loaded(),
    )
    attack = PatchAttack(target=target, share=SHARE, steps=steps)
    began = time.perf_counter()
    patch = attack.fit(model, fitted.images, fitted.labels, fitted.ids, seed=seed)
    seconds = time.perf_counter() - began
    controls = patch_controls(patch, seed, fitted.images, fitted.labels, fitted.ids)
    found = measure_patch(model, patch, test.images, test.labels, test.ids, seed, controls)
    return {"seconds": seconds, "images": len(fitted), **found, "conditions": where}


def show(entries: list[dict[str, Any]]) -> None:
    print("\n| network, clean accuracy | target | seed | patch | read as the target | n | read wrong | fit |")
    print("|---|---|--:|---|--:|--:|--:|--:|")
    for entry in entries:
        key = entry["key"]
        for name, found in entry["found"].items():
            success, first = found["success"], name == "patch"
            clean = f"{percent(entry['clean'])} ({interval(entry['clean'])})"
            cells = [f"`{key['net']}`, {clean}", NETS[key["net"]].name, key["seed"]] if first else ["", "", ""]
            cells += [name, f"{percent(success)} ({interval(success)})", success["n"], percent(found["misread"])]
            print("| " + " | ".join(map(str, [*cells, f"{entry['seconds']:.0f} s" if first else ""])) + " |")


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-root", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=Path("reports") / "patches")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "patches.json")
    options = parser.parse_args(None if words is None else list(words))
    torch.set_num_threads(options.threads)
    results, entries = Results(options.output), []
    for seed in options.seeds:
        for name in options.nets:
            if NETS[name].epochs and not (options.data_root / FOLDERS.get(NETS[name].data, NETS[name].data)).exists():
                print(f"{name} is left out: {options.data_root / NETS[name].data} is not there.", file=sys.stderr)
                continue
            model, data = network(name, options.cache, options.data_root)
            key = {"net": name, "target": NETS[name].target, "seed": seed}
            spec = {"steps": options.steps, "n": options.n, "share": SHARE, "model": model.hash()}
            if (entry := results.find(key, spec)) is None:
                found = measure(model, data, options.data_root, NETS[name].target, seed, options.steps, options.n)
                entry = {"key": key, "spec": spec, **found}
                results.put(entry)
            entries.append(entry)
    show(entries)


if __name__ == "__main__":
    main()
