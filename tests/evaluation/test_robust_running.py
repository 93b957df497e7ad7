"""What goes wrong while a run goes on: nothing written is damaged, nothing that failed counts as robust, and the run
goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustlab
from robustlab.attacks.suite import load_suite
from robustlab.base.errors import RunError, UserError
from robustlab.cli import main
from robustlab.evaluation.listener import Listener


class Net(nn.Module):
    """A linear model that does something to its input first."""

    def __init__(self, before: Callable[[Net, Tensor], Any] = lambda net, x: None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(48, 3), nn.Dropout())
        self.before, self.calls = before, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        answer = self.before(self, x)
        return self.inner(x) if answer is None else answer  # type: ignore[no-any-return]


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    x = torch.rand(48, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x, Net().eval()(x).argmax(1)


def run(net: nn.Module, data: Any, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    options = {"chunk_size": 16, "search_copy": False, "curve": ["2/255"], "audit": 0, **options}
    listener = Listener(say=told.append)
    suite = load_suite(attacks=["fgsm", "pgd:steps=6"])
    return robustlab.evaluate({"net": net}, data, suite, output=folder, listener=listener, **options), told


def whole(folder: Path) -> dict[str, bytes]:
    """What a run found: its lines, images and stored adversarials, and run.json without times."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("run.json", "report.html")
    }
    info = json.loads((folder / "run.json").read_text())
    for key in ("times", "passes", "operational", "name", "command"):
        del info[key]
    for model in info["aggregates"]["models"]:
        for attack in model["attacks"]:
            del attack["seconds"]
    return found | {"run.json": json.dumps(info, sort_keys=True).encode()}


def outcomes(folder: Path) -> list[tuple[Any, ...]]:
    """The fields that do not depend on how floats are rounded in batches of another size."""
    return [
        (line.attack, line.eps, line.id, line.adv, line.success, line.verified, line.rank, line.forwards, line.error)
        for line in robustlab.runs.read_run(folder).lines
    ]


# --- memory ---------------------------------------------------------------------------------------------------------


def short_of_memory(error: Exception, gradient: bool | None) -> Callable[[Net, Tensor], None]:
    """No room for more than 6 images: in every pass, or only in those with or without a gradient."""

    def before(net: Net, x: Tensor) -> None:
        if len(x) > 6 and gradient in (None, x.requires_grad):
            raise error

    return before


NO_ROOM = torch.OutOfMemoryError("CUDA out of memory")
ON_A_CPU = RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize(
    ("error", "gradient"), [(NO_ROOM, None), (NO_ROOM, True), (NO_ROOM, False), (ON_A_CPU, None), (MemoryError(), None)]
)
def test_the_batch_halves_until_it_fits_and_nothing_else_changes(
    data: tuple[Tensor, Tensor], tmp_path: Path, error: Exception, gradient: bool | None
) -> None:
    run(Net(), data, tmp_path / "room", batch_size=4)
    _, told = run(Net(short_of_memory(error, gradient)), data, tmp_path / "short", batch_size=16)
    assert [t for t in told if "memory" in t] == [
        "Out of memory: going on with batches of 8.",
        "Out of memory: going on with batches of 4.",
    ]
    assert outcomes(tmp_path / "short") == outcomes(tmp_path / "room")


def test_no_room_for_one_image_stops_the_run_and_it_can_go_on(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    def before(net: Net, x: Tensor) -> None:
        if x.requires_grad and net.calls > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RunError, match=r"batch of one image.*resume=True"):
        run(Net(before), data, tmp_path / "run", batch_size=4)
    assert list((tmp_path / "run" / "parts").glob("*.jsonl"))
    run(Net(), data, tmp_path / "run", batch_size=4, resume=True)
    run(Net(), data, tmp_path / "other", batch_size=4)
    assert whole(tmp_path / "run") == whole(tmp_path / "other")


LIMITED = """
import resource
import sys

import torch
from torch import nn

from robustlab.cli import main


class Hungry(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))

    def forward(self, x):
        room = torch.ones(len(x), 2**20)  # 4 MiB an image
        return self.inner(x) + 0 * room.mean()


def net():
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
    return Hungry()


def free():
    return Hungry()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: tuple[Tensor, Tensor]) -> Path:
    """A folder with data.npz: the 48 images as bytes."""
    monkeypatch.chdir(tmp_path)
    images = data[0].mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    np.savez("data.npz", test_images=images, test_labels=data[1].numpy())
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")
def test_a_real_limit_on_memory(place: Path) -> None:
    (place / "limited.py").write_text(LIMITED)
    args = ["--data", "npz:data.npz", "--attack", "fgsm", "--no-curve", "--batch-size", "48", "--labels", "predicted"]
    command = [sys.executable, "limited.py", "attack", "limited.py:net", *args, "--output", "run"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # each further thread wants room of its own
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread)
    assert done.returncode == 0, done.stderr
    assert "Out of memory: going on with batches of 24." in done.stderr and "no heatmaps" in done.stderr
    assert main(["attack", "limited.py:free", *args, "--output", "free"]) == 0
    lines = [(place / folder / "samples.jsonl").read_text().replace(":free", ":net") for folder in ("run", "free")]
    assert lines[0] == lines[1]


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError("layer"), AssertionError(), ZeroDivisionError("0"), RuntimeError("odd")])
def test_a_model_that_raises_under_attack_is_never_robust(
    data: tuple[Tensor, Tensor], tmp_path: Path, error: Exception
) -> None:
    def before(net: Net, x: Tensor) -> None:
        if x.requires_grad and net.calls > 40:
            raise error

    with pytest.raises(RunError, match=rf"samples ended in an error.*{type(error).__name__}"):
        run(Net(before), data, tmp_path / "run")
    stored = robustlab.runs.read_run(tmp_path / "run")
    failed = {line.id for line in stored.lines if line.error}
    model = stored.info["aggregates"]["models"][0]
    assert failed and round(model["robust_accuracy"]["value"] * 48) <= 48 - len(failed)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (KeyError("layer"), r"failed on clean images \(chunk 1\): KeyError: 'layer'.*resume=True"),
        (float("nan"), r"NaN or infinite values on clean images \(chunk 1\)"),
    ],
)
def test_a_model_that_fails_on_clean_images_stops_the_run(
    data: tuple[Tensor, Tensor], tmp_path: Path, answer: Any, message: str
) -> None:
    marked = data[0][20].clone()  # in the second chunk, and not in the first batch that is checked

    def before(net: Net, x: Tensor) -> Tensor | None:
        if not any(torch.equal(one, marked) for one in x) or len(x) > 16:
            return None
        if isinstance(answer, Exception):
            raise answer
        return net.inner(x) * answer  # type: ignore[no-any-return]

    with pytest.raises(RunError, match=message):
        run(Net(before), data, tmp_path / "run", batch_size=16)
    assert list((tmp_path / "run" / "parts").glob("*clean*00000.jsonl"))
    run(Net(), data, tmp_path / "run", batch_size=16, resume=True)
    run(Net(), data, tmp_path / "other", batch_size=16)
    assert whole(tmp_path / "run") == whole(tmp_path / "other")


def test_nan_under_attack_is_an_error_and_not_robust(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    clean = data[0]

    def before(net: Net, x: Tensor) -> Tensor | None:
        moved = torch.stack([(clean - one.detach()).abs().amax((1, 2, 3)).min() > 1e-3 for one in x])
        return torch.where(moved[:, None], torch.nan, net.inner(x))  # type: ignore[no-any-return]

    with pytest.raises(RunError, match="NaN or infinite values or gradients under attack"):
        run(Net(before), data, tmp_path / "run")
    model = robustlab.runs.read_run(tmp_path / "run").info["aggregates"]["models"][0]
    assert model["clean_accuracy"]["value"] == 1 and model["robust_accuracy"]["value"] == 0


def test_a_model_that_changes_its_own_mode(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"net: The model's forward puts .* training mode \(module.inner\)"):
        run(Net(lambda net, x: net.inner.train() and None), data, tmp_path / "never")
    assert not (tmp_path / "never").exists()

    def late(net: Net, x: Tensor) -> None:
        if net.calls == 60:
            net.inner.train()

    net = Net(late).eval()
    with pytest.raises(RunError, match=r"net went into training mode during the run \(inner\)"):
        run(net, data, tmp_path / "run")
    assert not any(module.training for module in net.modules())  # as it was given
    run(Net(), data, tmp_path / "run", resume=True)
    run(Net(), data, tmp_path / "other")
    assert whole(tmp_path / "run") == whole(tmp_path / "other")
    assert not net._forward_hooks


# --- disk, kill -9 --------------------------------------------------------------------------------------------------

DISK = """
import os
import resource

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.calls = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), 0

    def forward(self, x):
        self.calls += 1
        if self.calls == int(os.environ.get("FULL_AT", 0)):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # as if the disk had no more room
        return self.inner(x)


net = Net
"""
ATTACK = ["attack", "disk.py:net", "--data", "npz:data.npz", "--labels", "predicted", "--chunk-size", "16"]
ATTACK += ["--attack", "fgsm", "--attack", "pgd:steps=3", "--curve", "2/255", "--save-adversarial", "--audit", "6"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "disk.py").write_text(DISK)
    assert main([*ATTACK, "--output", "whole"]) == 0
    monkeypatch.setenv("FULL_AT", "30")
    command = [sys.executable, "-m", "robustlab", *ATTACK, "--output", "full"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Cannot write in full: File too large. What is finished is safe" in done.stderr and "--resume" in done.stderr
    assert not list((place / "full").rglob("*.tmp"))
    monkeypatch.delenv("FULL_AT")
    assert main([*ATTACK, "--output", "full", "--resume"]) == 0
    assert whole(place / "full") == whole(place / "whole")


WITH_TESTS = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
}
# forks a process for each run, so that torch is imported once; each child kills itself before its k-th look at a file
# of the folder or change in it
KILLER = """
import os
import random
import signal
import sys

import robustlab.evaluation.evaluate
from killing import die_at
from robustlab.cli import main


def run(folder, kill_at, *more):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    touched = die_at(kill_at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    code = main([*sys.argv[1:], "--output", folder, *more])
    if not kill_at:
        print("\\n" + str(touched.count), flush=True)
    os._exit(code)


def whole(folder):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(write, 1)
        os._exit(run(folder, 0))
    os.close(write)
    return int(os.fdopen(read).read().split()[-1])


touches = whole("whole")
draw = random.Random(0)
middle = draw.sample(range(9, touches - 10), 4)
for k in [1, 3, 7, *middle, touches - 9, touches - 5, touches - 2]:
    assert run(f"killed-{k}", k) == -signal.SIGKILL, k
    assert run(f"killed-{k}", 1 + k % 6, "--resume") == -signal.SIGKILL, k  # and once more on the way
    assert run(f"killed-{k}", 0, "--resume") == 0, k
"""


@pytest.mark.slow  # one kill is in test_cli.py, one at every operation on a file in runs/test_folder.py
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_killed_at_any_moment(place: Path) -> None:
    """kill -9 at keyed moments, at the start, in the middle and while finishing, twice; then the same bytes."""
    (place / "disk.py").write_text(DISK)
    (place / "killer.py").write_text(KILLER)
    done = subprocess.run([sys.executable, "killer.py", *ATTACK], capture_output=True, text=True, env=WITH_TESTS)
    assert done.returncode == 0, done.stderr[-3000:]
    killed = list(place.glob("killed-*"))
    assert len(killed) == 10
    for folder in killed:
        assert whole(folder) == whole(place / "whole"), folder
        assert (
            not [path for path in folder.iterdir() if path.name.startswith(".")] and (folder / "report.html").exists()
        )
