"""AutoAttack in l2 and l1: robustlab's cards against torchattacks and adv-lib, member by member.

    python benchmarks/autoattack_l2_l1.py --threads 1 --data-root DIR       everything (hours on 2 cores)
    python benchmarks/autoattack_l2_l1.py --cells 0 --n 20 --shorten 20 --output /tmp/try.json     does it run?

Budgets are those at which some samples withstand and most do not. Members run one after another on what is left, with
the published number of steps, targets and restarts.

- *torchattacks* (l2): APGD-CE, APGD-T, FAB-T, Square.
- *adv-lib* (l2, l1): APGD-CE, APGD-T, FAB-T as its authors took them over from those of AutoAttack; l1 with the larger
  balls first. It has no Square.
- *robustlab*: `autoattack-standard` in l2, `autoattack-l1`.
- *l2-strong*, *l1-strong*: the shorter suites.

Success is judged, and passes and CPU seconds are counted, as in `autoattack.py`; a second call goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from autoattack import BATCH, Member, batched, measure, ours, show, theirs
from measuring import Counted, Results, network
from torch import Tensor

from robustlab.models.search_copy import make_search_copy

CELLS = (  # network, norm, eps
    ("mnist/cnn-robust", "l1", 10.0),
    ("mnist/cnn", "l2", 1.5),
    ("road-signs/cnn", "l1", 4.0),
    ("road-signs/cnn", "l2", 0.6),
    ("mnist/cnn-robust", "l2", 2.0),
)
STRONG = {"l2": "l2-strong", "l1": "l1-strong"}
CONTENDERS = {
    "l2": ("robustlab", "torchattacks", "adv-lib", STRONG["l2"]),
    "l1": ("robustlab", "adv-lib", STRONG["l1"]),
}
EVERY = tuple(dict.fromkeys(each for some in CONTENDERS.values() for each in some))


def adv_lib(model: Counted, eps: float, norm: str, classes: int, shorten: int) -> list[Member]:
    """adv-lib's APGD-CE, APGD-T and FAB-T at the published budget, seeded before each."""
    # only plots need visdom, a server with many dependencies, but the package imports it everywhere
    if "visdom" not in sys.modules and importlib.util.find_spec("visdom") is None:
        sys.modules["visdom"] = types.ModuleType("visdom")
    from adv_lib.attacks.auto_pgd import apgd, apgd_targeted
    from adv_lib.attacks.fast_adaptive_boundary import fab

    steps, p, phases = 100 // shorten, {"l2": 2, "l1": 1}[norm], {"use_large_reps": norm == "l1"}
    restarts, targets = (5, min(5, classes - 1)) if norm == "l1" else (1, min(9, classes - 1))

    def member(name: str, spec: str, attack: Any, **parameters: Any) -> Member:
        def run(x: Tensor, y: Tensor) -> Tensor:
            torch.manual_seed(0)
            found: Tensor = attack(model, x, y, norm=p, n_iter=steps, **parameters)
            return found

        return Member(name, f"{spec} {parameters} steps={steps}", batched(run))

    return [
        member("apgd-ce", "apgd", apgd, eps=eps, n_restarts=restarts, loss_function="ce", **phases),
        member("apgd-t", "apgd_targeted", apgd_targeted, eps=eps, num_targets=targets, **phases),
        member("fab-t", "fab", fab, restarts=min(9, classes - 1), targeted_restarts=True),
    ]


def members_of(
    contender: str, model: Counted, search: Counted | None, eps: float, norm: str, classes: int, shorten: int
) -> list[Member]:
    if contender == "torchattacks":
        return theirs(model, eps, classes, shorten, norm.upper())
    if contender == "adv-lib":
        return adv_lib(model, eps, norm, classes, shorten)
    if contender == STRONG[norm]:
        return ours(contender, model, search, eps, shorten, norm)
    return ours("autoattack-l1" if norm == "l1" else "autoattack-standard", model, search, eps, shorten, norm)


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", type=int, choices=range(len(CELLS)), default=list(range(len(CELLS))))
    parser.add_argument("--contenders", nargs="+", choices=EVERY, default=list(EVERY))
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--shorten", type=int, default=1, help="1 / so many of all steps, to try the script out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path("reports/benchmark-nets"), help="where networks are kept")
    parser.add_argument("--data-root", type=Path, help="where MNIST lies; default: ROBUSTLAB_DATA")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "autoattack-l2-l1.json")
    options = parser.parse_args(None if words is None else list(words))
    peers = {"torchattacks": "torchattacks", "adv-lib": "adv_lib"}
    absent = [name for name, module in peers.items() if importlib.util.find_spec(module) is None]
    if absent:
        print(f"not installed (see benchmarks/README.md), so left out: {', '.join(absent)}", file=sys.stderr)

    torch.set_num_threads(options.threads)
    for name, norm, eps in (CELLS[i] for i in options.cells):
        plain, data = network(name, options.n, options.cache.resolve(), options.data_root)
        copy = make_search_copy(plain, data.images[:64])
        model = Counted(plain).eval()
        search = None if copy.module is None else Counted(copy.module)
        entries = {}
        for contender in CONTENDERS[norm]:
            if contender not in options.contenders or contender in absent:
                continue
            members = members_of(contender, model, search, eps, norm, len(data.classes), options.shorten)
            key = {"net": name, "norm": norm, "contender": contender, "n": options.n, "shorten": options.shorten}
            members_specs = {m.name: m.spec for m in members}
            spec = {"members": members_specs, "model": plain.hash(), "batch_size": BATCH, "eps": eps}
            results = Results(options.output)  # read again: several calls may share the file, a cell each
            entry = results.find(key, spec)
            if entry is None:
                of = {"model": model, "search": search, "x": data.images, "y": data.labels, "eps": eps}
                entry = measure(contender, f"{name} {norm}", key, spec, members, norm, **of)
                results = Results(options.output)
                results.put(entry)
            entries[contender] = entry
        show(name, entries, norm)
    print(f"\nWritten to {options.output}")


if __name__ == "__main__":
    main()
