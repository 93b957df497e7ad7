"""The cells of gpu.py: what is measured of one contender on one network, and the clock that they share."""

from __future__ import annotations

import importlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from contenders import PEERS, Contender, Result, Setting, bare_loop
from gpu_waits import per_step
from measuring import Results
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.attacks.suite import load_suite
from robustlab.models.search_copy import make_search_copy
from robustlab.oracle import full_float32, undisturbed
from robustlab.threat.geometry import distance
from robustlab.threat.model import allowed

ROOT = Path(__file__).resolve().parents[1]
SUITE, BARE = "linf-strong", "bare loop"


class Way(NamedTuple):
    """How robustlab searches. precision: of the search copy, None for the given module."""

    precision: str | None = None
    tf32: bool = False
    graph: bool = False
    compiled: bool = False
    retire: bool = False
    waits: bool = False  # are they counted?

    @property
    def needs_cuda(self) -> bool:
        return self.tf32 or self.graph or self.compiled


WAYS = {
    "the module itself": Way(waits=True),
    "float32 copy": Way("float32"),
    "bfloat16 copy": Way("bfloat16", waits=True),
    "bfloat16 copy, CUDA graph": Way("bfloat16", graph=True, waits=True),
    "bfloat16 copy, as it comes": Way("bfloat16", retire=True),
    "TF32 copy": Way("float32", tf32=True),
    "float32 copy, CUDA graph": Way("float32", graph=True),
    "bfloat16 copy, compiled": Way("bfloat16", compiled=True),
    "float32 copy, compiled": Way("float32", compiled=True),
}
SUITES = {f"{SUITE}, {precision} copy": precision for precision in ("float32", "bfloat16")}
AMONG = ("torchattacks", "foolbox")
ORDER = (BARE, *list(WAYS)[:5], *SUITES, *list(WAYS)[5:7], *AMONG, *list(WAYS)[7:])  # the goals come first
COMPILING = 60.0  # seconds that a compilation may take


class OutOfTime(BaseException):
    """The time is over in the middle of a cell. Not an error of what it interrupts, which may catch those."""


@dataclass
class Bench:
    """What all cells of a call share. until: the end of the time, by `time.perf_counter`."""

    device: torch.device
    results: Results
    until: float
    n: int | None
    shorten: int
    where: dict[str, Any]
    left_out: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.until - time.perf_counter()

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def cell(
        self, key: dict[str, Any], what: Any, seconds: float, measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any] | None:
        """The entry under this key: found, or measured and written; None where it is left out.

        what: exactly was measured. seconds: what it may take.
        """
        name = ", ".join(key.values())
        spec = {"what": what, "device": self.where["device"], "n": self.n, "shorten": self.shorten}
        if (entry := self.results.find(key, spec)) is not None:
            return entry
        if seconds > self.left:
            self.left_out.append(f"{name}: no time (it may take {seconds:.0f} s)")
            return None
        began = time.perf_counter()
        try:
            with ends_after(self.left):
                found = measure()
        except OutOfTime:
            self.left_out.append(f"{name}: cut after {time.perf_counter() - began:.0f} s")
        except Exception as error:  # the other cells are worth having
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            self.left_out.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            self.results.put({"key": key, "spec": spec, **found, "conditions": self.where})
            print(f"  {name}: {time.perf_counter() - began:.1f} s; {self.left:.0f} s are left", file=sys.stderr)
        return self.results.find(key, spec)


@contextmanager
def ends_after(seconds: float) -> Iterator[None]:
    """Raises `OutOfTime` in the block when the time is over, where the system has such a clock."""

    def stop(*_: object) -> None:
        raise OutOfTime

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Graphed(nn.Module):
    """A module whose forward and backward pass on full batches are a CUDA graph each; other batches go as ever."""

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.plain, self.shape = [module], images.shape  # in a list: not a part whose mode is switched
        for p in module.parameters():
            p.requires_grad_(False)
        sample = images.clone().requires_grad_(True)
        self.graphed = torch.cuda.make_graphed_callables(lambda x: module(x), (sample,))

    def forward(self, x: Tensor) -> Tensor:
        full = x.shape == self.shape and x.requires_grad and torch.is_grad_enabled()
        return self.graphed(x) if full else self.plain[0](x)  # type: ignore[no-any-return]


def ceiling(bench: Bench, model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Image-steps a second of forward and gradient alone; the median of three blocks."""

    def step() -> None:
        leaf = x.clone().requires_grad_(True)
        torch.autograd.grad(F.cross_entropy(model(leaf).float(), y, reduction="sum"), leaf)

    with undisturbed(model):
        step()
        began = bench.clock()
        step()
        count = max(1, min(100, int(0.3 / bench.shorten / max(1e-6, bench.clock() - began))))
        found = []
        for _ in range(3):
            began = bench.clock()
            for _ in range(count):
                step()
            found.append(count * len(x) / (bench.clock() - began))
    return statistics.median(found)


def searched_on(way: Way, model: nn.Module, x: Tensor) -> nn.Module:
    """What robustlab searches on, this way."""
    if way.precision is None:
        return model
    made = make_search_copy(model, x, way.precision, compile=way.compiled)  # type: ignore[arg-type]
    if made.module is None:
        raise RuntimeError(f"no search copy: {made.reason}")
    return Graphed(made.module, x) if way.graph else made.module


def ours(way: Way, model: nn.Module, search: nn.Module, setting: Setting) -> Contender:
    attack = PGD(eps=setting.eps, steps=setting.steps, step_size=setting.step_size, stop_at_success=way.retire)

    def run(images: Tensor, labels: Tensor) -> Result:
        other = None if search is model else search
        ids = torch.arange(len(images))
        outcome = attack.run(model, images, labels, ids=ids, batch_size=setting.batch_size, search=other)
        with full_float32(), torch.no_grad():
            wrong = model(outcome.images).argmax(1) != labels
        inside = distance(outcome.images - images, "linf") <= allowed(setting.eps)
        return Result(wrong & inside, int(outcome.backwards.sum()))

    return run


def pgd(bench: Bench, who: str, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """One contender of PGD: seconds, image-steps a second, the share of its ceiling, robust images."""
    way = WAYS.get(who)
    whole = Setting("PGD", max(2, 100 // bench.shorten), restarts=1, n=len(x), batch_size=len(x))
    with full_float32():
        search = model if way is None else searched_on(way, model, x)
        if way is not None and way.tf32:  # from here on: a copy has to agree in full float32
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        most = ceiling(bench, search, x, y)

        def attack(steps: int) -> Result:
            setting = replace(whole, steps=steps)
            if way is not None:
                return ours(way, model, search, setting)(x, y)
            return (bare_loop if who == BARE else PEERS[who])(model, setting)(x, y)

        attack(2)  # warm
        seconds: list[float] = []
        while len(seconds) < 3 and sum(seconds) < 3 / bench.shorten:
            torch.manual_seed(0)
            began = bench.clock()
            result = attack(whole.steps)
            seconds.append(bench.clock() - began)
        once = statistics.median(seconds)
        steps = len(x) * whole.steps if result.row_steps is None else result.row_steps
        waits = per_step(attack, bench.device) if way is not None and way.waits else None
    return {
        "n": len(x),
        "seconds": once,
        "all_seconds": seconds,
        "image_steps": steps,
        "rate": steps / once,
        "ceiling": most,
        "of_ceiling": steps / once / most,
        "robust": int((~result.fooled).sum()),
        "waits": waits,
    }


def members(shorten: int) -> list[tuple[str, Any]]:
    """The names and attacks of the suite."""

    def shortened(attack: Any) -> Any:
        fields = {name: getattr(attack, name, 0) for name in ("steps", "probe")}
        return replace(attack, **{name: max(1, value // shorten) for name, value in fields.items() if value > 1})

    return [(member.name, shortened(member.attack)) for member in load_suite(SUITE).members]


def suite(bench: Bench, precision: str, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """The suite as a cascade on a search copy; what is left is judged in float32."""
    with full_float32():
        made = make_search_copy(model, x[:64], precision)  # type: ignore[arg-type]
        with torch.no_grad():
            left = model(x).argmax(1) == y
        found = []
        for name, attack in members(bench.shorten):
            at, start = left.nonzero()[:, 0], bench.clock()
            if not len(at):
                break
            outcome = attack.run(model, x[at], y[at], ids=at, batch_size=len(x), search=made.module)
            with torch.no_grad():
                fell = model(outcome.images).argmax(1) != y[at]
            left[at] = ~(fell & (distance(outcome.images - x[at], "linf") <= allowed(attack.eps)))
            found.append({"member": name, "left": int(left.sum()), "seconds": bench.clock() - start})
    seconds, robust = sum(each["seconds"] for each in found), int(left.sum())
    return {"n": len(x), "seconds": seconds, "robust": robust, "copy": made.describe(), "members": found}


def tests(bench: Bench) -> dict[str, Any]:
    """`pytest -m cuda` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "cuda",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "tests/test_cuda.py",
    ]
    began = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=min(180, bench.left))
    except subprocess.TimeoutExpired as error:
        raise OutOfTime from error
    lines = done.stdout.strip().splitlines()
    return {"seconds": time.perf_counter() - began, "rc": done.returncode, "said": lines[-60:]}


def cannot(who: str, device: torch.device) -> str:
    """Why a contender cannot run here; empty if it can."""
    if who in WAYS and WAYS[who].needs_cuda and device.type != "cuda":
        return "needs CUDA"
    try:
        importlib.import_module(who if who in AMONG else "torch")
    except Exception as error:  # a peer fails in as many ways as it has needs
        return f"cannot be imported ({type(error).__name__})"
    return ""
