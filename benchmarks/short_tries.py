"""How the constants of the attack `short-tries` were found, and what does not matter: traces of every try.

    python benchmarks/short_tries.py --data-root DIR                      everything (an hour on one core)
    python benchmarks/short_tries.py --nets road-signs/cnn-robust --hard 20 --output /tmp/try.json     does it run?

On each network the samples that ten steps of PGD on the margin leave are ranked by their margin. The `--hard` of them
that are nearest to a success are attacked by each variant, every try in full. What is written: how many samples fell
after each try, and gradient steps a sample. The attack that ships also meets all that are left (at most five times as
many); of it the largest margin of each sample at each try is written, so that every `share` can be replayed: how many
fall, with how many steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measuring import NETS, Results, conditions, network
from torch import Tensor

from robustlab.attacks import PGD, ShortTries
from robustlab.attacks.allocation import allot
from robustlab.attacks.base import Outcome
from robustlab.attacks.losses import LOSSES, chosen
from robustlab.attacks.pgd import step
from robustlab.attacks.row_attack import RowAttack
from robustlab.attacks.rows import Draw, Observation, Rows, State, Watch
from robustlab.base.draws import uniform
from robustlab.models.search_copy import make_search_copy


@dataclass(frozen=True)
class Constant(ShortTries):
    """Every step eps / 4, as PGD's."""

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        assert seen.gradient is not None
        moved = step(rows, state, seen.gradient, self.eps / 4, self.norm, self.eps)
        return {**super().tell(rows, state, seen, draw), "query": moved}


@dataclass(frozen=True)
class AnyStart(ShortTries):
    """The first try, too, starts at a random point and drifts."""

    def number(self, rows: Rows) -> Tensor:
        return rows.rank + 1


@dataclass(frozen=True)
class Leaning(ShortTries):
    """The drift goes straight towards the class: its logit minus the label's."""

    def objective(self, logits: Tensor, rows: Rows, state: State) -> Tensor:
        straight = chosen(logits, self._class(logits, rows, state)) - chosen(logits, rows.y)
        drifts = (rows.age < self.drift) & (state["number"] > 0)
        return torch.where(drifts, straight, LOSSES["margin"](logits, rows.y, None))


@dataclass(frozen=True)
class Undirected(ShortTries):
    """The drift leans towards no class (Tashiro et al. 2020, arXiv:2003.06878)."""

    def objective(self, logits: Tensor, rows: Rows, state: State) -> Tensor:
        along = (logits * (2 * uniform(state["key"], logits.shape[1:]) - 1)).sum(1)
        drifts = (rows.age < self.drift) & (state["number"] > 0)
        return torch.where(drifts, along, LOSSES["margin"](logits, rows.y, None))


SHIPPED, ALL = "as it ships", "as it ships, on all that are left"
VARIANTS: dict[str, RowAttack] = {
    SHIPPED: ShortTries(restarts=13),
    ALL: ShortTries(restarts=13),
    "no drift": ShortTries(restarts=13, drift=0),
    "drift of 1 step": ShortTries(restarts=13, drift=1),
    "drift of 12 steps": ShortTries(restarts=13, drift=12),
    "drift towards no class": Undirected(restarts=13),
    "drift straight towards a class": Leaning(restarts=13),
    "drift straight all the way": Leaning(restarts=13, drift=31),
    "first start random": AnyStart(restarts=13),
    "20 steps, 21 tries": ShortTries(steps=20, restarts=21),
    "52 steps, 8 tries": ShortTries(steps=52, restarts=8),
    "138 steps, 3 tries": ShortTries(steps=138, restarts=3),
    "constant steps": Constant(restarts=13),
    "cross-entropy": ShortTries(restarts=13, loss="ce"),
    "DLR": ShortTries(restarts=13, loss="dlr"),
}
CELLS = (
    *((name, "linf", NETS[name].eps) for name in NETS if NETS[name].defended),
    ("mnist/cnn-robust", "l2", 2.0),
    ("road-signs/cnn", "l2", 0.6),
)
SHARES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def hard(model: Any, search: Any, data: Any, norm: str, eps: float) -> Tensor:
    """Positions of the samples that PGD-10 leaves, those with the largest margins first."""
    x, y = data.images, data.labels
    with torch.no_grad():
        right = (torch.cat([model(part).argmax(1) for part in x.split(128)]) == y).nonzero()[:, 0]
    top = torch.full((len(right),), -torch.inf)

    def watch(rows: Rows, seen: Observation) -> None:
        live = rows.pos >= 0
        top.scatter_reduce_(0, rows.pos[live], seen.loss[live], "amax")

    attack = PGD(norm=norm, eps=eps, steps=10, loss="margin")
    found = attack.run(model, x[right], y[right], ids=data.ids[right], search=search, watch=watch)
    left = (~found.success).nonzero()[:, 0]
    return right[left[top[left].argsort(descending=True)]]


def traced(attack: RowAttack, model: Any, search: Any, x: Tensor, y: Tensor, ids: Tensor, seed: int) -> dict[str, Any]:
    """What fell after each try, and the largest loss of each sample at each try, (n, tries)."""
    tops = torch.full((len(x), attack.restarts), -torch.inf)

    def watch(rows: Rows, seen: Observation) -> None:
        live = (rows.pos >= 0) & (rows.age < attack.steps)
        at = rows.pos[live] * attack.restarts + rows.rank[live]
        margins = LOSSES["margin"](seen.logits, rows.y, None)
        tops.view(-1).scatter_reduce_(0, at, margins[live], "amax")

    began = time.process_time()
    found = replace(attack, share=1).run(model, x, y, ids=ids, search=search, seed=seed, watch=watch)
    after = [int((found.success & (found.rank <= r)).sum()) for r in range(attack.restarts)]
    return {
        "fell": after,
        "ids": ids[found.success].tolist(),
        "steps": float(found.backwards.float().mean()),
        "cpu_seconds": time.process_time() - began,
        "ranks": found.rank.tolist(),
        "tops": [[round(v, 4) for v in row] for row in tops.tolist()],
    }


def replayed(entry: dict[str, Any], share: float, steps: int) -> dict[str, Any]:
    """What falls, and gradient steps a sample, had only `share` of the samples gone on after each try."""
    ranks, tops = torch.tensor(entry["ranks"]), torch.tensor(entry["tops"])
    n, total = tops.shape
    spent = torch.zeros(n)

    def tries(at: Tensor, first: int, count: int, watch: Watch) -> Outcome:
        fell = (ranks[at] >= first) & (ranks[at] < first + count)
        spent[at] += torch.where(fell, ranks[at] - first + 0.5, float(count)) * steps
        zero = torch.zeros_like(at)
        best = tops[at, : first + count].amax(1)
        rows = Rows(zero, zero, zero, at, zero, zero, pos=at)
        watch(rows, Observation(best, best, None, fell))
        return Outcome(zero.float(), fell, torch.where(fell, ranks[at] - first, -1), zero, zero, zero, zero.bool())

    found = allot(tries, lambda at: Outcome(*[at] * 7), torch.arange(n), total, share, 0.0, steps, seed=0)
    assert found.allocation is not None
    return {"share": share, "fell": int(found.success.sum()), "steps": float(spent.mean())} | vars(found.allocation)


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--hard", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("reports/benchmark-nets"), help="where networks are kept")
    parser.add_argument("--data-root", type=Path, help="where the sets lie; default: ROBUSTLAB_DATA")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "short-tries.json")
    options = parser.parse_args(None if words is None else list(words))
    torch.set_num_threads(options.threads)
    for name, norm, eps in (cell for cell in CELLS if cell[0] in options.nets):
        model, data = network(name, NETS[name].n, options.cache.resolve(), options.data_root)
        search = make_search_copy(model, data.images[:64]).module
        at = None
        print(
            f"\n### {name}, {norm} {eps:.4g}\n\n| variant | fell | steps a sample | after each try |\n|---|--:|--:|---|"
        )
        for variant in options.variants:
            attack = replace(VARIANTS[variant], norm=norm, eps=eps)
            count = 5 * options.hard if variant == ALL else options.hard
            key = {"net": name, "norm": norm, "variant": variant, "hard": count, "seed": options.seed}
            spec = {"attack": repr(attack), "model": model.hash()}
            results = Results(options.output)
            entry = results.find(key, spec)
            if entry is None:
                at = hard(model, search, data, norm, eps) if at is None else at
                some = at[:count].sort().values
                sample = data.images[some], data.labels[some], data.ids[some]
                entry = {"key": key, "spec": spec, "n": len(some)} | traced(
                    attack, model, search, *sample, options.seed
                )
                if variant != ALL:
                    del entry["tops"], entry["ranks"]
                results = Results(options.output)
                results.put(entry | {"conditions": conditions()})
            print(
                f"| {variant} | {entry['fell'][-1]} / {entry['n']} | {entry['steps']:.0f} | {entry['fell']} |",
                flush=True,
            )
            if variant == ALL:
                for share in SHARES:
                    r = replayed(entry, share, attack.steps)
                    print(f"| - share {share} | {r['fell']} | {r['steps']:.0f} | {r} |")
    print(f"\nWritten to {options.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
