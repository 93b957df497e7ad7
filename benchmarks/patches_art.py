"""`PatchAttack` beside ART's `AdversarialPatchPyTorch`: CPU seconds and success at the same steps, images and size.

    python benchmarks/patches_art.py --threads 1                                     about 10 minutes
    python benchmarks/patches_art.py --steps 5 --n 20 --output /tmp/try.json         does it run?

Both fit a round patch of 10 % of the image's area (scale 0.8 to 1.2, up to 20 degrees either way, anywhere in the
image) with Adam at the same rate, in batches of 64 of the same 1,920 training images, for the same number of steps.
ART counts in passes over the images, of 30 steps each. robustlab fits on a search copy, as
`robustlab attack --suite patch` does. Both patches are judged by `measure_patch`, at the same places
of the same n test images: a success counts only where the clean image is read right and is not of the target class;
95 % Wilson intervals. ART's patch is also judged by ART's own `apply_patch`. Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from measuring import Results, conditions

from robustlab import load_data, load_model
from robustlab.base.intervals import share
from robustlab.base.words import interval, percent
from robustlab.data import Loaded
from robustlab.models.classifier import Classifier
from robustlab.models.search_copy import make_search_copy
from robustlab.physical import Patch, PatchAttack, measure_patch
from robustlab.worlds.road_signs import CLASSES

NETS = ("road-signs/cnn", "road-signs/cnn-robust", "road-signs/resnet20")
TARGET, BATCH, FITTED, RATE = CLASSES.index("speed limit 45"), 64, 1920, 0.05


def ours(model: torch.nn.Module, data: Loaded, seed: int, steps: int) -> tuple[Patch, float]:
    attack = PatchAttack(target=TARGET, steps=steps, batch=BATCH, lr=RATE)
    start = time.process_time()
    model = make_search_copy(model, data.images[:BATCH]).module or model  # as a run does
    patch = attack.fit(model, data.images, data.labels, data.ids, seed=seed)
    return patch, time.process_time() - start


def theirs(model: Classifier, data: Loaded, test: Loaded, seed: int, steps: int) -> tuple[Patch, float, dict[str, Any]]:
    import numpy as np
    from art.attacks.evasion import AdversarialPatchPyTorch
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(seed)
    np.random.seed(seed)
    placed = PatchAttack(target=TARGET)
    side = placed.side(32, 32) / 32
    estimator = PyTorchClassifier(
        model, torch.nn.CrossEntropyLoss(), (3, 32, 32), len(CLASSES), clip_values=(0, 1), device_type="cpu"
    )
    attack = AdversarialPatchPyTorch(
        estimator,
        rotation_max=placed.rotation,
        scale_min=placed.scale[0] * side,
        scale_max=placed.scale[1] * side,
        learning_rate=RATE,
        max_iter=max(1, steps * BATCH // len(data)),
        batch_size=BATCH,
        patch_shape=(3, 32, 32),
        patch_type="circle",
        optimizer="Adam",
        targeted=True,
        verbose=False,
    )
    wanted = np.eye(len(CLASSES), dtype=np.float32)[np.full(len(data), TARGET)]
    start = time.process_time()
    texture, _ = attack.generate(data.images.numpy(), wanted)
    seconds = time.process_time() - start
    scales = np.random.uniform(placed.scale[0] * side, placed.scale[1] * side, len(test))
    shown = [attack.apply_patch(test.images[i, None].numpy(), float(scales[i])) for i in range(len(test))]
    with torch.no_grad():
        clean = model(test.images).argmax(1)
        found = model((torch.from_numpy(np.concatenate(shown)) * 255).round() / 255).argmax(1)
    counted = (clean == test.labels) & (test.labels != TARGET)
    own = share(int(((found == TARGET) & counted).sum()), int(counted.sum()))
    return Patch(torch.from_numpy(texture).float().clamp(0, 1), TARGET), seconds, own


def measure(net: str, seed: int, steps: int, n: int) -> dict[str, Any]:
    model, test = load_model(net), load_data("road-signs", "test", limit=n).loaded()
    data = load_data("road-signs", "train", limit=4 * FITTED).loaded()
    data = data.take((data.labels != TARGET).nonzero()[:FITTED, 0])
    where = conditions()
    found = {}
    for name in ("robustlab", "art"):
        own = None
        if name == "art":
            patch, seconds, own = theirs(model, data, test, seed, steps)
        else:
            patch, seconds = ours(model, data, seed, steps)
        judged = measure_patch(model, patch, test.images, test.labels, test.ids, seed, {})["found"]["patch"]
        found[name] = {"seconds": seconds, **judged, "by_its_own": own}
    return {"found": found, "conditions": where}


def show(entries: list[dict[str, Any]]) -> None:
    print("\n| network | seed | | CPU seconds | read as the target | n | placed by ART |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for entry in entries:
        for name, found in entry["found"].items():
            success, own, key = found["success"], found["by_its_own"], entry["key"]
            cells = [f"`{key['net']}`", key["seed"], name, f"{found['seconds']:.1f}"]
            cells += [f"{percent(success)} ({interval(success)})", success["n"]]
            print("| " + " | ".join(map(str, [*cells, f"{percent(own)} ({interval(own)})" if own else ""])) + " |")
    ratios = [entry["found"]["art"]["seconds"] / entry["found"]["robustlab"]["seconds"] for entry in entries]
    print(f"\nART takes {min(ratios):.1f} to {max(ratios):.1f} times as long (goal: 5).")


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "patches_art.json")
    options = parser.parse_args(None if words is None else list(words))
    torch.set_num_threads(options.threads)
    results, entries = Results(options.output), []
    for seed in options.seeds:
        for net in options.nets:
            key = {"net": net, "seed": seed}
            spec = {"steps": options.steps, "n": options.n, "model": load_model(net).hash()}
            if (entry := results.find(key, spec)) is None:
                entry = {"key": key, "spec": spec, **measure(net, seed, options.steps, options.n)}
                results.put(entry)
            entries.append(entry)
    show(entries)


if __name__ == "__main__":
    main()
