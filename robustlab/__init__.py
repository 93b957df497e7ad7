"""robustlab: how an image classifier fails, how badly, why, and what makes it better.

The public functions are imported when first used, so that `import robustlab` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustlab.data import load_data
    from robustlab.evaluation import evaluate
    from robustlab.models import load_model
    from robustlab.reporting import report
    from robustlab.training import train

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load_data", "load_model", "report", "train"]

_HOMES = {
    "evaluate": "robustlab.evaluation",
    "load_data": "robustlab.data",
    "load_model": "robustlab.models",
    "report": "robustlab.reporting",
    "train": "robustlab.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'robustlab' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
