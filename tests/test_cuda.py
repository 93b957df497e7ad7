"""What has to hold on a GPU. Skips where there is none; ROBUSTLAB_TEST_DEVICE=cpu runs the same on the CPU.

    python -m pytest -m cuda tests/test_cuda.py

Rounding depends on the batch on any device, so that one sample of 40 may come out differently; more may not.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import PGD, attack_class
from robustlab.attacks.driver import drive
from robustlab.base.outputs import rows
from robustlab.oracle import Oracle, full_float32

DEVICE = os.environ.get("ROBUSTLAB_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE.startswith("cuda") and not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("default"),  # another torch may say what nobody has heard yet
]
runs = pytest.mark.skipif(importlib.util.find_spec("cyclopts") is None, reason="runs need cyclopts")
ROOT = Path(__file__).resolve().parents[1]
N = 40


def small_net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(128, 4),
        )
        net(torch.rand(64, 3, 8, 8))  # gives batch norm its statistics
    return net.eval()


@pytest.fixture
def device() -> Iterator[torch.device]:
    with full_float32():
        yield torch.device(DEVICE)


@pytest.fixture
def net(device: torch.device) -> nn.Sequential:
    return small_net().to(device)


@pytest.fixture
def sample(net: nn.Sequential, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images, and the net's own answers as labels."""
    x = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        return x, net(x).argmax(1)


def apart(a: Tensor, b: Tensor) -> int:
    return int((a.cpu() != b.cpu()).sum())


# --- the driver -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("pgd", {"eps": 0.02, "steps": 6, "restarts": 3}),
        ("apgd-t", {"eps": 0.02, "steps": 15}),
        ("square", {"eps": 0.05, "steps": 100}),
        ("fmn", {"eps": 0.03, "steps": 20}),
    ],
)
def test_batch_size_order_and_refill_decide_nothing(
    method: str, parameters: dict[str, Any], net: nn.Module, sample: tuple[Tensor, Tensor], device: torch.device
) -> None:
    x, y = sample
    ids = torch.arange(N, device=device)
    attack = attack_class(method)(**parameters)
    wanted = drive(attack, Oracle(net), x, y, ids, batch_size=N, quantum=1)
    assert 0 < int(wanted.success.sum())
    for how in ({"batch_size": 16, "quantum": 4}, {"batch_size": 24, "quantum": 8}, {"batch_size": 7}, {}):
        found = drive(attack, Oracle(net), x, y, ids, **how)  # type: ignore[arg-type]
        assert apart(found.success, wanted.success) <= 1, how
        assert apart(found.rank, wanted.rank) <= 1, how
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0)).to(device)
    found = drive(attack, Oracle(net), x[order], y[order], ids[order], batch_size=16, quantum=4)
    assert apart(found.success, wanted.success[order]) <= 1


@pytest.mark.parametrize("quantum", [None, 1, 5])
def test_k_steps_cost_k_gradients_and_one_judging_forward(
    quantum: int | None, net: nn.Module, sample: tuple[Tensor, Tensor], device: torch.device
) -> None:
    oracle = Oracle(net)
    attack = PGD(eps=1e-6, steps=7)
    outcome = drive(attack, oracle, *sample, torch.arange(N, device=device), batch_size=N, quantum=quantum)
    assert bool((outcome.forwards == 8).all()) and bool((outcome.backwards == 7).all())
    assert (oracle.forwards, oracle.backwards) == (8 * N, 7 * N)


def test_the_same_draws_as_on_the_cpu(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    here = PGD(eps=0.02, steps=4).run(net, *sample)
    there = PGD(eps=0.02, steps=4).run(small_net(), *(each.cpu() for each in sample), ids=None)
    assert here.images.device == sample[0].device
    assert apart(here.success, there.success) <= 1


# --- the search copy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_copy_searches_and_the_model_judges(precision: Any, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    from robustlab.models.search_copy import make_search_copy

    x, y = sample
    made = make_search_copy(net, x, precision)
    assert made.module is not None, made.reason
    attack = PGD(eps=0.05, steps=10)
    outcome, plain = attack.run(net, x, y, search=made.module), attack.run(net, x, y)
    with torch.no_grad():
        assert apart(net(outcome.images).argmax(1) != y, outcome.success) <= 1
    assert apart(outcome.success, plain.success) <= (1 if precision == "float32" else 4)
    assert float((outcome.images - x).abs().max()) <= 0.05 + 1e-6


def test_search_auto(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    asked: list[int] = []
    net.register_forward_hook(lambda *given: asked.append(len(given[2])))
    outcomes = [PGD(eps=0.02, steps=20).run(net, *sample, search=search) for search in (None, "auto")]
    assert apart(outcomes[0].success, outcomes[1].success) <= 1
    assert sum(asked) < int(outcomes[0].forwards.sum()) + 4 * N  # the second run asked a copy


# --- a randomised model ---------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return rows(self.net(x), x) + 0.02 * torch.randn(len(x), 4, device=x.device)


def test_eot(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    outcome = PGD(eps=0.1, steps=8, eot=3).run(Oracle(Noisy(net), evaluations=10), *sample)
    with torch.no_grad():
        votes = torch.stack([Noisy(net)(outcome.images).argmax(1) != sample[1] for _ in range(50)]).double().mean(0)
    assert bool(outcome.success.any()) and float(votes[outcome.success].mean()) > 0.5
    assert bool((outcome.backwards % 3 == 0).all())


@runs
def test_a_randomised_run_can_be_repeated(
    net: nn.Module, sample: tuple[Tensor, Tensor], device: torch.device, tmp_path: Path
) -> None:
    state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.random.get_rng_state()
    found = [evaluated({"noisy": Noisy(net)}, sample, tmp_path / name, device) for name in ("one", "other")]
    after = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.random.get_rng_state()
    assert torch.equal(state, after)
    one, other = ([line.success for line in run.lines] for run in found)
    assert len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) <= 1


# --- runs -----------------------------------------------------------------------------------------------------------


def evaluated(models: dict[str, nn.Module], data: tuple[Tensor, Tensor], folder: Path, device: torch.device) -> Any:
    import robustlab
    from robustlab.attacks.suite import load_suite
    from robustlab.evaluation.listener import Listener

    return robustlab.evaluate(
        models,
        tuple(each.cpu() for each in data),
        load_suite(attacks=["pgd:steps=6,eot=2"], eps=0.03),
        output=folder,
        listener=Listener(say=lambda text: None),
        device=str(device),
        **{"audit": 0, "keep": 0, "curve": [], "chunk_size": 16},
    )


@runs
def test_two_models_in_a_run(
    net: nn.Module, sample: tuple[Tensor, Tensor], device: torch.device, tmp_path: Path
) -> None:
    models = {"one": net, "other": small_net(seed=1).to(device)}
    run = evaluated(models, sample, tmp_path / "run", device)
    assert run.info["operational"]["device"].startswith(device.type)
    for name, model in models.items():
        with torch.no_grad():
            right = model(sample[0]).argmax(1) == sample[1]
        alone = PGD(eps=0.03, steps=6).run(model, sample[0][right], sample[1][right])
        lines = [line for line in run.lines if line.model == name and line.attack == "pgd"]
        assert len(lines) == int(right.sum())
        assert abs(sum(line.success for line in lines) - int(alone.success.sum())) <= 3  # other ids, other draws


KILLED = '''
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
import robustlab
from robustlab.attacks.suite import load_suite
from robustlab.evaluation.listener import Listener

class Net(nn.Module):
    """Linear; ends the process at a call with this number."""
    def __init__(self, at):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.at, self.calls = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), at, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(x)

def run(folder, device, at=0, resume=False):
    net = Net(at)
    x = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    found = robustlab.evaluate({"net": net.to(device)}, (x, y), load_suite(attacks=["pgd:steps=5"], eps=0.02),
        output=folder, listener=Listener(say=lambda text: None), device=device, resume=resume, search_copy=False,
        audit=0, keep=0, curve=[], chunk_size=16)
    return net.calls, [(line.attack, line.id, line.success, line.rank, line.forwards) for line in found.lines]

if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
'''


@runs
def test_a_killed_run_goes_on(device: torch.device, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    with torch.random.fork_rng(devices=[]):
        run: Callable[..., Any] = runpy.run_path(str(tmp_path / "killed.py"))["run"]
        calls, wanted = run(tmp_path / "whole", str(device))
        command = [sys.executable, str(tmp_path / "killed.py"), str(tmp_path / "run"), str(device), str(calls * 3 // 4)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert list((tmp_path / "run" / "parts").glob("*.jsonl"))
        again, found = run(tmp_path / "run", str(device), resume=True)
    assert found == wanted and again < calls


# --- training -------------------------------------------------------------------------------------------------------

ARCHITECTURE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        layers = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, classes)
        self.inner = nn.Sequential(*layers)

    def forward(self, x):
        if self.training:
            with open(__file__ + ".seen", "a") as file:
                file.write(f"{torch.is_autocast_enabled(x.device.type)} ")
        return self.inner(x)

def make(classes, shape):
    return Net(classes)
"""


@pytest.mark.parametrize("defense", [{}, {"method": "n-fgsm", "eps": "8/255"}], ids=["plain", "n-fgsm"])
def test_two_epochs_in_mixed_precision(device: torch.device, tmp_path: Path, defense: dict[str, Any]) -> None:
    from robustlab.data import Data
    from robustlab.models import load_model
    from robustlab.threat.model import ThreatModel
    from robustlab.training import Recipe, train

    def bright(n: int, split: str) -> Data:
        """Three classes: how bright the image is."""
        generator = torch.Generator().manual_seed(n)
        labels = torch.randint(0, 3, (n,), generator=generator)
        images = (0.2 + 0.3 * labels[:, None, None, None] + 0.05 * torch.randn(n, 1, 8, 8, generator=generator)).clamp(
            0, 1
        )
        return Data("bright", split, images, labels, torch.arange(n), ("a", "b", "c"), split, ThreatModel(eps=0.05))

    (tmp_path / "net.py").write_text(ARCHITECTURE)
    recipe = Recipe(epochs=2, batch_size=32, lr=0.05, check_size=20, defense=defense)
    data = (bright(192, "train"), bright(60, "val"))
    done = train(f"{tmp_path / 'net.py'}:make", data, recipe, output=tmp_path / "out", device=str(device))
    assert len(done.history) == 2 and done.history[-1]["val_accuracy"] > 0.6
    seen = set((tmp_path / "net.py.seen").read_text().split())
    assert ("True" in seen) == (device.type == "cuda")
    model = load_model(str(tmp_path / "out" / "model.toml")).to(device)
    with torch.no_grad():
        assert float((model(data[1].images.to(device)).argmax(1).cpu() == data[1].labels).double().mean()) > 0.6
