"""The registry of filters, which look for poisoned training images. Importing this module imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.lazy import exports, locate

if TYPE_CHECKING:
    from robustlab.defenses.filters.abl import ABL as ABL
    from robustlab.defenses.filters.activation_clustering import ActivationClustering as ActivationClustering
    from robustlab.defenses.filters.base import Filter as Filter
    from robustlab.defenses.filters.base import Scores as Scores
    from robustlab.defenses.filters.base import Seen as Seen
    from robustlab.defenses.filters.beatrix import Beatrix as Beatrix
    from robustlab.defenses.filters.controls import Perfect as Perfect
    from robustlab.defenses.filters.controls import Random as Random
    from robustlab.defenses.filters.measure import measure_filter as measure_filter
    from robustlab.defenses.filters.robust_z import RobustZ as RobustZ
    from robustlab.defenses.filters.spectral import Spectral as Spectral
    from robustlab.defenses.filters.spectre import Spectre as Spectre
    from robustlab.defenses.filters.strip import Strip as Strip

FILTERS: dict[str, str] = {
    "spectral": "robustlab.defenses.filters.spectral:Spectral",
    "spectre": "robustlab.defenses.filters.spectre:Spectre",
    "robust-z": "robustlab.defenses.filters.robust_z:RobustZ",
    "activation-clustering": "robustlab.defenses.filters.activation_clustering:ActivationClustering",
    "beatrix": "robustlab.defenses.filters.beatrix:Beatrix",
    "strip": "robustlab.defenses.filters.strip:Strip",
    "abl": "robustlab.defenses.filters.abl:ABL",
    "random": "robustlab.defenses.filters.controls:Random",
    "perfect": "robustlab.defenses.filters.controls:Perfect",
}
_BASE = [f"robustlab.defenses.filters.base:{name}" for name in ("Filter", "Scores", "Seen")]
_MEASURE = "robustlab.defenses.filters.measure:measure_filter"


def filter_class(name: str) -> Any:
    """The dataclass behind a registry name; an unknown one is a `UserError`.

    >>> filter_class("spectral").__name__
    'Spectral'
    """
    if name not in FILTERS:
        raise UserError(f"There is no filter {name!r}.{did_you_mean(name, FILTERS)} Known: {', '.join(FILTERS)}.")
    return locate(FILTERS[name])


__getattr__ = exports(__name__, [*FILTERS.values(), *_BASE, _MEASURE])
