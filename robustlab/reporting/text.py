"""How numbers, budgets and names are written: one place, for the page and the terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import markupsafe
from markupsafe import Markup

from robustlab.base.words import as_fraction, visible

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
MINUS = "\u2212"

# an absolute path, unix or Windows: at least one folder, then a last component, which is what stays
_PATH = re.compile(r"(?<![\w.~/\\-])(?:/|[A-Za-z]:\\)(?:[^\s/\\:'\"<>|,;()]+[/\\])+(?=[^\s/\\])")


def escape(text: object) -> Markup:
    """A text for the page: escaped, with what cannot be seen as an escape. Markup stays as it is.

    >>> print(escape("<b>\\u202e"))
    &lt;b&gt;\\u202e
    """
    return text if isinstance(text, Markup) else markupsafe.escape(visible(text, "\n"))


def points(value: float, digits: int = 1) -> str:
    """A difference of two shares, in percentage points, always with its sign.

    >>> points(-0.032), points(0.614), points(0.0)
    ('−3.2', '+61.4', '0.0')
    """
    text = f"{100 * abs(value):.{digits}f}"
    if not float(text):
        return text
    return (MINUS if value < 0 else "+") + text


def p_value(p: float) -> str:
    """A p with its relation sign.

    >>> p_value(0.0703), p_value(1e-9)
    ('= 0.070', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def budget(eps: float, norm: str) -> str:
    """eps as people write it: k/255 where it is that in linf, otherwise three digits.

    >>> budget(8 / 255, "linf"), budget(0.1, "linf"), budget(8 / 255, "l2")
    ('8/255', '0.1', '0.0314')
    """
    return as_fraction(eps, 3) if norm == "linf" else f"{eps:.3g}"


def quantity(value: float | None) -> str:
    """A count or a measured mean, three digits or all before the point.

    >>> quantity(21), quantity(1234.5), quantity(0.03137), quantity(None)
    ('21', '1,234', '0.0314', '–')
    """
    if value is None:
        return "–"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def bin_labels(bins: Sequence[tuple[float | None, float | None]]) -> list[str]:
    """The bins of a factor in words, from the low (included) to the high (not included); None is open, equal is one.

    >>> bin_labels([(None, -30), (-30, 2.5), (2.5, None)]), bin_labels([(0, 0)])
    (['under −30', '−30 to 2.5', '2.5 and more'], ['0'])
    """
    labels = []
    for low, high in bins:
        start, end = ("" if edge is None else f"{edge:.6g}".replace("-", MINUS) for edge in (low, high))
        if low == high:
            labels.append(start)
        elif low is None:
            labels.append(f"under {end}")
        else:
            labels.append(f"{start} and more" if high is None else f"{start} to {end}")
    return labels


def without_paths(value: Any) -> Any:
    """The same JSON, with the folders of absolute paths taken out: a page is shown to strangers.

    >>> without_paths({"command": "robustlab attack /home/ann/net.py:make --eps 8/255"})
    {'command': 'robustlab attack net.py:make --eps 8/255'}
    """
    if isinstance(value, str):
        return _PATH.sub("", value)
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, dict):
        return {without_paths(key): without_paths(item) for key, item in value.items()}
    return value


def shown_names(names: Sequence[str]) -> dict[str, str]:
    """What each model is called where people read: of an absolute path only as many last parts as tell it apart.

    What `robustlab train` writes, a model.toml, has the name of its folder. A defense follows after a plus.

    >>> shown_names(["/home/ann/plain/model.toml", "/home/ann/net.py:make", "road-signs/cnn"])
    {'/home/ann/plain/model.toml': 'plain', '/home/ann/net.py:make': 'net.py:make', 'road-signs/cnn': 'road-signs/cnn'}
    >>> list(shown_names(["/a/old/net.py:make", "/a/new/net.py:make"]).values())
    ['old/net.py:make', 'new/net.py:make']
    """
    unique = list(dict.fromkeys(names))
    paths = [name.removesuffix("/model.toml").replace("/model.toml+", "+").split("/") for name in unique]
    found = [(parts[-1] or name) if name.startswith("/") else name for name, parts in zip(unique, paths, strict=True)]
    for length in range(2, max((len(parts) for parts in paths), default=0)):
        often = Counter(found)
        for i, name in enumerate(unique):
            if often[found[i]] > 1 and name.startswith("/"):
                found[i] = "/".join(paths[i][-length:])
    found = [without_paths(name) for name in found]
    return dict(zip(unique, distinct(found), strict=True))


def distinct(names: Sequence[str]) -> list[str]:
    """The same names, numbered where one occurs twice.

    >>> distinct(["run", "other", "run"])
    ['run #1', 'other', 'run #2']
    """
    often, taken = Counter(names), set(names)
    found = []
    for name in names:
        number = 1
        shown = name
        while often[name] > 1 and shown in taken:
            shown = f"{name} #{number}"
            number += 1
        taken.add(shown)
        found.append(shown)
    return found
