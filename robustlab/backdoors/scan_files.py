"""What a scan leaves in its folder, and what it says."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from typing import Any

import torch
from markupsafe import Markup

from robustlab.backdoors.scan import FALSE_ALARMS, Scan
from robustlab.base.pictures import packed, sheet, to_picture
from robustlab.base.words import cell, interval, percent
from robustlab.reporting.templates import render
from robustlab.reporting.text import without_paths

SHOWN, _COLUMNS, _LARGE = 48, 12, 160
_BINS = 40

ALSO = (
    "Wrong labels, near duplicates and merely odd images turn up among the suspicious, too: look at the sheet before"
    " you remove anything. For label errors use the package cleanlab, which is made for them."
)


def csv_of(result: Scan, files: Sequence[str] | None) -> tuple[bytes, bytes]:
    """suspicious.csv, all images with the most suspicious first, and kept.csv, by id, those not dropped."""
    data, found = result.data, result.found

    def first(i: int) -> list[Any]:
        label = int(data.labels[i])
        return [int(data.ids[i]), cell(files[i]) if files else "", label, cell(data.classes[label])]

    head = ["id", "file", "label", "class"]
    ranked = [
        [*first(i), f"{float(found.scores[i]):.6g}", int(result.ranks[i]), int(found.removed[i])]
        for i in result.order.tolist()
    ]
    kept = [first(i) for i in data.ids.argsort().tolist() if not result.dropped[i]]
    return _table([*head, "score", "rank_in_class", "over_threshold"], ranked), _table(head, kept)


def sheet_of(result: Scan) -> bytes:
    """A contact sheet: the first `SHOWN` of the ranking, row by row."""
    shown = result.data.images[result.order[:SHOWN]]
    if max(shown.shape[2:]) > _LARGE:
        step = -(-max(shown.shape[2:]) // _LARGE)
        shown = torch.nn.functional.avg_pool2d(shown, step)
    missing = -len(shown) % min(_COLUMNS, len(shown))
    shown = torch.cat([shown, shown.new_ones(missing, *shown.shape[1:])])
    return packed(to_picture(sheet(list(shown.split(_COLUMNS)))))


def said(result: Scan) -> list[str]:
    """What is printed: the verdict, the power, and what it does not say."""
    data, over, power = result.data, int(result.found.removed.sum()), result.power
    lines = [f"{over} of {len(data)} images are over the threshold (the filter knows {result.found.knows})."]
    if not result.standing_out:
        lines.append(
            "Nothing stands out: no class has more images far out than the others have. Clean classes have images"
            " over the threshold, too; and poisons that the model learned badly are not seen."
        )
    for label in result.standing_out:
        own = data.labels == label
        lines.append(
            f"Class {data.classes[label]!r} stands out: {int(result.found.removed[own].sum())} of {int(own.sum())}"
            " images are over the threshold, and more are far out than in the other classes. Look at them."
        )
    if result.standing_out:
        lines.append(f"That is a hint, not a proof: with robust-z, {FALSE_ALARMS}.")
    lines.append(f"kept.csv leaves out {int(result.dropped.sum())} of them: those of classes that stand out.")
    if power is None:
        lines.append(
            "No power was measured: the given model has not seen planted poisons. The ranking means something only if"
            " the model was trained on these very images."
        )
    else:
        if result.accuracy is not None:
            lines.append(
                f"The small cnn is right on {100 * result.accuracy:.1f} % of the validation images; where that is low,"
                " the ranking means little: try more --epochs, or a --model of yours."
            )
        name, attack = data.classes[power.target], power.attack_success
        found, n = power.planted, power.planted["n"]
        if not power.learned:
            lines.append(
                f"The model did not learn the planted trigger: it works on {percent(attack)} of {attack['n']}"
                " validation images only. The power below says nothing then: try more --epochs or more images."
            )
        lines.append(
            f"Power: of {n} badnets poisons planted in a copy as {name!r}, {round((found['value'] or 0) * n)} are over"
            f" the threshold ({percent(found)}, 95 % interval {interval(found)}); the class"
            f" {'stands' if power.stands_out else 'does not stand'} out there. The trigger then works on"
            f" {percent(attack)} of {attack['n']} validation images. Other triggers may be found less often."
        )
    return [*lines, ALSO]


def page_of(result: Scan, sheet_png: bytes, told: dict[str, Any]) -> bytes:
    """A page in one file: what was said, the histogram of the scores of each class, and the sheet."""
    listed = result.order[:SHOWN].tolist()
    values = {
        "name": without_paths(result.data.name),
        "told": told,
        "said": without_paths(said(result)),
        "charts": [_histogram(result, row) for row in told["classes"]],
        "sheet": Markup("data:image/png;base64," + base64.b64encode(sheet_png).decode()),  # our own PNG
        "rows": [
            (int(result.data.ids[i]), result.data.classes[int(result.data.labels[i])], float(result.found.scores[i]))
            for i in listed
        ],
    }
    return render("scan.html", **values).encode()


def _histogram(result: Scan, row: dict[str, Any]) -> dict[str, Any]:
    """The bars of one class, from the lowest to the highest score: x, height (at most 60), over the threshold."""
    own = result.data.labels == row["label"]
    scores, removed = result.found.scores[own].double(), result.found.removed[own]
    low, high = float(scores.min()), float(scores.max())
    place = ((scores - low) / max(high - low, 1e-12) * _BINS).long().clamp(max=_BINS - 1)
    under, over = (place[mask].bincount(minlength=_BINS).tolist() for mask in (~removed, removed))
    top = max(a + b for a, b in zip(under, over, strict=True)) ** 0.5  # root scale: a few are seen beside many
    bars = [(8 * i, 60 * n**0.5 / top, kind) for kind, each in ((0, under), (1, over)) for i, n in enumerate(each) if n]
    return {**row, "low": low, "high": high, "bars": bars}


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([head, *rows])
    return file.getvalue().encode()
