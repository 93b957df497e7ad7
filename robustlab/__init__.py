"""robustlab: how an image classifier fails, how badly, why, and what makes it better.

The public functions are imported when first used, so that `import robustlab` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustlab.base.lazy import exports

if TYPE_CHECKING:
    from robustlab.base.errors import UserError
    from robustlab.data import load_data
    from robustlab.evaluation.evaluate import evaluate
    from robustlab.models import load_model, two_classes
    from robustlab.reporting import report
    from robustlab.training import train
    from robustlab.verification import verify

__version__ = "0.1.0"
__all__ = [
    "UserError",
    "__version__",
    "evaluate",
    "load_data",
    "load_model",
    "report",
    "train",
    "two_classes",
    "verify",
]

__getattr__ = exports(
    __name__,
    [
        "robustlab.base.errors:UserError",
        "robustlab.evaluation.evaluate:evaluate",
        "robustlab.data:load_data",
        "robustlab.models:load_model",
        "robustlab.reporting:report",
        "robustlab.training:train",
        "robustlab.models:two_classes",
        "robustlab.verification:verify",
    ],
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
