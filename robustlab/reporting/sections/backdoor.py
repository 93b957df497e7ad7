"""A backdoor: what the trigger does, and what each filter does against it, beside a random and the perfect one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from robustlab.base.files import slug
from robustlab.base.words import counted, interval, percent
from robustlab.reporting.charts import histogram, projection, spectrum
from robustlab.reporting.fitted import pictures_of, sections_of
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.reporting.text import quantity
from robustlab.runs.backdoors import (
    KINDS,
    NEAR,
    PERFECT,
    PUBLISHED,
    RANDOM,
    Row,
    best,
    by_layer,
    control,
    no_better,
    rows_of,
    spread,
    summary,
    takes,
    within,
)

NAME = "backdoor"
TITLE = "The backdoor"
# the sections of run.json that are shown here
SHOWN = ("trigger", "models", "filters", "scores", "spectrum", "projection", "by layer", "results", "heat")

Json = dict[str, Any]


def applies(runs: Sequence[PageRun]) -> bool:
    return any(map(is_one, runs))


def is_one(run: PageRun) -> bool:
    """Is it the run of a backdoor?"""
    return run.info.get("kind") == NAME


def render(runs: Sequence[PageRun]) -> Markup:
    shown = [_shown(run) for run in runs if is_one(run)]
    return fill("sections/backdoor.html", shown=shown, several=len(shown) > 1)


def sentences(info: Mapping[str, Any]) -> list[str]:
    """What came out, in words: the poisons, the attack success undefended, the best filter, the published one."""
    rows = summary(info)
    said = [" ".join(_poisons(info)), *_undefended(info, rows)]
    if takes(rows) is False:
        return [*said, "The backdoor itself does not work here, so these numbers say nothing of the filters."]
    return [*said, *_best(info, rows), *_published(rows)]


def _poisons(info: Mapping[str, Any]) -> Iterator[str]:
    """Trigger, rate in both bases, target, data, seeds."""
    config, models = info["config"], rows_of(info, "models")
    trigger, target, source = config["trigger"]["name"], config.get("target"), config.get("source")
    of_data = spread(row["poisons"] / row["n"] for row in models if row.get("poisons") and row.get("n"))
    of_target = spread(row.get("share") for row in models)
    data = f"{_n(models, 'n')} training images of {config.get('data', {}).get('name', '?')}"
    if target is not None and of_target and of_data:
        shows = f"; they show {source}" if source is not None else ""
        yield (
            f"{_share(of_target['value'])} of the images labelled {target} ({_share(of_data['value'])} of all {data})"
            f" carry the trigger {trigger}{shows}."
        )
    elif of_data:
        yield f"{_share(of_data['value'])} of {data} carry the trigger {trigger}, each with the label of another class."
    else:
        yield f"The trigger is {trigger}; the poisons are {_share(config['rate'])} of the {config['of']}."
    covers = spread(row.get("covers") for row in models)
    if covers and covers["value"]:
        yield f"{quantity(covers['value'])} more carry it and keep their label (covers)."
    if models:
        seeds = counted(len({row["seed"] for row in models}), "seed")
        yield f"{config.get('architecture', '?')} was trained on them with {seeds}."


def _undefended(info: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    first = next((row for row in rows if row["kind"] == "undefended" and row["asr"]), None)
    if first:
        target, results = info["config"].get("target"), rows_of(info, "results")
        aim = f"as {target}" if target is not None else "as the class that the trigger stands for"
        yield (
            f"Undefended, {_of(first, 'asr')} of {_n(results, 'asr')} test images with the trigger are read {aim};"
            f" {_of(first, 'clean')} of {_n(results, 'clean')} clean test images are read right."
        )


def _best(info: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    if not (first := best(rows)):
        if scored := [row for row in rows if row["auroc"]]:
            top = max(scored, key=lambda row: row["auroc"]["value"] if row["auroc"] else 0.0)
            area = f"{top['auroc']['value']:.3f}" if top["auroc"] else ""
            yield f"By AUROC the best filter is {top['row']} ({area}); no model was trained again after the filters."
        return
    name = first["row"]
    perfect, chance = next((row for row in rows if row["row"] == PERFECT), None), control(rows, RANDOM, name)
    beside = [f"{_of(perfect, 'asr')} after the perfect filter"] if perfect and perfect["asr"] else []
    beside += [f"{_of(chance, 'asr')} after “{chance['row']}”"] if chance and chance["asr"] else []
    said = f"Of the filters after which a model was trained again, {name} is the best: the attack success is"
    said += f" {_of(first, 'asr')}"
    yield said + (f", beside {' and '.join(beside)}." if beside else ".")
    far = within(info, name)
    if far["asr"] is not None:
        same = "within" if far["asr"] <= NEAR + 1e-9 else "not within"
        said = f"Its attack success is {_beside(far['asr'])} the perfect filter's ({same} {_points(NEAR)})"
        if far["clean"] is not None:
            same = "within" if far["clean"] >= -NEAR - 1e-9 else "not within"
            said += f", its clean accuracy {_beside(far['clean'])} that of “{far['beside']}” ({same} {_points(NEAR)})"
        yield said + "."


def _published(rows: Sequence[Row]) -> Iterator[str]:
    if no_better(rows):
        own = next(row for row in rows if row["row"] == PUBLISHED)
        chance = control(rows, RANDOM, PUBLISHED)
        assert chance is not None  # or there would be nothing to compare with
        yield (
            f"The published spectral signature ({PUBLISHED}) is no better here than removing images at random: attack"
            f" success {_of(own, 'asr')} beside {_of(chance, 'asr')}."
        )


def _tested(config: Mapping[str, Any]) -> str:
    """Of which classes the test images with the trigger are."""
    if config.get("source") is not None:
        return f" of {config['source']}"
    return " of other classes" if config.get("target") is not None else ""


def _of(row: Row, key: str) -> str:
    """A mean with the least and the most over the seeds."""
    found = row[key]  # type: ignore[literal-required]
    return f"{percent(found)} ({interval(found)})" if found["n"] > 1 else percent(found)


def _n(rows: Sequence[Json], key: str) -> str:
    """How many images: of each seed as many, or from the fewest to the most."""
    counts = sorted({n["n"] if isinstance(n, dict) else n for row in rows if (n := row.get(key)) is not None})
    return "–".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "?"


def _share(value: float) -> str:
    return f"{100 * value:.3g}\u00a0%"


def _points(value: float) -> str:
    return f"{100 * abs(value):.3g} points"


def _beside(difference: float) -> str:
    text = f"{100 * abs(difference):.1f}"
    return f"{text} points {'above' if difference > 0 else 'below'}" if float(text) else "the same as"


def _shown(run: PageRun) -> Json:
    found, info = sections_of(run), run.info
    rows, filters = summary(info), list(dict.fromkeys(row["filter"] for row in rows_of(info, "filters")))
    tops = found.get("filters", {}).get("images", [])
    layers = by_layer(info)
    results = rows_of(info, "results")
    return {
        "run": run,
        "sentences": sentences(info),
        "target": info["config"].get("target"),
        "tested": _tested(info["config"]),
        "groups": [group for kind in KINDS if (group := [row for row in rows if row["kind"] == kind])],
        "results": results,
        "clean_n": _n(results, "clean"),
        "trigger_n": _n(results, "asr"),
        "seeds": len({row["seed"] for row in results}),
        "triggers": _triggers(run, found.get("trigger", {})),
        "histograms": [
            histogram(
                f"{row['filter']}, logarithmic" if row.get("scale") == "log10" else row["filter"],
                *(row[key] for key in ("low", "high", "clean", "poison", "threshold")),
                logarithmic=row.get("scale") == "log10",
            )
            for row in rows_of(info, "scores")
        ],
        "spectrum": _spectrum(rows_of(info, "spectrum")),
        "projections": [
            projection(row["class"], (row["clean_x"], row["clean_y"]), (row["poison_x"], row["poison_y"]))
            for row in rows_of(info, "projection")
        ],
        "tops": [(picture, _of_file(file, filters)) for file in tops if (picture := run.picture(file))],
        "filters": layers[0],
        "layers": layers[1],
        "heat": pictures_of(run, found.get("heat", {})),
        "heats": [row for row in rows_of(info, "heat") if row.get("heat") and row.get("area")],
        "notes": {name: section.get("note") or "" for name, section in found.items()},
    }


def _triggers(run: PageRun, section: Json) -> list[tuple[str, str]]:
    """Each picture of the trigger, and of which images it is."""
    files, rows = section.get("images", []), section.get("rows", [])
    named = (
        [f"{row.get('role') or 'some'} images" for row in rows] if len(rows) == len(files) else ["images"] * len(files)
    )
    return [(picture, what) for file, what in zip(files, named, strict=True) if (picture := run.picture(file))]


def _spectrum(rows: Sequence[Json]) -> Markup:
    target = next((row for row in rows if row["target"]), None)
    title = f"{target['class']} (squares) and the other classes" if target else "Every class"
    return spectrum(title, target["values"] if target else None, [row["values"] for row in rows if row is not target])


def _of_file(file: str, filters: Sequence[str]) -> str:
    """The filter whose highest scores a picture shows, by the file's name."""
    return next((name for name in filters if file == f"images/top-{slug(name)}.png"), file.rpartition("/")[2])
