"""The verdict: models side by side, in one sentence, one table, and the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.base.words import duration, interval, percent
from robustlab.reporting.answer import cards, lead
from robustlab.reporting.figures import share_bar
from robustlab.reporting.sections.gallery import CRISP
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.reporting.text import p_value, points
from robustlab.runs.audits import audit_of

NAME = "verdict"
TITLE = "Verdict"


def applies(runs: Sequence[PageRun]) -> bool:
    return any(run.models for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        if run.models:
            said = sentences(run)
            first, folded = lead(run, said[: len(run.models)], said[len(run.models) :])
            about = {"run": run, "lead": first, "folded": folded, "alarms": alarms(run), "trained": trained(run)}
            size = max((run.data.get("shape") or [1])[1:], default=1)
            shown.append(about | {"cards": cards(run), "crisp": size <= CRISP})
    return fill("sections/verdict.html", shown=shown, share_bar=share_bar)


def trained(run: PageRun) -> dict[str, tuple[str, str]]:
    """By model: how it was trained, and what that cost; of those whose card says it."""
    found = {}
    for model in run.info.get("models", []):
        if told := model.get("trained"):
            cost = [f"{told['epochs']} epochs"] if "epochs" in told else []
            cost += [duration(told["seconds"])] if "seconds" in told else []
            found[model["name"]] = (str(told["by"]), ", ".join(cost))
    return found


def sentences(run: PageRun) -> list[str]:
    """The verdict in words: one sentence for each model, one for each pair."""
    said = []
    for at, model in enumerate(run.models):
        name, robust, n = model["name"], model["robust_accuracy"], model["n"]
        right = f"{name} classifies {percent(model['clean_accuracy'])} of {n:,} images right"
        if robust is None:
            said.append(f"{right}; it was not attacked." if not run.own_labels else f"{name} was not attacked.")
            continue
        under = f"under attack ({run.threat})" if at == 0 else "under attack"
        share = f"{percent(robust)} (95 % interval {interval(robust)})"
        if run.own_labels:
            keeps = "is not turned into its target" if run.targeted else "keeps its own answer"
            said.append(f"{name} {keeps} on {share} of {n:,} images {under}.")
        elif run.targeted:
            said.append(f"{right}; {share} are right and not turned into their targets {under}.")
        else:
            said.append(f"{right}, and {share} {under}.")
    for pair in run.pairs:
        robust = pair["robust"]
        if robust and robust["value"] is not None:
            clean = None if run.own_labels else pair["clean"]
            said.append(
                _compared(pair["first"], pair["second"], robust, clean)
                + _unsettled("Robust accuracy", robust)
                + _unsettled("Clean accuracy", clean)
            )
    return said


def _unsettled(what: str, difference: dict[str, Any] | None) -> str:
    """A sentence where McNemar's test and Newcombe's interval disagree whether there is a difference, otherwise ""."""
    if difference is None or (difference["p"] < 0.05) == (difference["low"] > 0 or difference["high"] < 0):
        return ""
    return (
        f" {what}: McNemar's test (p {p_value(difference['p'])}) and the 95 % interval of the difference"
        f" ({points(difference['low'])} to {points(difference['high'])} points) disagree, so {difference['n']:,} images"
        " do not settle it."
    )


def _compared(first: str, second: str, robust: dict[str, Any], clean: dict[str, Any] | None) -> str:
    if robust["holm"] >= 0.05:
        return (
            f"These {robust['n']:,} images do not show that {first} and {second} differ in robust accuracy"
            f" (McNemar p {p_value(robust['holm'])}{', Holm-corrected' if robust['holm'] != robust['p'] else ''})."
        )
    better, worse, sign = (second, first, 1) if robust["value"] > 0 else (first, second, -1)
    said = f"{better} keeps {points(abs(robust['value'])).lstrip('+')} points more than {worse} under attack"
    if clean is None:
        return f"{said}."
    cost = -sign * clean["value"]
    if clean["holm"] >= 0.05:
        return f"{said}, with no clear difference in clean accuracy."
    if cost > 0:
        return f"{said}, and pays for it with {points(cost).lstrip('+')} points of clean accuracy."
    return f"{said}, and is better on clean images too ({points(-cost)} points)."


def alarms(run: PageRun) -> list[str]:
    """What makes the numbers other than they seem: labels that are no truth, samples that no attack judged."""
    found = list(run.info["warnings"])
    if run.surrogates:
        found.append(
            f"Transfer: the images were crafted on {run.crafted_on}, and the attacked model was only shown them. The"
            " numbers hold for an attacker who cannot see it; for one who can, robust accuracy is an upper bound, often"
            " far too high."
        )
    if not run.same_surrogates:
        found.append("No two models were attacked from the same surrogates: what sets them apart may be those.")
    if run.own_labels:
        found.append(
            "Right means here: as the model itself answered on the clean image, whatever is true. The numbers say how"
            f" {'hard its answers are to turn into the targets' if run.targeted else 'stable its answers are'}, not how"
            " right."
        )
    found += [_randomised(model) for model in run.info["config"].get("models", []) if "evaluations" in model]
    for model in run.models:
        record = audit_of(run.info, model["name"])
        failed = [check["title"] for check in (record or {"checks": []})["checks"] if check["status"] == "fail"]
        if failed:
            found.append(
                f"{model['name']}: the audit of the attack says not to believe these numbers. It found untrue:"
                f" {'; '.join(title[0].lower() + title[1:] for title in failed)}."
            )
        units = run.tables.get(model["name"], {})
        ended = {unit: sum(line.error is not None for line in lines.values()) for unit, lines in units.items()}
        errors = sum(ended.values())
        elsewhere = sum(count for (_, eps), count in ended.items() if eps not in (0, run.numbers["eps"]))
        missing = sum(attack["missing"] for attack in model["attacks"])
        if errors:
            where = f", {elsewhere:,} of them at other budgets of the curve" if elsewhere else ""
            found.append(f"{model['name']}: {errors:,} attempts ended in an error{where}; they count as not robust.")
        if missing:
            found.append(f"{model['name']}: {missing:,} standing samples were not attempted; they count as not robust.")
    return found


def _randomised(model: dict[str, Any]) -> str:
    """What was done about a model that answers differently each time. model: its entry in the configuration."""
    if "eot" in model:
        said = f"Gradients were averaged over {model['eot']} evaluations."
    else:
        said = "Each gradient is a single draw, with which attacks do badly: see --eot."
    return (
        f"{model['name']} is randomised. {said} An image counts as right where at"
        f" least half of {model['evaluations']} evaluations are, and as fooled where more than half are; another seed"
        " or batch size moves the numbers a little."
    )
