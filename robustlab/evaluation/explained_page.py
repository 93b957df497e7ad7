"""What `robustlab explain` leaves in its folder: pictures, a page and the numbers, and what it says."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from markupsafe import Markup
from torch import Tensor

from robustlab.base.pictures import blended, heat_png, outlined, png, sheet
from robustlab.base.words import counted
from robustlab.evaluation.explaining import VERSIONS, Explained
from robustlab.explain.channels import TopImages
from robustlab.explain.methods import METHODS
from robustlab.explain.shifts import MEASURES
from robustlab.reporting.templates import render
from robustlab.reporting.text import without_paths

Json = dict[str, Any]
_SHOWN = {"clean": "the clean image", "adv": VERSIONS["adv"], "same": VERSIONS["same"]}


def files_of(found: Explained, names: Sequence[str], classes: Sequence[str] | None, about: Json) -> dict[str, bytes]:
    """Every file by its name. names: of the images. classes: of the model, where known."""
    files: dict[str, bytes] = {}
    images = []
    for row, name in enumerate(names):
        stem = f"{row:03d}"
        pictures = [_picture(files, f"{stem}-clean.png", png(found.clean[row]), _said(found, "clean", row, classes))]
        if found.adv is not None:
            after = _said(found, "adv", row, classes)
            pictures.append(_picture(files, f"{stem}-attacked.png", png(found.adv[row]), f"attacked: {after}"))
        methods = [_heat(files, found, method, row, stem) for method in found.maps]
        sheet = None
        if found.channels is not None:
            strongest = ", ".join(map(str, found.channels.index[row].tolist()))
            sheet = _picture(files, f"{stem}-channels.png", png(found.channels.contact_sheet(row)), strongest)
        label = int(found.labels[row])
        images.append(
            {
                "name": name,
                "label": _named(label, classes) if label >= 0 else None,
                "pictures": pictures,
                "methods": methods,
                "sheet": sheet,
            }
        )
    values = without_paths({**about, "said": said(found), "checks": _checks(found), "shifts": _shifts(found)})
    values |= {"layer": found.layer.name if found.layer else None, "side": max(found.clean.shape[2:])}
    values |= {"measured": found.measured, "changes": _changes(found), "channels": _channels(files, found)}
    values["searched"] = len(found.searched[0]) if found.searched else 0
    files["explain.html"] = render("explain.html", **values, images=images, measures=MEASURES.values()).encode()
    return files


def told(found: Explained, names: Sequence[str], about: Json) -> Json:
    """The numbers, for explain.json and --json."""
    predicted = {version: values.tolist() for version, values in found.predicted.items()}
    return {
        **about,
        "layer": found.layer.name if found.layer else None,
        "images": list(names),
        "predicted": predicted,
        "zero_maps": {
            method: {version: int(each.zero.sum()) for version, each in versions.items()}
            for method, versions in found.maps.items()
        },
        "shift": found.shifts,
        "shift_n": found.measured if found.shifts else 0,
        "channels": [
            {
                "channel": each.channel,
                "strength": each.strength,
                "images": _names(found, each),
                "peaks": each.peaks.tolist(),
            }
            for each in found.tops
        ],
        "channel_changes": found.changes,
        "checks": [
            {"method": method, "check": check.name, "passed": check.passed, **check.value, "zero": check.zero}
            for method, each in found.checks.items()
            for check in each
        ],
    }


def said(found: Explained) -> list[str]:
    """In a few sentences: whom to trust, and what the attack did."""
    lines = []
    for method, each in found.checks.items():
        failed = [check.name for check in each if check.passed is False]
        unknown = [check.name for check in each if check.passed is None]
        if failed:
            lines.append(f"Warning: {method} does not pass: {', '.join(failed)}. Do not argue with its maps here.")
        elif unknown:
            lines.append(f"{method} could not be judged ({', '.join(unknown)}): too few maps that are not zero.")
        else:
            lines.append(f"{method} passes its sanity checks on these images.")
    if found.adv is not None:
        changed = int((found.predicted["adv"] != found.predicted["clean"]).sum())
        lines.append(f"The attack changes the answer on {changed} of {counted(len(found.ids))}.")
    if zero := sum(int(each["clean"].zero.sum()) for each in found.maps.values()):
        lines.append(f"{zero} of the maps of clean images are zero everywhere; they are counted, not averaged.")
    return lines


def _heat(files: dict[str, bytes], found: Explained, method: str, row: int, stem: str) -> Json:
    versions = found.maps[method]
    shown: dict[str, Tensor] = {version: versions[version].maps[row] for version in _SHOWN if version in versions}
    scale = max(float(each.max()) for each in shown.values())  # one scale: they can be compared
    tiles = []

    def tile(version: str, heat: Tensor, under: Tensor, words: str) -> None:
        alone = _picture(files, f"{stem}-{method}-{version}.png", heat_png(heat, scale), words)
        over = png(blended(heat, scale, under))
        tiles.append({**alone, "over": _picture(files, f"{stem}-{method}-{version}-over.png", over, words)["uri"]})

    for version, each in shown.items():
        words = _SHOWN[version] + (" (zero everywhere)" if float(each.max()) == 0 else "")
        under = found.clean if version == "clean" or found.adv is None else found.adv
        tile(version, each, under[row], words)
    if len(shown) > 1:
        change = (shown["same"] - shown["clean"]).abs()
        tile("change", change, found.clean[row], "how much it changes for the same class")
    return {"method": method, "says": METHODS[method].says, "scale": f"{scale:.3g}", "tiles": tiles}


def _picture(files: dict[str, bytes], name: str, content: bytes, words: str) -> Json:
    files[f"images/{name}"] = content
    uri = Markup("data:image/png;base64," + base64.b64encode(content).decode())  # our own PNG
    return {"uri": uri, "words": words}


def _named(k: int, classes: Sequence[str] | None) -> str:
    return classes[k] if classes else f"class {k}"


def _said(found: Explained, version: str, row: int, classes: Sequence[str] | None) -> str:
    k, sure = int(found.predicted[version][row]), float(found.confidence[version][row])
    return f"{_named(k, classes)}, {100 * sure:.1f} %"


def _number(value: Json, digits: str = ".2f") -> str:
    """A mean with its interval."""
    if value["mean"] is None:
        return "–"
    mean, n = format(value["mean"], digits), value["n"]
    if value["low"] is None:
        return f"{mean} (n = {n})"
    return f"{mean} ({value['low']:{digits}} to {value['high']:{digits}}; n = {n})"


def _channels(files: dict[str, bytes], found: Explained) -> list[Json]:
    """The strongest channels with their top images, as one picture each."""
    shown = []
    for each in found.tops:
        words, picture = ", ".join(_names(found, each)), None
        if found.searched and len(each.rows):
            images = outlined(found.searched[0][each.rows.to(found.searched[0].device)], each.inside)
            picture = _picture(
                files, f"channel-{each.channel:04d}.png", png(sheet([F.pad(images, (2, 2, 2, 2))], 1)), words
            )
        shown.append({"channel": each.channel, "strength": f"{each.strength:.3g}", "picture": picture})
    return shown


def _names(found: Explained, top: TopImages) -> list[str]:
    return [found.searched[1][row] for row in top.rows.tolist()] if found.searched else []


def _changes(found: Explained) -> list[Json]:
    return [
        {
            "channel": row["channel"],
            "values": [
                _number(row[name], ".3g" if row["channel"] is not None else ".2f")
                for name in ("clean", "adv", "noise")
                if row[name]
            ],
        }
        for row in found.changes
    ]


def _shifts(found: Explained) -> list[Json]:
    return [
        {**row, "version": VERSIONS[row["version"]], "values": [_number(row[name]) for name in MEASURES]}
        for row in found.shifts
    ]


def _checks(found: Explained) -> list[Json]:
    words = {True: "pass", False: "warn", None: "not judged"}
    return [
        {
            "method": method,
            "name": check.name,
            "verdict": words[check.passed],
            "value": _number(dict(check.value)),
            "says": check.says,
            "zero": check.zero,
            "curve": ", ".join(f"{name} {'–' if value is None else f'{value:.2f}'}" for name, value in check.curve),
        }
        for method, each in found.checks.items()
        for check in each
    ]
