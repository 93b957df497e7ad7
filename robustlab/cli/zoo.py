"""`robustlab zoo`."""

from __future__ import annotations

from robustlab.cli.app import app
from robustlab.models.zoo import describe


@app.command
def zoo(name: str | None = None, /) -> int:
    """List the shipped models with their measured numbers, or show one.

    Parameters
    ----------
    name
        A zoo name such as road-signs/cnn.
    """
    print(describe(name))
    return 0
