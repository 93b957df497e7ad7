"""The same images before and after a defense: attacked on the model without it, and on the model with it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from markupsafe import Markup

from robustlab.base.intervals import paired_difference
from robustlab.reporting.comparison import MergedRun
from robustlab.reporting.sections.side_by_side import BYTES, canvas, pictures, tiles
from robustlab.reporting.sections.verdict import trained
from robustlab.reporting.source import Json, PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.breakdowns import Answer
from robustlab.runs.defended import bare_models

NAME = "before-after"
TITLE = "Two models, the same images"
ROWS = 6  # of pictures, of a pair


def applies(runs: Sequence[PageRun]) -> bool:
    return any(found(run) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    known = [(run, pairs) for run in runs if (pairs := found(run))]
    room = BYTES // sum(len(pairs) for _, pairs in known)
    shown = [{"run": run, "pairs": [_pair(run, *pair, room) for pair in pairs]} for run, pairs in known]
    return fill("sections/before_after.html", shown=shown, canvas=canvas)


def found(run: PageRun) -> list[tuple[str, str, str]]:
    """Models before and after a defense, and how that is known: (before, after, words).

    A model behind a defense has the bare one before it, and one that was trained by a defense the plain one
    that it started from, or else the only plain one of the same size. Of two runs with one model each, of the same
    size, nothing need be known: they were given in this order, and nothing is said of a defense.
    """
    attacked = [model["name"] for model in run.models if model["attacks"]]
    bare = {
        after: before for after, before in bare_models(run.info["config"]).items() if {after, before} <= {*attacked}
    }
    pairs = [(before, after, f"{after} is {before} behind its defense") for after, before in bare.items()]
    told = {model["name"]: model for model in run.info.get("models", []) if model["name"] not in bare}
    by = {name: trained(run).get(name, (None, ""))[0] for name in attacked if name in told}
    plain = [name for name, recipe in by.items() if recipe and _is_plain(recipe)]
    for after, recipe in by.items():
        if recipe is None or after in plain:
            continue
        alike = [name for name in plain if _size(told[name]) == _size(told[after])]
        start = [name for name in alike if recipe.partition(", from ")[2] in (name, _source(told[name]))]
        if len(start or alike) == 1:
            (before,) = start or alike
            pairs.append((before, after, f"{after} was trained by a defense ({recipe}), {before} without one"))
    if not pairs and isinstance(run, MergedRun) and len(by) == len(attacked) == 2:
        before, after = attacked
        if by[after] is None and _size(told[before]) == _size(told[after]):
            pairs.append(
                (before, after, "whether one of the two has a defense is not known here: they stand as they were given")
            )
    return pairs


def _is_plain(recipe: str) -> bool:
    """Trained without a defense? As `ModelCard.trained` says it: "plain with ema, from road-signs/cnn"."""
    how, *_ = recipe.split(", from ")
    return how.startswith("plain") and "awp" not in how


def _source(model: Json) -> str | None:
    """The name by which it was loaded; on a page of several runs it may have another one."""
    name: str | None = (model.get("source") or {}).get("name")
    return name


def _size(model: Json) -> int | None:
    size: int | None = model.get("parameters")
    return size


def _pair(run: PageRun, before: str, after: str, known: str, left: int) -> Json:
    answers = [{answer.id: answer for answer in run.answers[name]} for name in (before, after)]
    kinds = ("right", "robust") if not run.own_labels else ("robust",)
    rows = {kind: _cells(answers[0], answers[1], kind) for kind in kinds}
    ids = rows["robust"]["ids"]
    kept = [_kept(run, name, mine) for name, mine in zip((before, after), answers, strict=True)]
    queues = [[(kept[0][i], kept[1][i]) for i in cell if i in kept[0] and i in kept[1]] for cell in ids]
    tested = next((pair for pair in run.pairs if {pair["first"], pair["second"]} == {before, after}), {})
    for kind, row in rows.items():
        p = tested.get("robust" if kind == "robust" else "clean") or row["difference"]
        row["p"] = p.get("holm", p["p"])
    examples = pictures(queues, lambda images: _example(run, *images), ROWS, left)
    return {"before": before, "after": after, "known": known, "rows": rows, "examples": examples}


def _cells(before: dict[int, Answer], after: dict[int, Answer], kind: str) -> Json:
    """Which images are right in both, only before, only after, in neither; and the paired difference."""
    where: dict[tuple[bool, bool], list[int]] = {cell: [] for cell in product((True, False), (True, False))}
    for i in (i for i in before if i in after):
        where[getattr(before[i], kind), getattr(after[i], kind)].append(i)
    counts = [len(ids) for ids in where.values()]
    return {"ids": list(where.values()), "counts": counts, "difference": paired_difference(*counts)}


def _kept(run: PageRun, model: str, answers: dict[int, Answer]) -> dict[int, Json]:
    """The kept image that shows what became of each sample: what broke it, or the last that it withstood."""
    chosen = {}
    for image in run.info.get("images", []):
        answer = answers.get(image["id"])
        if image["model"] == model and answer and (answer.robust or image["attack"] == answer.attack):
            chosen[image["id"]] = image
    return chosen


def _example(run: PageRun, before: Json, after: Json) -> Json | None:
    truth = run.class_name(before["label"])
    drawn = tiles(
        (run.picture(before["clean"]), "clean image", truth),
        (run.picture(before["adv"]), f"image after {before['attack']} on {before['model']}", _said(run, before)),
        (run.picture(after["adv"]), f"image after {after['attack']} on {after['model']}", _said(run, after)),
    )
    return None if drawn is None else {"id": before["id"], "tiles": drawn}


def _said(run: PageRun, image: Json) -> str:
    says = run.class_name(image["prediction"])
    return f"✗ {says} ({image['attack']})" if image["success"] else f"✓ {says}, withstood"
