"""What the benchmarks share: the networks, the conditions of a measurement, counted passes, and results that merge."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import load_data, load_model, train
from robustlab.base.environment import describe_device, versions
from robustlab.base.files import write_file
from robustlab.data import Data
from robustlab.models.classifier import Classifier
from robustlab.training import Recipe

CPU = torch.device("cpu")
PEERS = {
    "torchattacks": "torchattacks",
    "adv-lib": "adv-lib",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
}


def conditions(device: torch.device = CPU) -> dict[str, Any]:
    """Hardware, versions and load; a busy machine is said aloud."""
    found = versions()
    for module, package in PEERS.items():
        try:
            found[module] = version(package)
        except PackageNotFoundError:
            found[module] = "not installed"
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    if load is not None and load[0] > 1:
        print(f"WARNING: the machine is busy (load {load[0]:.1f}): the seconds below mean little.", file=sys.stderr)
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": describe_device(device),
        "cores": os.cpu_count(),
        "load_at_start": load,
        "versions": found,
    }


@dataclass(frozen=True)
class Net:
    """A network to attack. data: a name, or a file below the data root. eps: of the linf ball. n: samples by default.

    k: noise of N-FGSM, in eps. epochs: of the plain training; N-FGSM takes twice as many.
    """

    data: str
    eps: float
    n: int
    defended: bool
    k: float = 2.0
    epochs: int = 3


NETS = {
    "road-signs/cnn": Net("road-signs", 8 / 255, 1000, False),
    "road-signs/cnn-robust": Net("road-signs", 8 / 255, 1000, True),
    "road-signs/resnet20-robust": Net("road-signs", 8 / 255, 200, True),
    "mnist/cnn": Net("mnist", 0.3, 1000, False),
    "mnist/cnn-robust": Net("mnist", 0.3, 1000, True, k=1.0),  # twice 0.3 would leave little to learn from
    "fashion-mnist/cnn": Net("fashion-mnist", 0.1, 1000, False),
    "fashion-mnist/cnn-robust": Net("fashion-mnist", 0.1, 1000, True),
    "gtsrb/cnn": Net("gtsrb32.npz", 8 / 255, 1000, False),
    "gtsrb/cnn-robust": Net("gtsrb32.npz", 8 / 255, 1000, True),
    "x-rays/cnn": Net("pneumoniamnist.npz", 8 / 255, 600, False, epochs=5),
    "x-rays/cnn-robust": Net("pneumoniamnist.npz", 8 / 255, 600, True, epochs=5),
}
PLAIN = Recipe(lr=0.1, train_size=20_000)
NFGSM = {"method": "n-fgsm", "alpha": 1.0, "ramp": 3.0}


def network(name: str, n: int, cache: Path, data_root: Path | None) -> tuple[Classifier, Data]:
    """A network of `NETS` and the first n test samples. Those of the zoo are there; others are trained once, in cache.

    The N-FGSM networks start from the plain ones, as those of the zoo do.
    """
    net = NETS[name]
    source = net.data
    if source.endswith(".npz"):
        root = data_root or Path(os.environ.get("ROBUSTLAB_DATA", "."))
        source = f"npz:{(root / source).resolve()}"
    data = load_data(source, "test", limit=n, data_root=data_root)
    if net.data == "road-signs":
        return load_model(name), data
    folder = cache / name.replace("/", "-")
    recipe = replace(PLAIN, epochs=net.epochs)
    if net.defended:
        plain = name.removesuffix("-robust")
        network(plain, 1, cache, data_root)
        init = str(cache / plain.replace("/", "-") / "model.toml")
        recipe = replace(PLAIN, epochs=2 * net.epochs, init=init, defense={**NFGSM, "k": net.k})
    train(
        "cnn",
        source,
        recipe,
        output=folder,
        name=name,
        data_root=data_root,
        device="cpu",
        resume=True,
        on_epoch=lambda e: print(f"  {name}: epoch {e['epoch']}, {e['seconds']:.0f} s", file=sys.stderr),
    )
    return load_model(str(folder / "model.toml")), data


class Counted(nn.Module):
    """A module that counts the images that go through it, forwards and backwards, whoever asks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x)
        self.forwards += len(x)
        if out.requires_grad:
            out.register_hook(self._back)
        return out

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class Results:
    """Measured entries in a JSON file, each under a key. A long run that was cut short goes on with what is missing.

    An entry whose spec (what exactly was run) is no longer what is asked for is measured again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []

    def find(self, key: dict[str, Any], spec: Any) -> dict[str, Any] | None:
        wanted = json.loads(json.dumps(spec))
        return next((e for e in self.entries if e["key"] == key and e["spec"] == wanted), None)

    def put(self, entry: dict[str, Any]) -> None:
        self.entries = [e for e in self.entries if e["key"] != entry["key"]] + [json.loads(json.dumps(entry))]
        write_file(self.path, (json.dumps({"runs": self.entries}, indent=1) + "\n").encode())


def goal(what: str, value: float, limit: float) -> dict[str, Any]:
    """What was promised of a number, and whether it is kept: value <= limit."""
    return {"what": what, "value": value, "limit": limit, "met": value <= limit + 1e-9}


def show_goals(goals: list[dict[str, Any]]) -> None:
    for g in goals:
        print(f"- {'met' if g['met'] else '**missed**'}: {g['what']}: {g['value']:.4g} (limit {g['limit']:.4g})")
