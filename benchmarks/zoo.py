"""Train, ship and measure the zoo: `python benchmarks/zoo.py [NAME...]`, any entry of zoo_entries.py.

    python benchmarks/zoo.py road-signs/vit          train it, ship it where it is to be shipped, and measure it
    python benchmarks/zoo.py gtsrb/cnn --ship        the same with what was trained already
    python benchmarks/zoo.py --measure               measure again: what is shipped, and what was trained and is not
    python benchmarks/zoo.py --table                 the numbers of results/zoo.json as a table

Trainings go to reports/zoo and go on where they were stopped, as do the measurements (reports/zoo-runs). A network that
starts from another one takes the trained one, or else the shipped one. Shipped networks are rounded to float16, and
measured as they are shipped: clean accuracy on all test images (2,000 of road-signs), robust accuracy under
`linf-standard` and `linf-strong` on the first 1,000, searched in bfloat16 and judged in float32. The numbers go into
the card, and those of all networks into results/zoo.json. Other data than road-signs are read from --data-root.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from measuring import Results, conditions
from zoo_entries import ENTRIES, Entry
from zoo_measure import Measuring

from robustlab import load_model, train
from robustlab.base.errors import UserError
from robustlab.base.files import write_file
from robustlab.base.words import interval, percent
from robustlab.models.card import ModelCard, card_text, read_model_card
from robustlab.models.classifier import Classifier
from robustlab.models.weights import packed_weights
from robustlab.models.zoo import ZOO, zoo_names
from robustlab.training.curve import epoch_line

DATA_ROOT = Path(__file__).resolve().parents[2] / "shared" / "data"  # beside the checkout
MOST_BYTES, MOST_IN_ALL = 3_000_000, 15_000_000  # of a shipped checkpoint, and of all


def trained_card(name: str, output: Path) -> Path:
    """The card that the training of an entry leaves."""
    return output / name.replace("/", "-") / "model.toml"


def init_of(entry: Entry, output: Path) -> str:
    """What an entry starts from: the trained network of that name, or the shipped one."""
    init = entry.recipe.init
    if not init or trained_card(init, output).is_file():
        return str(trained_card(init, output)) if init else ""
    if init in zoo_names():
        return init
    raise UserError(f"It starts from {init}, which is not trained and not shipped. Train that one first.")


def train_entry(name: str, output: Path, root: Path, device: str = "auto") -> None:
    entry = ENTRIES[name]
    train(
        entry.architecture,
        entry.data,
        replace(entry.recipe, init=init_of(entry, output)),
        output=trained_card(name, output).parent,
        name=name,
        data_root=root,
        device=device,
        resume=True,
        on_epoch=lambda epoch: print(name, epoch_line(epoch), flush=True),
    )


def command(name: str, entry: Entry) -> str:
    """How to train it again. Of data that are files nobody knows the place."""
    if not entry.shipped:
        return f"python benchmarks/zoo.py {name}"
    kind, _, file = entry.data.partition(":")
    where = f" --data {kind}:FOLDER/{file}" if file else "" if kind == "road-signs" else " --data-root FOLDER"
    return f"robustlab train {name}{where}"


def own_card(name: str, card: ModelCard, remark: str = "") -> ModelCard:
    """The card of a training as the zoo says it: no path in it, and nothing measured yet."""
    entry, recipe = ENTRIES[name], {key: value for key, value in card.recipe.items() if key != "init"}
    if entry.recipe.init:
        recipe = {"init": entry.recipe.init, **recipe}
    return replace(
        card,
        name=name,
        summary=entry.summary,
        command=command(name, entry),
        recipe=recipe,
        hardware=f"{card.hardware}, {remark}" if remark else card.hardware,
        measured=[],
    )


def ship(name: str, output: Path, remark: str = "") -> ModelCard:
    """Round a trained network to float16 and write it into the zoo, unmeasured. UserError where it is too large."""
    place = trained_card(name, output)
    trained = load_model(str(place)).module
    weights = packed_weights(trained, half=True)
    target = ZOO / f"{name}.toml"
    others = sum(f.stat().st_size for f in ZOO.glob("*/*.safetensors") if f != target.with_suffix(".safetensors"))
    if len(weights) > MOST_BYTES or others + len(weights) > MOST_IN_ALL:
        raise UserError(
            f"{name} has {len(weights):,} bytes, and the others {others:,}: at most {MOST_BYTES:,} each and"
            f" {MOST_IN_ALL:,} in all are shipped. Make it narrower, or set shipped=False."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target.with_suffix(".safetensors"), weights)
    card = replace(own_card(name, read_model_card(place), remark), weights=f"{target.stem}.safetensors")
    write_file(target, card_text(card))  # so that it can be loaded as users load it
    model = load_model(str(target))
    card = replace(card, hash=model.hash(), parameters=_parameters(model))
    write_file(target, card_text(card))
    return card


def _parameters(model: Classifier) -> int:
    return sum(p.numel() for p in model.parameters())


def measure(name: str, output: Path, how: Measuring, results: Results, remark: str = "") -> ModelCard:
    """Measure a network as it is shipped, or as it was trained where it is not, and write the numbers."""
    entry = ENTRIES[name]
    place = ZOO / f"{name}.toml" if entry.shipped else trained_card(name, output)
    if not place.is_file():
        raise UserError(f"{name} is not there yet: python benchmarks/zoo.py {name} trains it.")
    model = load_model(str(place))
    card = read_model_card(place) if entry.shipped else own_card(name, read_model_card(place), remark)
    card = replace(card, parameters=_parameters(model), measured=how.of(name, model, entry.data))
    if entry.shipped:
        write_file(place, card_text(card))
    about = {key: value for key, value in asdict(card).items() if key not in ("mean", "std", "classes", "weights")}
    spec = {"hash": card.hash, "n": how.n, "precision": how.precision}
    results.put({"key": {"entry": name}, "spec": spec, "shipped": entry.shipped, **about, "conditions": conditions()})
    return card


def table(entries: list[dict[str, Any]]) -> str:
    """The measured entries as markdown, in the order of zoo_entries.py."""
    lines = [
        "| name | trained by | clean accuracy | `linf-standard` | `linf-strong` | training |",
        "|---|---|---|---|---|---|",
    ]
    found = {entry["key"]["entry"]: entry for entry in entries}
    for name in [name for name in ENTRIES if name in found]:
        entry, recipe = found[name], found[name]["recipe"]
        cells = [_cell(entry["measured"], attack) for attack in ("", "linf-standard", "linf-strong")]
        eps = next((m["eps"] for m in entry["measured"] if m["attack"]), "")
        by = recipe.get("defense", {}).get("method", "plain") + (" and AWP" if recipe.get("awp") else "")
        shown = f"`{name}`" + ("" if entry["shipped"] else " (not shipped)")
        lines.append(f"| {shown}, linf {eps} | {by} | {' | '.join(cells)} | {entry['seconds']:,.0f} s |")
    return "\n".join(lines)


def _cell(measured: list[dict[str, Any]], attack: str) -> str:
    share = next((m for m in measured if m["attack"] == attack), None)
    return "not measured" if share is None else _share(share)


def _share(share: dict[str, Any]) -> str:
    return f"{percent(share)} ({interval(share)}, n = {share['n']:,})"


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="entries (default: all, in order)")
    parser.add_argument("--output", type=Path, default=Path("reports/zoo"), help="where the training folders go")
    parser.add_argument("--runs", type=Path, default=Path("reports/zoo-runs"), help="where the measurements go")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("ROBUSTLAB_DATA") or DATA_ROOT)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "zoo.json")
    parser.add_argument("--ship", action="store_true", help="ship and measure what was trained, train nothing")
    parser.add_argument("--measure", action="store_true", help="measure again what is there, train and ship nothing")
    parser.add_argument("--table", action="store_true", help="print the measured numbers, do nothing")
    parser.add_argument("--n", type=int, default=1000, help="attacked test images")
    parser.add_argument("--remark", default="", help="goes behind the hardware in the card: 'shared with other jobs'")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(None if words is None else list(words))
    results = Results(options.results.resolve())
    if options.table:
        print(table(json.loads(json.dumps(results.entries))))
        return
    torch.set_num_threads(options.threads)
    if unknown := [name for name in options.names if name not in ENTRIES]:
        parser.error(f"there is no entry {unknown[0]!r}; known: {', '.join(ENTRIES)}")
    try:
        run(options, results)
    except UserError as error:
        parser.exit(2, f"{error}\n")


def run(options: argparse.Namespace, results: Results) -> None:
    """What the command was asked to do with each entry."""
    output, root = options.output.resolve(), Path(options.data_root).resolve()
    how = Measuring(root, options.runs.resolve(), options.n)
    if root.is_dir():
        os.chdir(root)  # cards name files without a folder
    for name in options.names or ENTRIES:
        if not (options.measure or options.ship):
            train_entry(name, output, root)
        if ENTRIES[name].shipped and not options.measure:
            ship(name, output, remark=options.remark)
        for m in measure(name, output, how, results, options.remark).measured:
            print(f"{name}: {m.metric} {_share(asdict(m))} {m.attack} {m.eps}", flush=True)


if __name__ == "__main__":
    main()
