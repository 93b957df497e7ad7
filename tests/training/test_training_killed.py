"""A training that is killed, or has no more room on the disk, and goes on as if nothing had been."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustlab.base.errors import RunError
from robustlab.base.files.directory import Directory
from tests.training.test_training import HERE, SMALL, fit, is_finished, without_times


def test_a_full_disk_destroys_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(SMALL, epochs=4, ema=0.9)
    fit(tmp_path / "whole", recipe, drawn=False)
    folder, written = tmp_path / "full", list[bytes]()
    write: Callable[..., None] = Directory.write

    def full(self: Directory, name: str, data: bytes, **options: Any) -> None:
        if name.endswith("last.pt"):
            written.append(data)
            if len(written) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, name, data, **options)

    monkeypatch.setattr(Directory, "write", full)
    with pytest.raises(RunError, match="No space left on device.*resume=True"):
        fit(folder, recipe, drawn=False)
    assert (folder / "last.pt").read_bytes() == written[1] and not is_finished(folder)
    shown: list[Any] = []
    fit(folder, recipe, resume=True, on_epoch=shown.append, drawn=False)
    assert [entry["epoch"] for entry in shown] == [3, 4]
    assert without_times(folder) == without_times(tmp_path / "whole")


# forks a process for each training, so that torch is imported once
KILLED = """
import os, random, signal, sys, threading, time
from dataclasses import replace
from pathlib import Path
import torch
from tests.training.test_training import SMALL, fit, is_finished

torch.set_num_threads(1)
ATTACK = {"method": "pgd-at", "steps": 2}
RECIPE = replace(SMALL, epochs=12, defense=ATTACK, ema=0.95, awp=0.01, awp_warmup=1.5, clip=1.0)


def train(folder, seconds=None):
    child = os.fork()
    if child == 0:
        fit(folder, RECIPE, resume=True, drawn=False)
        os._exit(0)
    killer = threading.Timer(seconds or 0, os.kill, (child, signal.SIGKILL))
    if seconds:
        killer.start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    killer.cancel()
    return code


base, moments = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
began = time.time()
assert train(base / "whole") == 0
whole = time.time() - began
killed = [train(base / "killed", moments.uniform(0.02, 0.25) * whole) for _ in range(4)]
assert killed.count(-signal.SIGKILL) > 1, killed
assert is_finished(base / "killed") or train(base / "killed") == 0
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    seed = random.randrange(1000)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(seed)]
    done = subprocess.run(command, env={**HERE, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, (seed, done.stderr[-3000:])
    assert without_times(tmp_path / "killed") == without_times(tmp_path / "whole"), seed
