"""PGD against torchattacks, foolbox, ART and a bare loop: seconds and robust accuracy on the zoo.

    python benchmarks/pgd.py                          everything (about an hour on 2 cores)
    python benchmarks/pgd.py --settings pgd20 --models road-signs/cnn

Contenders are interleaved, the order turning with each repeat; seconds are medians. Settings: PGD-20 on 256 samples,
and PGD-100 with one start and with five on 64; linf 8/255, steps of 2/255, batches of 128, 2 threads. Prints a table
and what became of the goals; writes the same as JSON, with hardware, versions and load. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from contenders import BARE, COPY, COPY_BF16, FULL, PEERS, RETIRING, Setting, bfloat16_is_native, contenders
from measuring import conditions

from robustlab import load_data, load_model

SETTINGS = {
    "pgd20": Setting("PGD-20", steps=20, restarts=1, n=256),
    "pgd100": Setting("PGD-100", steps=100, restarts=1, n=64),
    "pgd100x5": Setting("PGD-100, 5 restarts", steps=100, restarts=5, n=64),
}
MODELS = ("cnn", "cnn-robust", "resnet20", "resnet20-robust")


def measure(model_name: str, setting: Setting, repeats: int, peers: bool, cpu: bool) -> dict[str, Any]:
    """One model under one setting: every contender `repeats` times, interleaved."""
    model = load_model(model_name)
    data = load_data("road-signs", "test", limit=setting.n)
    able, unable = contenders(model, setting, data.images)
    if not peers:
        able = {name: run for name, run in able.items() if name not in PEERS}
        unable |= dict.fromkeys(PEERS, "left out")
    warm = Setting("warm-up", steps=1, restarts=1, n=setting.batch_size, batch_size=setting.batch_size)
    for attack in contenders(model, warm, data.images)[0].values():
        attack(data.images[: warm.n], data.labels[: warm.n])

    seconds: dict[str, list[float]] = {name: [] for name in able}
    robust: dict[str, list[float]] = {name: [] for name in able}
    row_steps: dict[str, int | None] = {}
    names, clock = list(able), time.process_time if cpu else time.perf_counter
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            torch.manual_seed(repeat)  # the peers draw from the global generator
            start = clock()
            result = able[name](data.images, data.labels)
            seconds[name].append(clock() - start)
            robust[name].append(1 - result.fooled.double().mean().item())
            row_steps[name] = result.row_steps
            print(f"  {model_name} {setting.name} {name}: {seconds[name][-1]:.2f} s", file=sys.stderr)

    bare = statistics.median(seconds[BARE])
    full_length = setting.n * setting.steps * setting.restarts
    rows = [
        {
            "contender": name,
            "seconds": statistics.median(seconds[name]),
            "all_seconds": seconds[name],
            "ratio": statistics.median(seconds[name]) / bare,
            "robust_accuracy": statistics.median(robust[name]),
            "row_steps": steps,
            "row_steps_share": None if steps is None else steps / full_length,
        }
        for name, steps in row_steps.items()
    ]
    with torch.no_grad():
        clean = (model(data.images).argmax(1) == data.labels).double().mean().item()
    return {
        "model": model_name,
        "setting": setting.name,
        "n": setting.n,
        "eps": setting.eps,
        "step_size": setting.step_size,
        "batch_size": setting.batch_size,
        "repeats": repeats,
        "cpu_seconds": cpu,
        "clean_accuracy": clean,
        "rows": rows,
        "not_run": unable,
        "goals": goals(rows, setting, model_name),
    }


def goals(rows: list[dict[str, Any]], setting: Setting, model_name: str) -> list[dict[str, Any]]:
    """What this project has promised of the measured numbers, and whether they keep it."""
    at = {row["contender"]: row for row in rows}
    kept: list[tuple[str, float, float]] = [("full length / bare loop", at[FULL]["ratio"], 1.10)]
    if "resnet20" in model_name:
        limits = {COPY: 0.75, COPY_BF16: 0.50}
        kept += [(f"{name} / bare loop", at[name]["ratio"], limit) for name, limit in limits.items() if name in at]
    kept.append(
        (
            "retirement / full length, in seconds",
            at[RETIRING]["seconds"] / at[FULL]["seconds"],
            1.10 * at[RETIRING]["row_steps_share"],
        )
    )
    slack = max(0.002, 1 / setting.n)
    for peer in PEERS:
        if peer in at:
            weakest = max(row["robust_accuracy"] for name, row in at.items() if name.startswith("robustlab"))
            kept.append((f"robust accuracy above {peer}'s", weakest - at[peer]["robust_accuracy"], slack))
    return [{"what": what, "value": value, "limit": limit, "met": value <= limit + 1e-9} for what, value, limit in kept]


def show(run: dict[str, Any]) -> None:
    """One model under one setting as a table."""
    print(
        f"\n{run['model']}, {run['setting']}: n = {run['n']}, clean accuracy {run['clean_accuracy']:.3f},"
        f" median of {run['repeats']}"
    )
    print(f"  {'':<46}{'seconds':>9}{'min - max':>17}{'/ bare':>8}{'robust':>8}{'row-steps':>11}")
    for row in run["rows"]:
        spread = f"{min(row['all_seconds']):.2f} - {max(row['all_seconds']):.2f}"
        share = "" if row["row_steps_share"] is None else f"{row['row_steps_share']:.3f}"
        print(
            f"  {row['contender']:<46}{row['seconds']:>9.2f}{spread:>17}{row['ratio']:>8.2f}"
            f"{row['robust_accuracy']:>8.3f}{share:>11}"
        )
    for name, why in run["not_run"].items():
        print(f"  {name}: not run ({why})")
    for goal in run["goals"]:
        print(
            f"  {'met   ' if goal['met'] else 'MISSED'} {goal['what']}: {goal['value']:.3f} (limit {goal['limit']:.3f})"
        )


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[f"road-signs/{name}" for name in MODELS])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--no-peers", action="store_true", help="only the bare loop and robustlab")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds, where others use the machine, too")
    parser.add_argument("--n", type=int, help="fewer samples, to try the script out; the numbers then say little")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "pgd.json")
    options = parser.parse_args(None if words is None else list(words))

    torch.set_num_threads(options.threads)
    report = conditions() | {"bfloat16_native": bfloat16_is_native(), "runs": []}
    print(json.dumps({key: report[key] for key in ("when", "device", "bfloat16_native", "load_at_start", "versions")}))
    for model_name in options.models:
        for key in options.settings:
            setting = SETTINGS[key]
            if options.n is not None:
                setting = Setting(setting.name, setting.steps, setting.restarts, options.n)
            run = measure(model_name, setting, options.repeats, peers=not options.no_peers, cpu=options.cpu)
            show(run)
            report["runs"].append(run)
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(report, indent=1) + "\n")  # after each: a long run may be cut short
    print(f"\nWritten to {options.output}")


if __name__ == "__main__":
    main()
