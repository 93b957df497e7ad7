"""How a run is done: one dataclass for the library call and for the command's flags. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from robustlab.errors import UserError


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Seed, precision, search_copy, compile, chunk_size, full, curve and keep decide what comes out, the rest not."""

    seed: int = 0
    """Key of all random draws."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    batch_size: int | None = None
    """Rows in the working batch (default: 128 on a CPU, 512 on a GPU; halved where memory runs out)."""

    chunk_size: int = 512
    """Samples in a unit of work, the smallest piece that --resume need not repeat."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the search copy; what it finds is always judged by the given model in float32."""

    search_copy: bool = True
    """Search on a copy made for speed, where it agrees with the model."""

    compile: bool = False
    """Compile the search copy."""

    full: bool = False
    """Run every attack on every correctly classified sample, not only on what is still robust."""

    curve: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="--no-curve")] = None
    """Budgets of the security curve (default: 1/4, 1/2, 1, 3/2 and 2 times eps; --no-curve for none)."""

    keep: int = 1
    """Kept example images for each model, attack, class and outcome."""

    save_adversarial: bool = False
    """Store every adversarial image, as safetensors."""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("chunk_size", 1), ("keep", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name.replace('_', '-')} must be at least {least}, got {value}.")
