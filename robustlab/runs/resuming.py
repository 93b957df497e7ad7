"""What a run folder holds before it is written to: nothing, another run, the same run unfinished, or something else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from robustlab.errors import UserError
from robustlab.files import disk

_OURS = ("run.json", "data.jsonl", "samples.jsonl", "parts", "images", "adversarial", "report.html")

Json = dict[str, Any]


def is_run(folder: Path) -> bool:
    """Does `folder` hold a run? UserError where it holds something else that a run would mix with, or remove."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; a folder was expected. Choose another --output.")
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if "run.json" in names:
        try:
            info = msgspec.json.decode((folder / "run.json").read_bytes())
        except ValueError:
            return True  # damaged: resuming says so, overwriting mends it
        if isinstance(info, dict) and "schema_version" in info and "config" in info:
            return True
    if names and (".lock" not in names or "run.json" in names):  # a lock without run.json: killed before it began
        raise UserError(
            f"{folder} holds files that are no run of robustlab ({', '.join(names[:3])}). Choose another --output."
        )
    return False


def resumed(info: Json, config: Json, about: Json, folder: Path) -> Json:
    """run.json of a run that goes on: as it was, with a warning where the environment is another one.

    UserError: it was started with another configuration.
    """
    changed = list(changes(info["config"], config))
    if changed:
        what = "; ".join(f"{name} was {_short(old)}, now {_short(new)}" for name, old, new in changed)
        raise UserError(
            f"--resume: the run in {folder} was started with another configuration ({what}), by"
            f" `{info.get('command') or 'a call from Python'}`. Give the same values, or choose another --output."
        )
    if info["finished"]:
        tidy(folder, info.get("images", []))
        return info
    for part in ("versions", "device", "git"):
        for name, old, new in changes(info.get(part), about.get(part, info.get(part)), part):
            info["warnings"].append(f"Resumed with another {name}: {_short(old)}, then {_short(new)}.")
    return info


def changes(
    old: Any,
    new: Any,
    at: str = "",
    same: Callable[[str, Any, Any], bool] = lambda at, a, b: bool(a == b),
    absent: str = "none",
) -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: dotted field, value there, value now.

    same: do the values at a field agree? absent: stands for the value of a field that is not there.

    >>> list(changes({"seed": 0, "eps": [0.1, 0.2]}, {"seed": 0, "eps": [0.1, 0.3]}))
    [('eps[1]', 0.2, 0.3)]
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            deeper = f"{at}.{key}" if at else key
            yield from changes(old.get(key, absent), new.get(key, absent), deeper, same, absent)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from changes(a, b, f"{at}[{index}]", same, absent)
    elif not same(at, old, new):
        yield at, old, new


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."


def clear(folder: Path) -> None:
    """Remove a run's files, and nothing else; run.json first, so that what a kill leaves is no run."""
    with disk(folder):
        for path in (*(folder / name for name in _OURS), *folder.glob(".*.tmp")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def tidy(folder: Path, images: Sequence[Json]) -> None:
    """Remove what a finished run does not need: merged parts, what a kill left, images not chosen."""
    wanted = {value for image in images for value in image.values() if isinstance(value, str)}
    with disk(folder):
        shutil.rmtree(folder / "parts", ignore_errors=True)
        for path in (*folder.glob(".*.tmp"), *(folder / "images").iterdir()):
            if f"images/{path.name}" not in wanted:
                path.unlink()
