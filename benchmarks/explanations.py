"""Heatmaps on the zoo: how far they move under attack beside two controls, and whether they can be trusted.

    python benchmarks/explanations.py --data-root FOLDER               n = 32 (about 15 minutes of a core)
    python benchmarks/explanations.py --timed --threads 2              seconds for 100 images, of each method
    python benchmarks/explanations.py --nets road-signs/cnn --n 4 --output /tmp/try.json     does it run?

An entry is what `robustlab explain NET --methods METHOD --attack pgd --judge 32` measures on the first test images,
whether or not the attack succeeds: PGD in linf with the budget of the data set, seed 0. Two impostors are judged beside
the methods, and must not pass: edges of the image (Sobel), and Grad-CAM of a network with random weights. FOLDER holds
FashionMNIST and pneumoniamnist.npz. Each entry is stored when it is finished; called again, the script goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measuring import Results, conditions
from torch import Tensor, nn

from robustlab import load_data, load_model
from robustlab.attacks.suite import load_suite
from robustlab.data import Loaded
from robustlab.evaluation.explained_page import told
from robustlab.evaluation.explaining import explain_images
from robustlab.explain import METHODS, checks, draw
from robustlab.explain.sanity import drawn_by, randomised
from robustlab.oracle import answers

SHOWN = ["road-signs/cnn", "road-signs/resnet20", "road-signs/vit", "fashion-mnist/cnn", "x-rays/cnn"]
EPS = {"road-signs": "8/255", "fashion-mnist": "0.1", "x-rays": "8/255"}
ATTACK, SEED = "pgd", 0
WITHOUT_RELU = "vit"  # guided backpropagation has nothing to guide there
EDGES, RANDOM = "Sobel edges", "grad-cam of random weights"
TIMED = 100  # images


def images_of(name: str, n: int, root: Path | None) -> Loaded:
    """The first n test images of a network's data set."""
    kind = name.partition("/")[0]
    source = f"npz:{((root or Path()) / 'pneumoniamnist.npz').resolve()}" if kind == "x-rays" else kind
    return load_data(source, "test", n, data_root=root if kind == "fashion-mnist" else None).loaded()


def sobel(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Edges of the image: they look like an explanation, and know nothing of the model."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    padded = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None]).norm(dim=1)


def measure(model: Any, data: Loaded, method: str, eps: str) -> dict[str, Any]:
    """The rows of the shift and the checks of a method, as the command stores them."""
    images = (data.images, data.labels, data.ids)
    attack = load_suite(attacks=[ATTACK], eps=eps).members[0].attack
    few = tuple(each[:1] for each in images)
    found = explain_images(model, *few, [method], attack=attack, judged=images, seed=SEED)  # type: ignore[arg-type]
    return {key: value for key, value in told(found, [], {}).items() if key in ("layer", "shift", "checks")}


def impostor(model: Any, data: Loaded, name: str) -> dict[str, Any]:
    """The checks of something that only looks like an explanation."""
    other, draw_cam = randomised(model, seed=SEED + 1), drawn_by("grad-cam", signed=True)
    explain = sobel if name == EDGES else lambda given, x, k: draw_cam(other, x, k)
    found = checks(explain, model, data.images, answers(model, data.images), seed=SEED)
    return {"shift": [], "checks": [{"check": c.name, "passed": c.passed, **c.value, "zero": c.zero} for c in found]}


def seconds(model: Any, data: Loaded, method: str) -> dict[str, Any]:
    """Of the clock and of the processor, to draw the maps of all images, once, after a first small batch."""
    classes = answers(model, data.images)
    draw(method, model, data.images[:2], classes[:2])
    began, used = time.perf_counter(), time.process_time()
    draw(method, model, data.images, classes)
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}


def show_checks(entries: dict[tuple[str, str], dict[str, Any]]) -> None:
    print("\n| network | map | randomised layers | deletion | insertion | zero |\n|---|---|---|---|---|--:|")
    for (net, method), entry in entries.items():
        cells = [f"{_number(check)} {_WORDS[check['passed']]}" for check in entry["checks"]]
        print("| " + " | ".join([net, method, *cells, str(entry["checks"][0]["zero"])]) + " |")


def show_shift(entries: dict[tuple[str, str], dict[str, Any]]) -> None:
    print("\n| network | map | measure | attacked | attacked, same class | control |\n|---|---|---|---|---|---|")
    for (net, method), entry in entries.items():
        rows = {row["version"]: row for row in entry["shift"]}
        for name in ("spearman", "top", "ssim", "centre") if rows else ():
            print(
                "| "
                + " | ".join([net, method, name, *(_number(rows[v][name]) for v in ("adv", "same", "noise"))])
                + " |"
            )


_WORDS = {True: "pass", False: "**warn**", None: "not judged"}


def _number(value: dict[str, Any]) -> str:
    if value["low"] is None:
        return "too few"
    return f"{value['mean']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=SHOWN, default=SHOWN, metavar="NET")
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--timed", action="store_true", help=f"only the seconds for {TIMED} images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-root", type=Path, help="where the data sets lie")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "explanations.json")
    options = parser.parse_args(None if words is None else list(words))

    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", "Guided Grad-CAM")
    results, entries = Results(options.output), {}
    for net in options.nets:
        n = TIMED if options.timed else options.n
        model, data = load_model(net), images_of(net, n, options.data_root)
        eps = EPS[net.partition("/")[0]]
        methods = [name for name in METHODS if not (name == "guided-grad-cam" and net.endswith(WITHOUT_RELU))]
        for method in methods if options.timed else [*methods, EDGES, RANDOM]:
            key = {"net": net, "method": method, "n": n, "timed": options.timed}
            spec: dict[str, Any] = {"model": model.hash(), "data": data.hash}
            spec |= {"threads": options.threads} if options.timed else {"attack": ATTACK, "eps": eps, "seed": SEED}
            if (entry := results.find(key, spec)) is None:
                where, began = conditions(), time.process_time()
                if options.timed:
                    found = seconds(model, data, method)
                else:
                    known = method in METHODS
                    found = measure(model, data, method, eps) if known else impostor(model, data, method)
                    found["cpu_seconds"] = time.process_time() - began
                entry = {"key": key, "spec": spec, **found, "conditions": where}
                print(f"  {net}, {method}: {found['cpu_seconds']:.0f} CPU seconds", file=sys.stderr)
                results.put(entry)
            entries[net, method] = entry
    if options.timed:
        print(f"\n| network | map | seconds for {TIMED} images | CPU seconds | load |\n|---|---|--:|--:|--:|")
        for (net, method), entry in entries.items():
            load = entry["conditions"]["load_at_start"]
            cells = [f"{entry['seconds']:.1f}", f"{entry['cpu_seconds']:.1f}", f"{load[0]:.1f}" if load else ""]
            print("| " + " | ".join([net, method, *cells]) + " |")
    else:
        show_checks(entries)
        show_shift(entries)
    print(f"\nWritten to {options.output}")


if __name__ == "__main__":
    main()
