"""What a reader sees besides the measured numbers: the head of run.json, and the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from robustlab import __version__
from robustlab.base.errors import UserError
from robustlab.base.reading import read_bounded
from robustlab.data import Data
from robustlab.evaluation.cascade import perturbation_scale
from robustlab.evaluation.record import meanings
from robustlab.models.classifier import Classifier
from robustlab.reporting.comparison import read_runs
from robustlab.reporting.page import page
from robustlab.runs import StoredRun
from robustlab.threat.model import ThreatModel, parse_eps
from robustlab.verification.checks import Compared, differences, leaves

PAGE_BYTES = 64 << 20  # of a page: six times what ours may have


def compare_header(run: StoredRun, data: Data, name: str, models: Sequence[Classifier]) -> Compared:
    """What run.json says of suite, seed, eps, data and models beside its configuration. name: of the data."""
    info, config = run.info, run.info["config"]
    threat = ThreatModel(**config["threat"])
    shape = list(data.images.shape[1:])
    attacked = {"name": name, "split": data.split, "hash": data.hash, "n": len(run.data_lines)}
    # a run of an earlier version did not record what its factors mean
    told = {"factors": meanings(data)} if "factors" in info["data"] else {}
    typed = info.get("eps_typed")
    again: dict[str, Any] = {
        "suite": config["suite"],
        "seed": config["seed"],
        "eps_typed": typed if _is_eps(typed, threat.eps) else f"{threat.eps:g}",
        "perturbation_scale": perturbation_scale(threat, math.prod(shape)),
        "data": {**attacked, "shape": shape, **told},
        "models": [{"hash": m.hash(), "parameters": sum(p.numel() for p in m.parameters())} for m in models],
        "config": {"data": attacked},
    }
    check = Compared("run.json: suite, seed, eps, data, models", leaves(again))
    check.wrong += differences(_like(again, info), again)
    return check


def compare_page(run: StoredRun) -> list[Compared]:
    """report.html, where there is one, against the page that comes out now."""
    try:
        stored = read_bounded("report.html", PAGE_BYTES, folder=run.folder)
    except FileNotFoundError:
        return []
    check = Compared("report.html")
    same = stored == page(read_runs([run.folder]))
    written = run.info.get("versions", {}).get("robustlab")
    by = "" if written == __version__ else f" by robustlab {__version__}; the run was written by {written}"
    check.record("report.html", [] if same else [f"it is not what `robustlab report {run.folder}` writes{by}"])
    return [check]


def _is_eps(typed: Any, eps: float) -> bool:
    """Is this text the budget? A default may be typed in six digits."""
    try:
        return math.isclose(parse_eps(typed), eps, rel_tol=1e-5)
    except UserError:
        return False


def _like(pattern: Any, value: Any) -> Any:
    """Of a JSON value what the pattern has, too."""
    if isinstance(pattern, dict) and isinstance(value, dict):
        return {key: _like(pattern[key], value[key]) for key in pattern if key in value}
    if isinstance(pattern, list) and isinstance(value, list) and len(pattern) == len(value):
        return [_like(a, b) for a, b in zip(pattern, value, strict=True)]
    return value
