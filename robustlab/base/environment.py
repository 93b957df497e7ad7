"""Where a run happened: versions, device, git. For provenance only; nothing here decides a result."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from robustlab.base.errors import UserError, spelled
from robustlab.base.typed import check_device
from robustlab.base.words import first_line


def resolve_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA where there is one, otherwise the CPU; anything else is cpu, cuda or cuda:N and must be there."""
    if check_device(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        what = first_line(error).rstrip(".")
        raise UserError(
            f"The device {name!r} cannot be used here: {what}. Use {spelled('device', 'cpu')}, or leave it out."
        ) from error
    return device


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in ("robustlab", "torch", "torchvision", "numpy", "captum"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def describe_device(device: torch.device) -> dict[str, object]:
    """The device's kind and name, and how many threads torch uses on the CPU."""
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return {"type": device.type, "name": _processor(), "threads": torch.get_num_threads()}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_state() -> dict[str, object] | None:
    """The commit of the checkout that robustlab was imported from and whether it has changes; None outside one."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(git("status", "--porcelain", "-uno"))}
