"""The zoo: classifiers that come with the package, each a model card with its checkpoint. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.words import interval, percent
from robustlab.models.card import Measured, ModelCard, read_model_card

ZOO = Path(__file__).resolve().parent / "zoo"
CARD = "model.toml"  # in the folder of a training
NOTE = """Shares with their 95 % Wilson interval and the number of test images. Data other than road-signs are files of
your own: robustlab attack NAME --data-root FOLDER, and of npz:FILE: --data npz:FOLDER/FILE."""


def zoo_names() -> list[str]:
    """The names of all zoo entries.

    >>> [name for name in zoo_names() if name.startswith("road-signs/resnet20")]
    ['road-signs/resnet20', 'road-signs/resnet20-robust']
    """
    return sorted(path.relative_to(ZOO).with_suffix("").as_posix() for path in ZOO.glob("*/*.toml"))


def zoo_path(name: str) -> Path:
    """The card of a zoo entry; an unknown name is a `UserError`."""
    names = zoo_names()
    if name not in names:
        raise UserError(f"There is no {name!r} in the zoo.{did_you_mean(name, names)} Known: {', '.join(names)}.")
    return ZOO / f"{name}.toml"


def card_path(model: str) -> str:
    """The model card that a folder stands for, as `robustlab train` leaves one; any other name of a model as it is.

    >>> card_path("torchvision:resnet18")
    'torchvision:resnet18'
    """
    folder = Path(model)
    if not model or model in zoo_names() or not folder.is_dir():
        return model
    if not (folder / CARD).is_file():
        raise UserError(
            f"{model} is a folder without a {CARD}, so it names no model. Give the folder of a finished"
            " `robustlab train`, a model card (FILE.toml)."
        )
    return str(folder / CARD)


def zoo_card(name: str) -> ModelCard:
    """The card of a zoo entry.

    >>> zoo_card("road-signs/cnn").architecture
    'cnn'
    """
    return read_model_card(zoo_path(name))


def zoo_table(name: str | None = None) -> list[dict[str, Any]]:
    """What `robustlab zoo` prints: one row an entry, or the rows of one entry's measurements.

    Of all: name, data, architecture, defense, megabytes, parameters, seconds, clean, robust, and the attack behind
    that: the last in the card, the strongest. Of one: one row a measurement. Shares are `{value, low, high, n}`.
    """
    if name is not None:
        return [
            {"metric": m.metric, "norm": m.norm, "eps": m.eps, "attack": m.attack, "split": m.split, "seed": m.seed}
            | {"share": _share(m)}
            for m in zoo_card(name).measured
        ]
    rows = []
    for entry in zoo_names():
        card = zoo_card(entry)
        shares = {m.metric: _share(m) for m in card.measured}
        attack = next((_attack(m) for m in reversed(card.measured) if m.metric == "robust accuracy"), "")
        rows.append(
            {
                "name": entry,
                "data": card.data,
                "architecture": card.architecture,
                "defense": card.recipe.get("defense", {}).get("method", "none"),
                "megabytes": (zoo_path(entry).parent / card.weights).stat().st_size / 1e6,
                "parameters": card.parameters,
                "seconds": card.seconds,
                "clean": shares.get("clean accuracy"),
                "robust": shares.get("robust accuracy"),
                "attack": attack,
            }
        )
    return rows


def _attack(measured: Measured) -> str:
    """The attack and its budget; suites have their norm in their name."""
    norm = "" if measured.attack.startswith(f"{measured.norm}-") else f"{measured.norm} "
    return f"{measured.attack} {norm}{measured.eps}"


def _share(measured: Measured) -> dict[str, Any]:
    return {key: getattr(measured, key) for key in ("value", "low", "high", "n")}


def describe(name: str | None = None) -> str:
    """The text that `robustlab zoo` prints: all entries, or one card with its measurements."""
    if name is None:
        rows: list[tuple[str, ...]] = [
            ("name", "data", "defense", "clean accuracy", "robust accuracy", "under", "size")
        ]
        for row in zoo_table():
            shares = (_percent(row["clean"]), _percent(row["robust"]))
            size = f"{row['megabytes']:.2f} MB"
            rows.append((row["name"], row["data"], row["defense"], *shares, row["attack"], size))
        return _aligned(rows) + f"\n{NOTE}"
    card, path = zoo_card(name), zoo_path(name)
    lines = [f"{card.name}: {card.summary}", ""]
    facts = {
        "architecture": card.architecture,
        "data": card.data,
        "classes": ", ".join(card.names or []),
        "shape": " x ".join(map(str, card.shape or ())),
        "trained with": ", ".join(f"{key} {value}" for key, value in card.recipe.items()),
        "seed": card.seed,
        "took": f"{card.seconds:.0f} s on {card.hardware}",
        "command": card.command,
        "weights": f"{card.parameters:,}" if card.parameters else "not counted",
        "hash": card.hash,
        "files": f"{path}, {path.parent / card.weights}",
    }
    lines.append(_aligned([(key, str(value)) for key, value in facts.items()]))
    lines.append("")
    table: list[tuple[str, ...]] = [("measured", "split", "attack", "norm", "eps", "share", "seed")]
    for row in zoo_table(name):
        texts = [str(row[key]) for key in ("metric", "split", "attack", "norm", "eps")]
        table.append((*texts, _percent(row["share"]), str(row["seed"])))
    return "\n".join([*lines, _aligned(table)])


def _percent(share: dict[str, Any] | None) -> str:
    if share is None:
        return "not measured"
    return f"{percent(share)} ({interval(share)}, n = {share['n']:,})"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
