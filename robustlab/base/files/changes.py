"""Where two configurations differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec


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


def short(value: Any) -> str:
    """A value as a message shows it; of tables with names, the names."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "name" in each for each in value):
        value = ", ".join(str(each["name"]) for each in value)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
