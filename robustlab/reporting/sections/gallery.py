"""The gallery: images before and after, what the model looked at, and what it said; to filter and to enlarge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

from markupsafe import Markup

from robustlab.base.words import listed
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.aggregates import found_beyond

NAME = "gallery"
TITLE = "Gallery"

BYTES = 5_000_000  # of images in the page: with everything else it stays well under 10 MB
FIRST = 12  # of a model; the others are folded away
CLASSES = 50  # in a filter, whether an example shows them or not
CRISP = 96  # pixels: smaller images are shown with their pixels, larger ones are scaled smoothly

Json = dict[str, Any]
T = TypeVar("T")


def applies(runs: Sequence[PageRun]) -> bool:
    return any(run.info.get("images") for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    groups, cleans = _groups(runs)
    shown = []
    for at, run in enumerate(runs):
        mine = [group for group in groups if group["run"] == at]
        items = [item for group in mine for item in group["items"]]
        if not items:
            continue
        size = (run.data.get("shape") or [1, 1, 1])[1:]
        shown.append(
            {
                "run": run,
                "keep": _keep(run),
                "open": any(item["outcome"] == "open" for item in items),
                "size": size,
                "crisp": max(size) <= CRISP,
                "explained": any("heat_adv" in item["pictures"] for item in items),
                "cleans": cleans[at],
                "filters": _filters(run, items),
                "groups": [
                    group | {"shade": shade % 6, "heat": _heat(run, group["model"])} for shade, group in enumerate(mine)
                ],
            }
        )
    return fill("sections/gallery.html", shown=shown, first=FIRST, megabytes=BYTES / 1e6)


def _groups(runs: Sequence[PageRun]) -> tuple[list[Json], list[dict[str, str]]]:
    """The examples that the page has room for, of each model; and the clean images of each run, by their anchor.

    A clean image is in the page once, whoever attacked it.
    """
    groups: list[Json] = []
    queues = []
    for at, run in enumerate(runs):
        for name in (model["name"] for model in run.models):
            kept = [image for image in run.info.get("images", []) if image["model"] == name]
            queues.append(in_turns(kept, {a.id for a in run.answers[name] if a.attacked is None}))
            groups.append({"run": at, "model": name, "items": [], "kept": len(kept), "missing": 0})
    cleans: list[dict[str, str]] = [{} for _ in runs]
    left = BYTES
    for place, image in one_of_each(queues):
        group = groups[place]
        item = _item(runs[group["run"]], image)
        if item is None:
            group["missing"] += 1  # its picture is not there
            continue
        anchor, there = f"clean-{group['run']}-{image['id']}", cleans[group["run"]]
        left -= sum(len(uri) for kind, uri in item["pictures"].items() if kind != "clean" or anchor not in there)
        if left < 0:
            break
        there[anchor] = item["pictures"]["clean"]
        group["items"].append(item | {"tiles": _tiles(item, anchor, f"adv-{place}-{len(group['items'])}")})
    for group, queue in zip(groups, queues, strict=True):
        group["cut"] = len(group["items"]) + group["missing"] < len(queue)
    return groups, cleans


def in_turns(images: Sequence[Json], unknown: Container[int] = ()) -> list[Json]:
    """One model's examples to show, in order: the successes of each attack, what withstood all, and the rest, in turn.

    A sample that withstood the suite comes once, with the last attack on it, and so does one whose worst case is not
    known (`unknown` ids); what one attack left and another one broke comes with the latter only.

    >>> kept = [(0, True, "fgsm"), (1, False, "fgsm"), (2, True, "pgd"), (3, True, "pgd"), (1, False, "pgd")]
    >>> images = [{"id": i, "success": s, "robust": not s, "attack": a} for i, s, a in kept]
    >>> [(image["id"], image["attack"]) for image in in_turns(images)]
    [(0, 'fgsm'), (1, 'pgd'), (2, 'pgd'), (3, 'pgd')]
    """
    strata: dict[Any, dict[Any, Json]] = defaultdict(dict)
    for at, image in enumerate(images):
        if image["success"]:
            strata[image["attack"]][at] = image
        elif image["robust"] or image["id"] in unknown:
            strata[image["robust"]].pop(image["id"], None)
            strata[image["robust"]][image["id"]] = image
    return [image for _, image in one_of_each([list(stratum.values()) for stratum in strata.values()])]


def one_of_each(queues: Sequence[Sequence[T]]) -> Iterator[tuple[int, T]]:
    """The first of each queue, then the second of each ...: (number of the queue, example)."""
    for turn in zip_longest(*queues):
        yield from ((place, image) for place, image in enumerate(turn) if image is not None)


def _item(run: PageRun, image: Json) -> Json | None:
    """An example with its pictures as data URIs; None where the clean or the adversarial one is not there."""
    kinds = ("clean", "delta", "adv", "heat_clean", "heat_adv", "heat_same")
    pictures = {kind: uri for kind in kinds if (uri := run.picture(image.get(kind)))}
    if "clean" not in pictures or "adv" not in pictures:
        return None
    suite = _attacks(run)
    outcome, said, fits = _outcome(run, image)
    return {
        **image,
        "pictures": pictures,
        "outcome": outcome,
        "said": said,
        "attacks": " ".join(str(suite.index(name)) for name in fits),
        "truth": run.class_name(image["label"]),
        "before": run.class_name(image["clean_prediction"]),
        "after": run.class_name(image["prediction"]),
        "beyond": _beyond(run, image),
    }


def _beyond(run: PageRun, image: Json) -> bool:
    """Is it the nearest adversarial image that an attack on the distance found, outside the budget?"""
    eps, norm = run.numbers["eps"], run.numbers["norm"]
    line = run.tables.get(image["model"], {}).get((image["attack"], eps), {}).get(image["id"])
    return line is not None and not image["success"] and found_beyond(line, norm, eps, run.targeted)


def _outcome(run: PageRun, image: Json) -> tuple[str, str, list[str]]:
    """What became of an example: a value of the filter, the words, and the attacks that are responsible for it."""
    if image["success"]:
        return "fooled", f"fooled by {image['attack']}", [image["attack"]]
    suite = [attack["name"] for model in run.models if model["name"] == image["model"] for attack in model["attacks"]]
    if image["robust"]:
        return "withstood", f"withstood all, last {image['attack']}", suite
    units, eps = run.tables.get(image["model"], {}), run.numbers["eps"]
    tried = {name: line for name in suite if (line := units.get((name, eps), {}).get(image["id"]))}
    left = [name for name, line in tried.items() if line.error is None]
    failed = [name for name, line in tried.items() if line.error is not None]
    why = f"ended in an error in {listed(failed)}" if failed else "not tried by the others"
    return "open", f"withstood {listed(left)}, {why}", left


def _keep(run: PageRun) -> str:
    """How many examples were kept in each stratum, in words; merged runs may differ."""
    keeps: dict[int, list[str]] = defaultdict(list)
    for name, config in run.settings:
        keeps[config.get("keep", 1)].append(name)
    if len(keeps) == 1:
        return "one" if 1 in keeps else str(*keeps)
    return " or ".join(f"{keep} (in {listed(names)})" for keep, names in keeps.items())


def _tiles(item: Json, clean: str, adv: str) -> list[Json]:
    """What is drawn, in reading order. `base` refers to an image that is in the page already, `over` lies on it."""
    pictures = item["pictures"]
    zero = {kind: ", zero everywhere" for kind in item.get("heat_zero") or []}
    maps = (
        ("heat_clean", clean, f"Grad-CAM of the clean image for {item['before']}"),
        ("heat_adv", adv, f"Grad-CAM of the attacked image for {item['after']}"),
        ("heat_same", adv, f"Grad-CAM of the attacked image for {item['before']}"),
    )
    blank = {"base": None, "over": None, "uri": None, "anchor": None}
    tiles = [
        {"view": "clean", "label": "clean image", "base": clean},
        {"view": "delta", "label": "perturbation", "uri": pictures.get("delta")},
        {"view": "adv", "label": "attacked image", "uri": pictures["adv"], "anchor": adv},
        *(
            {"view": kind, "label": label + zero.get(kind, ""), "base": base, "over": pictures[kind]}
            for kind, base, label in maps
            if kind in pictures
        ),
    ]
    return [blank | tile for tile in tiles]


def _attacks(run: PageRun) -> list[str]:
    return list(dict.fromkeys(attack["name"] for model in run.models for attack in model["attacks"]))


def _heat(run: PageRun, model: str) -> str:
    """What became of the model's heatmaps, in one phrase."""
    made = (run.info.get("heatmaps") or {}).get(model)
    if not made:
        return "Grad-CAM: not run."
    if made["reason"]:
        return f"Grad-CAM: not run: {made['reason'].rstrip('.')}."
    said = f"Grad-CAM at layer {made['layer']}; {made['zero']:,} of {made['maps']:,} maps are zero everywhere."
    return said + _moved(made.get("shift") or {})


def _moved(shift: Json) -> str:
    """How far the heat moves, beside both controls; nothing where no attack succeeded."""
    if all(each["mean"] is None for each in shift.values()):
        return ""
    new, same, noise = (averaged(shift[kind]) for kind in ("adv", "same", "noise"))
    return (
        f" Rank correlation of the heat before and after an attack that succeeded: {new} for the new class, {same} for"
        f" the old one; with the same change at random places {noise}."
    )


def averaged(mean: Json) -> str:
    """A mean rank correlation with its interval and n."""
    if mean["mean"] is None:
        return "– (all maps are zero)"
    if mean["low"] is None:
        return f"{mean['mean']:.2f} (n = {mean['n']})"
    return f"{mean['mean']:.2f} ({max(mean['low'], -1):.2f} to {min(mean['high'], 1):.2f}; n = {mean['n']})"


def _filters(run: PageRun, items: Sequence[Json]) -> list[Json]:
    """The choices of each filter: (value as in the item's data attribute, name)."""
    count = len(run.data["classes"])
    every = set(range(count)) if count <= CLASSES else set()  # of a larger set only those that occur here
    true, predicted = (every | {item[key] for item in items} for key in ("label", "prediction"))
    known = [("fooled", "fooled"), ("withstood", "withstood all"), ("open", "error or not tried")]
    outcomes = [(value, name) for value, name in known if value != "open" or any(i["outcome"] == value for i in items)]
    return [
        {"name": "model", "label": "Model", "options": [(m["name"], m["name"]) for m in run.models]},
        {"name": "attack", "label": "Attack", "options": [(str(at), name) for at, name in enumerate(_attacks(run))]},
        {"name": "true", "label": "Own answer" if run.own_labels else "True class", "options": _classes(run, true)},
        {"name": "predicted", "label": "After the attack", "options": _classes(run, predicted)},
        {"name": "outcome", "label": "Outcome", "options": outcomes},
    ]


def _classes(run: PageRun, labels: set[int | None]) -> list[tuple[str, str]]:
    return [(str(label), run.class_name(label)) for label in sorted(label for label in labels if label is not None)]
