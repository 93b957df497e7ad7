"""The security curve: accuracy against the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from robustlab.base.words import listed
from robustlab.reporting.figures import ModelCurve, Point, security_curve
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill

NAME = "curve"
TITLE = "Security curve"


def applies(runs: Sequence[PageRun]) -> bool:
    return any(_drawable(run) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        if not _drawable(run):
            continue
        lines = [
            ModelCurve(
                model["name"],
                [Point(p["eps"], p["share"]["value"], p["share"]["low"], p["share"]["high"]) for p in model["curve"]],
            )
            for model in run.models
        ]
        classes = 0 if run.targeted else len(run.data["classes"])  # who guesses seldom guesses the target
        budgets = sorted({p["eps"] for model in run.models for p in model["curve"]})
        shares = [{p["eps"]: p["share"] for p in model["curve"]} for model in run.models]
        shown.append(
            {
                "run": run,
                "figure": security_curve(
                    lines,
                    tick=run.budget,
                    norm=run.norm,
                    headline=run.numbers["eps"],
                    chance=1 / classes if classes else None,
                ),
                "rows": [(run.budget(eps), [of_model.get(eps) for of_model in shares]) for eps in budgets],
                "attack": run.info["config"]["curve"]["attack"],
                "short": _short(run.info["config"]),
                "classes": classes,
                "headline": _headline(run),
            }
        )
    return fill("sections/curve.html", shown=shown)


def _drawable(run: PageRun) -> bool:
    return any(len(model["curve"]) > 1 and model["n"] for model in run.models)


def _short(config: Mapping[str, Any]) -> bool:
    """Is the curve's attack short tries, of which it takes one at each budget?"""
    named = {each["name"]: each["method"] for each in config["attacks"]}
    return named.get(config["curve"]["attack"]) == "short-tries"


def _headline(run: PageRun) -> str:
    """Whose distances the curve is made of: the curve's attack, and those that come before it in the suite."""
    said: dict[str, list[str]] = {}
    for name, config in run.settings:
        if "curve" not in config:
            continue
        suite, attack = [each["name"] for each in config["attacks"]], config["curve"]["attack"]
        before = suite[: suite.index(attack)] if attack in suite else []
        what = f"{attack} and what came before it in the suite ({', '.join(before)})" if before else attack
        said.setdefault(what, []).append(name)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{what} in {listed(names)}" for what, names in said.items())
