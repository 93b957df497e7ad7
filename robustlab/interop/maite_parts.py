"""What a model of any kind computes with: the torch modules and arrays that its attributes lead to."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

DEPTH = 8  # attributes of attributes, and so on
_NO_PARTS = (type, types.ModuleType, str, bytes, int, float, complex, type(None))


def parts_of(model: Any) -> dict[str, Any]:
    """Modules and arrays by their path from the model, in the order of the paths. Each is named once.

    Looks into attributes, lists, tuples, mappings, bound methods and partials. A module's own modules are part of it.

    >>> from types import SimpleNamespace as Holder
    >>> list(parts_of(Holder(stages=[Holder(net=nn.Linear(2, 2)), {"bias": np.zeros(2)}])))
    ['.stages.0.net', '.stages.1.bias']
    """
    return dict(sorted(_walk(model, "", DEPTH, {})))


def _walk(thing: Any, path: str, depth: int, seen: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    """seen: by id; it holds the things, so that no id is used again."""
    if isinstance(thing, _NO_PARTS) or id(thing) in seen:
        return
    seen[id(thing)] = thing
    if isinstance(thing, nn.Module | Tensor | np.ndarray):
        yield path, thing
        inside = list(thing.modules()) if isinstance(thing, nn.Module) else []
        seen.update((id(each), each) for each in inside)
    elif depth:
        for name, value in _inside(thing):
            yield from _walk(value, f"{path}.{name}", depth - 1, seen)


def _inside(thing: Any) -> list[tuple[str, Any]]:
    if isinstance(thing, Mapping):
        found = [(str(key), value) for key, value in thing.items()]
    elif isinstance(thing, list | tuple):
        return [(str(at), value) for at, value in enumerate(thing)]
    elif isinstance(thing, types.MethodType):
        found = [("self", thing.__self__)]
    elif isinstance(thing, functools.partial):
        found = [("func", thing.func), ("args", thing.args), ("keywords", thing.keywords)]
    else:
        found = list(getattr(thing, "__dict__", {}).items())
    return sorted(found, key=lambda item: item[0])
