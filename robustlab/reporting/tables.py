"""Tables for a paper or a spreadsheet: Markdown and LaTeX rounded, CSV as computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from robustlab.base.errors import UserError
from robustlab.base.words import duration
from robustlab.reporting.source import PageRun
from robustlab.reporting.table_formats import Column, Table, as_csv, latex, markdown
from robustlab.reporting.text import MINUS, p_value, points, quantity
from robustlab.runs import breakdowns
from robustlab.runs.factors import by_factor
from robustlab.runs.transfer import matrix

INTERVALS = "In brackets: 95 % Wilson intervals."


Build = Callable[[PageRun], Table]


def verdict(run: PageRun) -> Table:
    """One row a model: clean and robust accuracy, the worst class."""
    columns = [
        Column("model", "Model", "text"),
        Column("norm", "Norm", "text", printed=False),
        Column("eps", "Budget", printed=False),
        Column("clean_accuracy", "Clean accuracy", "share"),
        Column("robust_accuracy", "Robust accuracy", "share"),
        Column("robust_accuracy_8bit", "Robust, rounded to 8 bits", "share"),
        Column("worst_class", "Worst class", "text"),
        Column("worst_class_robust_accuracy", "Its robust accuracy", "share"),
        Column("worst_class_ties", "Other classes as low"),
    ]
    rows = []
    for model in run.models:
        worst = model["worst_class"] or {"name": None, "robust_accuracy": None}
        rows.append(
            {"model": model["name"], "norm": run.numbers["norm"], "eps": run.numbers["eps"]}
            | {key: model[key] for key in ("clean_accuracy", "robust_accuracy", "robust_accuracy_8bit")}
            | {"worst_class": worst["name"], "worst_class_robust_accuracy": worst["robust_accuracy"]}
            | {"worst_class_ties": worst.get("ties")}
        )
    said = "Accuracy in % of all n images, clean and under the whole suite; the worst class was picked after looking."
    return Table("verdict", f"{said} {INTERVALS}", columns, rows)


def differences(run: PageRun) -> Table:
    """One row for each pair of models, clean and robust: the paired difference and McNemar's test."""
    many = len(run.pairs) > 1
    columns = [
        Column("first", "First model", "text"),
        Column("second", "Second model", "text"),
        Column("images", "Images", "text"),
        Column("value", "Second minus first", written=points),
        Column("low", "from", written=points),
        Column("high", "to", written=points),
        Column("only_first", "Right only in first"),
        Column("only_second", "Right only in second"),
        Column("p", "p", printed=not many, written=_bare_p),
        Column("holm", "p, Holm", printed=many, written=_bare_p),
        Column("n", "n", printed=False),
    ]
    rows = [
        {"first": pair["first"], "second": pair["second"], "images": what, **pair[key]}
        for pair in run.pairs
        for key, what in (("clean", "clean"), ("robust", "attacked"))
        if pair[key]
    ]
    said = (
        "Difference of accuracy on the same images, in percentage points, with Newcombe's 95 % interval for paired"
        " shares (method 10) and p of McNemar's exact test."
    )
    if many:
        said += f" It is Holm-corrected over all {len(run.pairs)} pairs, the clean and the attacked images each."
    return Table("differences", said, columns, rows)


def attacks(run: PageRun) -> Table:
    """One row for each model and attack of its suite: what it left, broke and cost."""
    every = [attack for model in run.models for attack in model["attacks"]]
    farther = any(attack.get("found", attack["broken"]) != attack["broken"] for attack in every)
    unkeyed = list(dict.fromkeys(attack["name"] for attack in every if attack.get("unkeyed")))
    columns = [
        Column("model", "Model", "text"),
        Column("attack", "Attack", "text"),
        Column("norm", "Norm", "text", printed=False),
        Column("eps", "Budget", printed=False),
        Column("left", "Left after this attack", "share"),
        Column("broken", "Successes"),
        Column("attempted", "Attempted"),
        Column("success_rate", "Success rate", "share"),
        Column("success_8bit", "Still fooled in 8 bits", printed=False),
        Column("unverified", "Failed verification", printed=False),
        Column("errors", "Errors", printed=False),
        Column("missing", "Not attempted", printed=False),
        Column("median_distance", f"Median {run.norm}"),
        Column("found", "Found", printed=farther),
        *([Column("median_of_all", f"Median {run.norm} of all", written=_distance)] if run.unbounded else []),
        Column("forwards", "Forward"),
        Column("backwards", "Backward"),
        Column("seconds", "Time", printed=False, written=duration),
    ]
    rows = [
        {"model": model["name"], "attack": attack["name"], "norm": run.numbers["norm"], "eps": run.numbers["eps"]}
        | {column.key: attack.get(column.key) for column in columns[4:]}
        | ({"median_of_all": _of_all(attack)} if run.unbounded else {})
        for model in run.models
        for attack in model["attacks"]
    ]
    only = ""
    if run.cascades is not None:
        only = f" and{f', {run.cascades},' if run.cascades else ''} had withstood the attacks above"
    left = (
        "classified right and not turned into the target by this attack or those above it"
        if run.targeted
        else "still classified right after this attack and those above it"
    )
    said = (
        f"Left: share of all n images, in %, {left}. Success rate:"
        f" of the attempted images, which were classified right{only}."
        " Forward, backward: mean passes for an attempted image."
        + (" Median: of the found adversarials, also those outside the budget." if farther else "")
        + (f" {run.unbounded} tried every image without a budget." if run.unbounded else "")
        + (f" Unkeyed (the result depends on the batch size): {', '.join(unkeyed)}." if unkeyed else "")
    )
    return Table("attacks", f"{said} {INTERVALS}", columns, rows)


def curve(run: PageRun) -> Table:
    """One row for each model and budget of the security curve."""
    columns = [
        Column("model", "Model", "text"),
        Column("attack", "Attack", "text"),
        Column("norm", "Norm", "text", printed=False),
        Column("eps", f"Budget ({run.norm})", written=run.budget),
        Column("accuracy", "Accuracy", "share"),
    ]
    rows = [
        {"model": model["name"], "attack": point["source"], "norm": run.numbers["norm"], "eps": point["eps"]}
        | {"accuracy": point["share"]}
        for model in run.models
        for point in model["curve"]
    ]
    said = "Security curve: accuracy in % of all n images; a success at one budget counts at larger ones."
    return Table("curve", f"{said} {INTERVALS}", columns, rows)


def confusion(run: PageRun) -> Table:
    """One row for each model, true and predicted class that occur together, clean or attacked."""
    columns = [
        Column("model", "Model", "text"),
        Column("true", "True class", "text"),
        Column("predicted", "Predicted class", "text"),
        Column("clean", "Clean"),
        Column("attacked", "Attacked"),
        Column("difference", "Difference", written=_signed),
    ]
    rows = [
        {"model": name, "true": run.class_name(cell["true"]), "predicted": run.class_name(cell["predicted"])}
        | {key: cell[key] for key in ("clean", "attacked", "difference")}
        for name, found in run.answers.items()
        for cell in breakdowns.confusion(found)["cells"]
    ]
    said = (
        "Number of images of a true class with a predicted one. Attacked: the prediction on the image with which the"
        " first attack of the suite succeeded, or the clean prediction where it was wrong already or"
        " withstood all; samples that ended in an error or were not tried are left out."
    )
    return Table("confusion", said, columns, rows)


def factors(run: PageRun) -> Table:
    """One row for each model and bin of each factor of the images: accuracy, clean and under the suite."""
    columns = [
        Column("model", "Model", "text"),
        Column("factor", "Factor", "text"),
        Column("low", "from"),
        Column("high", "below"),
        Column("clean", "Clean accuracy", "share"),
        Column("robust", "Robust accuracy", "share"),
        Column("n", "n"),
    ]
    rows = [
        {"model": name, "factor": factor, "n": bin["clean"]["n"], **bin}
        for name, found, attacked in ((m["name"], run.answers[m["name"]], bool(m["attacks"])) for m in run.models)
        for factor, bins in by_factor(found, run.data_lines, attacked=attacked).items()
        for bin in bins
    ]
    said = "Accuracy in % of the n images whose factor lies in the range; a range of one value is that value."
    return Table("factors", f"{said} {INTERVALS}", columns, rows)


def transfer(run: PageRun) -> Table:
    """One row for each cell of the transfer matrix: on how many of a model's images those of another succeed."""
    columns = [
        Column("source", "Crafted on", "text"),
        Column("target", "Shown to", "text"),
        Column("attack", "Attack", "text", printed=False),
        Column("norm", "Norm", "text", printed=False),
        Column("eps", "Budget", printed=False),
        Column("turned", "Success rate", "share"),
        Column("n", "n"),
        Column("errors", "Errors", printed=False),
    ]
    board = matrix(run.info) or {"rows": [], "attack": ""}
    rows = [
        {key: row[key] for key in ("source", "target", "turned", "errors")}
        | {"attack": board["attack"], "norm": run.numbers["norm"], "eps": run.numbers["eps"]}
        | {"n": (row["turned"] or {"n": None})["n"]}
        for row in board["rows"]
    ]
    said = (
        f"Images crafted with {board['attack']} on one model and shown to another: of the n images that the second"
        " classifies right, the share on which the attack succeeds, in %. Where both are the same, it is a white-box"
        " attack."
    )
    return Table("transfer", f"{said} {INTERVALS}", columns, rows)


def _of_all(attack: dict[str, Any]) -> float | None:
    """The median distance over all images; infinite where for most none was found."""
    if "median_of_all" not in attack:
        return None
    return math.inf if attack["median_of_all"] is None else float(attack["median_of_all"])


def _distance(value: float | None) -> str:
    return "∞" if value == math.inf else quantity(value)


def _bare_p(p: float) -> str:
    return p_value(p).removeprefix("= ")


def _signed(count: int) -> str:
    return f"{'+' if count > 0 else MINUS if count < 0 else ''}{abs(count):,}"


TABLES: dict[str, Build] = {
    "verdict": verdict,
    "differences": differences,
    "attacks": attacks,
    "curve": curve,
    "confusion": confusion,
    "factors": factors,
    "transfer": transfer,
}
# why a table has no row
EMPTY = {
    "differences": "it has one model. Give a run of two models, or two comparable runs.",
    "attacks": "no attack was run.",
    "curve": "it has no security curve. Run `robustlab attack` with a suite that has an attack of several steps.",
    "transfer": "it has no transfer matrix. Run `robustlab attack` with --suite transfer.",
    "factors": "its data have no factors, or they do not vary.",
}
FORMATS = {"markdown": markdown, "latex": latex, "csv": as_csv}


def written(run: PageRun, name: str, format: str) -> str:
    """The table `name` of TABLES in one of FORMATS. UserError where the run has no such numbers."""
    if not run.models:
        raise UserError(f"{run.name} is no attack run: it has no {name}. Give a folder that `robustlab attack` wrote.")
    table = TABLES[name](run)
    if not table.rows:
        raise UserError(f"{run.name} has nothing for the table {name}: {EMPTY.get(name, 'it counted nothing.')}")
    return FORMATS[format](table._replace(caption=f"{table.caption} {_about(run, name)}"))


def _about(run: PageRun, table: str) -> str:
    """Data, number of images and threat: a number without them says nothing."""
    threat = run.limits if table == "transfer" else run.threat  # its rows say what the images were crafted on
    labels = ", labels: each model's own clean answers" if run.own_labels else ""
    often = {model["evaluations"] for model in run.info["config"].get("models", []) if "evaluations" in model}
    majority = f", randomised models: the majority of {max(often)} evaluations" if often else ""
    robust = "; robust: right, and not turned into the target" if run.targeted else ""
    data = f"{run.data['name']}, {run.data['split']} split, n = {run.models[0]['n']:,}"
    return f"{data}{labels}{majority}; {threat}{robust}."
