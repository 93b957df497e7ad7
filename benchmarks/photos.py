"""Stickers on photographs of real stop signs (GTSRB): how often they are read as the target, beside controls.

    python benchmarks/photos.py --threads 1 --data-root DIR               all of it (about 20 minutes)
    python benchmarks/photos.py --steps 5 --seeds 0 --output /tmp/try.json    does it run?

A sticker is fitted by `PhotoAttack` on the training images of stop signs and judged on all 270 test images of them,
rounded to 8 bits: as they are, and under one draw of the camera each. The signs of the test split are others than
those of the training split, so no sign was seen by the fit. A success counts only where the clean image is read right;
95 % Wilson intervals over images. The test images are some 30 of each sign, so the intervals over signs are wider; the
file does not say which image is of which. The corners are the box of the sign, alike for all: a crop's sign fills its
middle, pixel 1 to 31 of 32. The network is trained once, into --cache: DIR holds gtsrb32.npz.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import Results, conditions

from robustlab import load_data, load_model, train
from robustlab.base.words import interval, percent
from robustlab.models.classifier import Classifier
from robustlab.physical import STILL, PhotoAttack, measure_photo
from robustlab.training import Recipe

STOP, TARGETS = 14, {2: "speed limit 50", 13: "yield", None: "any other"}
BOX = torch.tensor([[1.0, 1.0], [31.0, 1.0], [31.0, 31.0], [1.0, 31.0]])
INNER = torch.tensor([[5.5, 5.5], [26.5, 5.5], [26.5, 26.5], [5.5, 26.5]])  # all of it on the octagon
ATTACKS = {  # each covers about a fifth of the octagon, but the poster
    "bars": (PhotoAttack(mask="bars"), BOX),
    "bars, one camera": (PhotoAttack(mask="bars", camera=STILL), BOX),
    "search": (PhotoAttack(mask="search", share=0.34), INNER),
    "poster": (PhotoAttack(mask="poster"), INNER),
}
CELLS = [(2, name) for name in ATTACKS] + [(13, "bars"), (None, "bars")]


def network(cache: Path, root: Path) -> tuple[Classifier, str]:
    """The network and the name of its data, as in `patches.py`."""
    data, folder = f"npz:{(root / 'gtsrb32.npz').resolve()}", cache / "gtsrb-cnn"
    train("cnn", data, Recipe(epochs=3, lr=0.1), output=folder, name="gtsrb/cnn", device="cpu", resume=True)
    return load_model(str(folder / "model.toml")), data


def stops(data: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, 32, 32) and ids of the stop signs of a split."""
    whole = load_data(data, split)
    chosen = whole.take((torch.as_tensor(whole.labels) == STOP).nonzero()[:, 0]).loaded()
    return chosen.images, chosen.ids


def measure(model: Classifier, data: str, target: int | None, name: str, seed: int, steps: int) -> dict[str, Any]:
    attack, corners = ATTACKS[name]
    attack = replace(attack, target=target, steps=steps)
    where, (fitted, ids), (test, test_ids) = conditions(), stops(data, "train"), stops(data, "test")
    began = time.perf_counter()
    sticker = attack.fit(model, fitted, corners, torch.full_like(ids, STOP), ids, seed=seed)
    seconds = time.perf_counter() - began
    found = measure_photo(model, sticker, test, corners, torch.full_like(test_ids, STOP), test_ids, seed)
    covered = float(sticker.mask.float().mean()) * float((corners[2] - corners[0]).prod()) / 32**2
    return {"seconds": seconds, "images": len(ids), "covered": covered, **found, "conditions": where}


def show(entries: list[dict[str, Any]]) -> None:
    print("\n| mask, share of the image | target | seed | sticker | success | n | other cameras | n | fit |")
    print("|---|---|--:|---|--:|--:|--:|--:|--:|")
    for entry in entries:
        key = entry["key"]
        for name in entry["still"]["found"]:
            first, cells = name == "sticker", ["", "", ""]
            if first:
                cells = [f"{key['mask']}, {100 * entry['covered']:.0f} %", TARGETS[key["target"]], key["seed"]]
            cells += [name]
            for view in ("still", "camera"):
                success = entry[view]["found"][name]["success"]
                cells += [f"{percent(success)} ({interval(success)})", success["n"]]
            print("| " + " | ".join(map(str, [*cells, f"{entry['seconds']:.0f} s" if first else ""])) + " |")
    if entries:
        still, camera = (entries[0][view]["clean"] for view in ("still", "camera"))
        print(f"\nStop signs read right without a sticker: {percent(still)} ({interval(still)}) of {still['n']}; under")
        print(f"other cameras {percent(camera)} ({interval(camera)}), with seed {entries[0]['key']['seed']}.")


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-root", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=Path("reports") / "patches")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "photos.json")
    options = parser.parse_args(None if words is None else list(words))
    torch.set_num_threads(options.threads)
    if not (options.data_root / "gtsrb32.npz").is_file():
        parser.error(f"{options.data_root / 'gtsrb32.npz'} is not there: give --data-root.")
    results, entries = Results(options.output), []
    model, data = network(options.cache, options.data_root)
    for target, name in CELLS:
        for seed in options.seeds:
            key = {"net": "gtsrb/cnn", "mask": name, "target": target, "seed": seed}
            spec = {"steps": options.steps, "model": model.hash()}
            if (entry := results.find(key, spec)) is None:
                entry = {"key": key, "spec": spec, **measure(model, data, target, name, seed, options.steps)}
                results.put(entry)
            entries.append(entry)
    show(entries)


if __name__ == "__main__":
    main()
