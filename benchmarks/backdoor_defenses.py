"""Backdoors and filters on real images: each trigger, every filter beside its controls, trained again.

    python benchmarks/backdoor_defenses.py --data-root DATA                     all cells (hours on 2 cores)
    python benchmarks/backdoor_defenses.py --data-root DATA --only fashion-badnets-5
    python benchmarks/backdoor_defenses.py --table                              print what was measured

A cell is one `robustlab backdoor` with the flags below, in a folder under --folder; one that was stopped goes on. Rows
of the table are means over the seeds; in brackets the least and the most of them. The summary of each cell is written
to results/backdoor-defenses.json. Seconds of cells that ran beside others say little.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from measuring import Results, conditions

from robustlab.base.words import interval, percent
from robustlab.cli import main as command
from robustlab.runs import read_run
from robustlab.runs.backdoors import by_layer, summary

SOME = "--filter spectral --filter robust-z"
SCORED = (
    "--score spectre --score activation-clustering --score beatrix --score abl --score strip:overlays=8"
    " --score spectral:variant=original-code"
)
FASHION = "--data fashion-mnist --limit 8000 --test-limit 3000 --epochs 6 --target Bag --of target"
TRIGGERS = {
    "badnets": "--trigger badnets",
    "blended": "--trigger blended",
    "one-to-one": "--trigger badnets:pattern=x --relation one-to-one --source Sandal",
}
CELLS = {
    **{
        f"fashion-{name}-5": f"{FASHION} {flags} --rate 0.05 --seeds {2 if name == 'one-to-one' else 3} {SOME} {SCORED}"
        for name, flags in TRIGGERS.items()
    },
    **{
        f"fashion-{name}-{rate}": f"{FASHION} {flags} --rate {rate / 100} {SOME}"
        for name, flags in TRIGGERS.items()
        for rate in (2, 10)
    },
    "fashion-blended-layers": f"{FASHION} --trigger blended --rate 0.05 --layer 19 --layer 16 --layer 12 --layer 9"
    " --score spectral --score robust-z --score spectre --score beatrix",
    "fashion-adaptive-blend": f"{FASHION} --trigger adaptive-blend --rate 0.1 {SOME} --score spectre",
    "gtsrb-badnets": "--data npz:{root}/gtsrb32.npz --limit 10000 --test-limit 3000 --epochs 6 --target 14 --of target"
    f" --trigger badnets --rate 0.1 {SOME}",
    "road-signs-physical": "--data road-signs --limit 4000 --test-limit 1000 --target yield --of target"
    f" --trigger physical:side=0.3 --rate 0.15 --epochs 8 {SOME}",
    "cifar-badnets-scores": "--data npz:{root}/cifar10-5k.npz --epochs 12 --target 2 --of target --trigger badnets"
    " --rate 0.1 --seeds 2 --score spectral --score robust-z --score spectre",
    **{
        f"resnet20-{name}": "--data fashion-mnist --limit 5000 --test-limit 3000 --epochs 6 --target Bag --of target"
        f" --model resnet20 {TRIGGERS[name]} --rate 0.1 --seeds 2 --layer 13 --layer 11"
        " --score spectral --score spectre --score robust-z --score activation-clustering"
        for name in ("badnets", "one-to-one")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--folder", type=Path, default=Path("reports") / "backdoor-defenses")
    parser.add_argument("--only", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "backdoor-defenses.json")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    args = parser.parse_args()
    for name in args.only:
        results = Results(args.output)
        key, flags = {"cell": name}, CELLS[name]
        entry = results.find(key, flags)
        if entry is None and not args.table:
            entry = {"key": key, "spec": flags, "conditions": conditions(), **measured(name, flags, args)}
            results = Results(args.output)  # another cell may have ended meanwhile
            results.put(entry)
        show(name, flags, entry)


def measured(name: str, flags: str, args: argparse.Namespace) -> dict[str, Any]:
    """The summary of a cell, which is run or gone on with."""
    folder = args.folder / name
    words = ["backdoor", *flags.format(root=args.data_root).split(), "--output", str(folder), "--quiet"]
    if not {"road-signs"}.intersection(words) and "npz:" not in flags:
        words += ["--data-root", str(args.data_root)]
    if code := command(words + ["--resume"] * folder.exists()):
        sys.exit(code)
    info = read_run(folder).info
    sections = {section["name"]: section["rows"] for section in info["sections"]}
    kept = {each: info["config"][each] for each in ("trigger", "relation", "rate", "of", "target", "source", "seeds")}
    return {
        "config": kept,
        "models": sections["models"],
        "summary": summary(info),
        "by_layer": by_layer(info)[1],
    }


def show(name: str, flags: str, entry: dict[str, Any] | None) -> None:
    print(f"\n## {name}\n\n`robustlab backdoor {flags}`\n")
    if entry is None:
        print("Not measured.", flush=True)
        return
    first = entry["models"][0]
    print(f"{first['poisons']} poisons among {first['n']:,} images, n = {first['clean']['n']:,} test images.\n")
    print("| defense | clean accuracy | attack success | right under the trigger | AUROC | poisons left | removed |")
    print("|---|---|---|---|---|---|---|")
    for row in entry["summary"]:
        shares = " | ".join("–" if row[key] is None else spread(row[key]) for key in ("clean", "asr", "right"))
        area = "–" if row["auroc"] is None else f"{row['auroc']['value']:.3f}"
        counts = " | ".join("–" if row[key] is None else f"{row[key]:.0f}" for key in ("left", "removed"))
        print(f"| {row['row']} | {shares} | {area} | {counts} |")
    if entry["by_layer"]:
        filters = list(entry["by_layer"][0]["auroc"])
        print(f"\n| layer (numbers an image) | {' | '.join(filters)} |\n|---|{'---|' * len(filters)}")
        for row in entry["by_layer"]:
            areas = [row["auroc"][each] for each in filters]
            shown = " | ".join("–" if each is None else f"{each['value']:.3f}" for each in areas)
            print(f"| {row['layer']} ({row['d']:,}) | {shown} |")
    print(flush=True)


def spread(value: dict[str, Any]) -> str:
    return f"{percent(value)} ({interval(value)})" if value["n"] > 1 else percent(value)


if __name__ == "__main__":
    main()
