"""Going on with what is there: only with the same configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from robustlab.base.errors import UserError

Json = dict[str, Any]


def check_same(info: Json, config: Json, folder: Path, what: str) -> None:
    """UserError that names the fields in which a configuration is not that of run.json."""
    if changed := list(changes(info["config"], config)):
        fields = "; ".join(f"{name} was {_short(old)}, now {_short(new)}" for name, old, new in changed)
        raise UserError(
            f"--resume: the {what} in {folder} was started with another configuration ({fields}), by"
            f" `{info.get('command') or 'a call from Python'}`. Give the same values, replace it"
            " (--overwrite), or choose another --output."
        )


def resumed(info: Json, config: Json, about: Json, folder: Path) -> Json:
    """run.json of a run that goes on: as it was, with a warning where the environment is another one.

    UserError: it was started with another configuration.
    """
    check_same(info, config, folder, "run")
    if info["finished"]:
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
    if isinstance(value, list) and value and all(isinstance(each, dict) and "name" in each for each in value):
        value = ", ".join(str(each["name"]) for each in value)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
