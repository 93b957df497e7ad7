"""On one GPU, in nine minutes: resnet20 and resnet18 on road-signs, plain, by PGD-AT and by TRADES, and `linf-strong`.

    make zoo-cuda OUT=folder                                            or: python benchmarks/zoo_cuda.py folder
    python benchmarks/zoo_cuda.py /tmp/try --device cpu --tiny          does it run? (half a minute)

20,000 training images are rendered on the device. A network is trained in bfloat16 autocast and channels_last, by a
defense from the plain network on, rounded to float16, and then measured: clean accuracy on the first 2,000 test images,
`linf-strong` on the first 1,000. The folder then holds road-signs/NAME.toml and .safetensors of each, and
zoo-cuda.json with all numbers.

The clock: two short epochs of each training show what one costs. The trainings begin with the cheapest, each with an
equal part of the time that is left; one that does not fit gets fewer epochs, and the table says so, or is left out
where a quarter of them does not fit. A second call with the same folder goes on with what is missing.

Needs the checkout and robustlab's dependencies torch, torchvision, scipy, msgspec, safetensors. Not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_cells import Bench, suite
from measuring import Results, conditions

from robustlab import load_data, load_model, train
from robustlab.base.files import write_file
from robustlab.base.intervals import wilson
from robustlab.data import Data
from robustlab.models.card import Measured, card_text, read_model_card
from robustlab.models.weights import packed_weights
from robustlab.training import Recipe
from robustlab.training.checks import loss_and_accuracy
from robustlab.training.session import Moment, Told
from robustlab.worlds.road_signs import VERSION, draw, faces, prepare, render

EPS = "8/255"
FULL = Recipe(epochs=20, batch_size=512, lr=0.2, val_size=1000, check_size=250, precision="bfloat16")
DEFENSES: dict[str, dict[str, Any]] = {
    "plain": {},
    "pgd-at": {"method": "pgd-at", "eps": EPS, "ramp": 3.0},
    "trades": {"method": "trades", "eps": EPS, "ramp": 3.0, "beta": 6.0},
}
NETS = ("resnet20", "resnet18")
LEAST = 0.25  # of the epochs: a training that gets fewer is not begun
LOOKS = 130  # gradients that linf-strong takes for an image of a robust network (results/autoattack.json: 108)


@dataclass(frozen=True)
class Size:
    """How much is done: images of each split, recipe, and 1 / so many of the suite's steps."""

    train: int = 20_000
    val: int = 1000
    clean: int = 2000
    attacked: int = 1000
    recipe: Recipe = FULL
    probe: int = 12  # batches
    shorten: int = 1
    steps: int = 7  # of PGD in training: as many as Madry et al. 2018 take

    @classmethod
    def tiny(cls) -> Size:
        recipe = replace(FULL, epochs=2, batch_size=32, val_size=16, check_size=8, model={"width": 8})
        return cls(160, 16, 40, 32, recipe, probe=2, shorten=8, steps=2)


@dataclass(frozen=True)
class Cost:
    """Seconds: of an epoch with what is measured after it, and of what is measured in the end."""

    epoch: float
    measuring: float


@dataclass
class Job:
    """One network to train. cost: what the probe found."""

    name: str
    architecture: str
    recipe: Recipe
    cost: Cost = Cost(0, 0)

    @property
    def full(self) -> float:
        return self.recipe.epochs * self.cost.epoch + self.cost.measuring


@torch.no_grad()
def rendered(split: str, n: int, device: torch.device) -> Data:
    """The first n images of a split, rendered on a device and brought to the CPU; training takes them back.

    They differ in rounding from those of `load_data`, which are always rendered on a CPU, and have a hash of their own.
    """
    prepared, scenes = prepare(faces().to(device)), draw(0, split, torch.arange(n))
    images = torch.cat(
        [(render(prepared, scenes.take(at).to(device)) * 255).round() for at in torch.arange(n).split(1024)]
    )
    about = f"road-signs version {VERSION} seed 0 {split} 32 on {device.type}"
    known = load_data("road-signs", split, 1)
    fingerprint = hashlib.sha256(about.encode()).hexdigest()[:16]
    return replace(
        known, images=images.cpu() / 255, labels=scenes.label, ids=torch.arange(n), hash=fingerprint, factors={}
    )


def jobs(size: Size) -> list[Job]:
    """Every network by every defense, and plain as the control."""
    return [
        Job(f"road-signs/{net}-{name}", net, replace(size.recipe, defense=defense and {**defense, "steps": size.steps}))
        for net in NETS
        for name, defense in DEFENSES.items()
    ]


def probe(job: Job, size: Size, data: tuple[Data, Data], device: torch.device) -> Cost:
    """What the second of two short epochs costs; the first one warms up."""
    moments: list[Moment] = []
    recipe = replace(job.recipe, epochs=2, train_size=size.probe * job.recipe.batch_size)
    steps = 1 + int(recipe.defense.get("steps", 0))
    with tempfile.TemporaryDirectory() as folder:
        told = Told(batch=moments.append)
        done = train(
            job.architecture, data, recipe, output=Path(folder) / "x", device=str(device), told=told, drawn=False
        )
    last, entry = moments[-1], done.history[-1]
    batch = last.seconds / last.batches
    checked = max(0.0, entry["seconds"] - last.seconds)
    looks = LOOKS if recipe.defense else LOOKS / 10
    gradient = batch / steps / recipe.batch_size  # of one image
    # short batches and the driver: twice as long
    measuring = 2 + 2 * size.attacked * looks * gradient / size.shorten
    return Cost(batch * size.train / recipe.batch_size + checked, measuring)


def epochs_for(job: Job, seconds: float) -> int:
    """As many epochs as fit into a time, at most those of the recipe; 0 where too few fit to be worth it.

    >>> job = Job("a", "resnet20", FULL, Cost(epoch=10.0, measuring=20.0))
    >>> [epochs_for(job, seconds) for seconds in (1000, 125, 60)]
    [20, 10, 0]
    """
    fit = min(job.recipe.epochs, int((seconds - job.cost.measuring) / max(job.cost.epoch, 1e-9)))
    return fit if fit >= max(1, LEAST * job.recipe.epochs) else 0


def begun(folder: Path) -> int:
    """The epochs of a training that an earlier call began; 0 where there is none."""
    file = folder / "run.json"
    return int(json.loads(file.read_text())["config"]["recipe"]["epochs"]) if file.is_file() else 0


def work(bench: Bench, job: Job, size: Size, data: tuple[Data, Data], test: Data, out: Path) -> dict[str, Any]:
    """Train a network, leave it and its card, and measure it as it is left."""
    folder, target = out / "trainings" / job.name.replace("/", "-"), out / f"{job.name}.toml"
    began = bench.clock()

    def shown(entry: dict[str, Any]) -> None:
        accuracy, robust = entry["val_accuracy"], entry["val_robust_accuracy"]
        left = f"{bench.left:.0f} s are left"
        print(f"  {job.name}: epoch {entry['epoch']}, {accuracy:.3f}, PGD-10 {robust:.3f}; {left}", file=sys.stderr)

    device = str(bench.device)
    how: dict[str, Any] = {"device": device, "resume": True, "on_epoch": shown, "drawn": False}
    defended, first = job.recipe.defense.get("method"), f"road-signs/{job.architecture}-plain"
    warm = bool(defended) and (out / f"{first}.toml").is_file()
    recipe = replace(job.recipe, init=str(out / f"{first}.toml")) if warm else job.recipe
    done = train(job.architecture, data, recipe, output=folder, name=job.name, **how)
    trained = bench.clock() - began
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target.with_suffix(".safetensors"), packed_weights(load_model(str(folder)).module, half=True))
    card = read_model_card(folder / "model.toml")
    card = replace(
        card,
        recipe=card.recipe | ({"init": first} if warm else {}),  # a name, not a path
        weights=f"{target.stem}.safetensors",
        summary=f"{job.architecture}, {f'adversarial training ({defended}, linf {EPS})' if defended else 'undefended'}",
        command="make zoo-cuda OUT=folder",
        measured=[],
    )
    write_file(target, card_text(card))
    model = load_model(str(target), device=device)
    images, labels = test.images.to(bench.device), test.labels.to(bench.device)
    right = round(loss_and_accuracy(model, images, labels)[1] * len(test))
    found = suite(bench, "bfloat16", model, images[: size.attacked], labels[: size.attacked])
    measured = [
        _measured("clean accuracy", right, len(test)),
        _measured("robust accuracy", found["robust"], found["n"], "linf", EPS, "linf-strong"),
    ]
    card = replace(card, hash=model.hash(), measured=measured)
    write_file(target, card_text(card))
    return {
        "epochs": job.recipe.epochs,
        "of": size.recipe.epochs,
        "training_seconds": trained,
        "cost": asdict(job.cost),
        "history": done.history,
        "warnings": done.warnings,
        "suite": found,
        "card": {key: value for key, value in asdict(card).items() if key not in ("mean", "std", "classes")},
    }


def _measured(metric: str, k: int, n: int, norm: str = "", eps: str = "0", attack: str = "") -> Measured:
    low, high = wilson(k, n)
    return Measured(metric, k / n, round(low, 4), round(high, 4), n, "test", norm, eps, attack)


def show(entries: list[dict[str, Any]], left_out: list[str]) -> None:
    """The numbers as a markdown table."""
    print("\n| network | epochs | clean accuracy | `linf-strong`, linf 8/255 | training | suite |")
    print("|---|--:|---|---|--:|--:|")
    for entry in entries:
        cells = [
            f"{100 * m['value']:.1f} % ({100 * m['low']:.1f}-{100 * m['high']:.1f}, n = {m['n']:,})"
            for m in entry["card"]["measured"]
        ]
        epochs = f"{entry['epochs']}" + (f" of {entry['of']}" if entry["epochs"] < entry["of"] else "")
        seconds = f"{entry['training_seconds']:.0f} s | {entry['suite']['seconds']:.0f} s"
        print(f"| {entry['key']['network']} | {epochs} | {' | '.join(cells)} | {seconds} |")
    for text in left_out:
        print(f"- left out: {text}")


def main(words: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder for cards, checkpoints and zoo-cuda.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--tiny", action="store_true", help="hardly anything of everything: does it run?")
    parser.add_argument("--keep", action="store_true", help="keep the trainings' own folders, too")
    options = parser.parse_args(None if words is None else list(words))
    until = time.perf_counter() + 60 * options.minutes - 10
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "There is no GPU here (torch.cuda.is_available() is False). --device cpu --tiny tries it.", file=sys.stderr
        )
        return 2
    device, size, out = torch.device(options.device), Size.tiny() if options.tiny else Size(), options.out.resolve()
    where = conditions(device)
    bench = Bench(device, Results(out / "zoo-cuda.json"), until, size.attacked, size.shorten, where)
    out.mkdir(parents=True, exist_ok=True)
    began = bench.clock()
    data = rendered("train", size.train, device), load_data("road-signs", "val", size.val)
    print(f"{size.train:,} images in {bench.clock() - began:.1f} s; {bench.left:.0f} s are left", file=sys.stderr)
    test, todo = load_data("road-signs", "test", size.clean), jobs(size)
    for job in todo:
        job.cost = probe(job, size, data, device)
        print(f"  {job.name}: {job.cost.epoch:.1f} s an epoch, about {job.full:.0f} s in all", file=sys.stderr)
    todo.sort(key=lambda job: job.full)
    for i, job in enumerate(todo):
        epochs = begun(out / "trainings" / job.name.replace("/", "-")) or epochs_for(job, bench.left / (len(todo) - i))
        if not epochs:
            need = LEAST * job.recipe.epochs * job.cost.epoch + job.cost.measuring
            bench.left_out.append(f"{job.name}: no time (a quarter of it takes {need:.0f} s)")
            continue
        job.recipe = replace(job.recipe, epochs=epochs)
        name, seconds = {"network": job.name}, epochs * job.cost.epoch
        bench.cell(name, job.recipe.record(), seconds, partial(work, bench, job, size, data, test, out))
    show(bench.results.entries, bench.left_out)
    print(f"\nDevice: {where['device']}. Written to {out}")
    if not options.keep and not bench.left_out:
        shutil.rmtree(out / "trainings", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
