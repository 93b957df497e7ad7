"""Registries name what they hold as "module:name", so that reading one imports nothing; this is the import."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any


def locate(path: str) -> Any:
    """What "module:name" names, imported now.

    >>> locate("pathlib:Path").__name__
    'Path'
    """
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def optional(module: str, extra: str) -> Any:
    """A module of a package that robustlab does without, imported now; a `UserError` where it is not installed.

    extra: what robustlab calls it (`pip install "robustlab[extra]"`).

    >>> optional("json", "json").__name__
    'json'
    """
    try:
        return import_module(module)
    except ImportError as error:
        from robustlab.base.errors import UserError  # late: whoever only hands out names imports nothing

        package = module.partition(".")[0]
        what = "is not installed" if error.name == package else f"cannot be imported ({error})"
        raise UserError(
            f'{extra}: needs the package {package}, which {what}: pip install "robustlab[{extra}]"'
        ) from error


def exports(module: str, paths: Iterable[str]) -> Callable[[str], Any]:
    """A `__getattr__` for a module that hands out the named objects when they are first asked for.

    >>> exports("mine", ["pathlib:Path"])("Path").__name__
    'Path'
    """
    homes = {path.rpartition(":")[2]: path for path in paths}

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return locate(homes[name])

    return __getattr__
