"""The suites `autoattack-standard` and `linf-strong` against torchattacks' AutoAttack and its members.

    python benchmarks/autoattack.py --data-root DIR                everything (many hours on 2 cores)
    python benchmarks/autoattack.py --nets road-signs/cnn          one network
    python benchmarks/autoattack.py --n 20 --shorten 20 --output /tmp/try.json     does it run?

Six of the networks have small CNNs (n = 1,000), resnet20-robust takes 200 samples; those on MNIST and Fashion-MNIST are
trained here once, plainly and with N-FGSM, and kept in --cache. Contenders run one after another for each network; each
finished one is written at once, and a second call goes on with what is missing.

- *torchattacks*: its APGD-CE, APGD-T, FAB-T and Square, one after another on what is left, with the published budget
  and Square's schedule as in the authors' code (resc_schedule=False). `torchattacks.AutoAttack` itself passes no number
  of steps on, so that its gradient members take 10 instead of 100: that is *torchattacks as shipped*.
- *alone*: one member on all samples that are classified right (n = 200, of resnet20-robust 100).

Speed is compared in CPU seconds, which other work on the machine hardly moves: with --threads 1, and taskset to give it
a core, two networks can be measured at a time.

Success is judged here, the same for all: misclassified by the plain module in float32, inside ball and box. Passes are
counted by a module around the network (and around robustlab's search copy), so they are what was computed, not charged.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measuring import NETS, Counted, Results, conditions, goal, network, show_goals
from torch import Tensor

from robustlab.attacks.suite import load_suite
from robustlab.base.intervals import share
from robustlab.models.search_copy import make_search_copy
from robustlab.threat.geometry import distance
from robustlab.threat.model import allowed

PEER, SHIPPED = "torchattacks", "torchattacks as shipped"
STANDARD, STRONG = "autoattack-standard", "linf-strong"
MEMBERS = ("apgd-ce", "apgd-t", "fab-t", "square")
ALONE = [f"{who}: {member} alone" for member in MEMBERS for who in ("torchattacks", "robustlab")]
SEEDS = {STRONG: 0, f"{STRONG}, seed 1": 1, f"{STRONG}, seed 2": 2}
CONTENDERS = (PEER, STANDARD, *SEEDS, SHIPPED, *ALONE)
BATCH = 128


@dataclass(frozen=True)
class Member:
    """An attack of a suite: (images, labels, positions) -> adversarial images. spec: what exactly it is."""

    name: str
    spec: str
    attack: Callable[[Tensor, Tensor, Tensor], Tensor]


def batched(attack: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What is left, in full batches, as the authors' own loop does it."""

    def run(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        parts = zip(x.split(BATCH), y.split(BATCH), strict=True)
        return torch.cat([attack(*part).detach() for part in parts])

    return run


def theirs(model: Counted, eps: float, classes: int, shorten: int, norm: str = "Linf") -> list[Member]:
    """torchattacks' four members at the published budget; norm: Linf or L2."""
    import torchattacks as ta

    steps, seen = 100 // shorten, min(10, classes)
    made = {
        "apgd-ce": ta.APGD(model, norm=norm, eps=eps, steps=steps, loss="ce", seed=0),
        "apgd-t": ta.APGDT(model, norm=norm, eps=eps, steps=steps, n_classes=seen, seed=0),
        "fab-t": ta.FAB(model, norm=norm, eps=eps, steps=steps, multi_targeted=True, n_classes=seen, seed=0),
        "square": ta.Square(model, norm=norm, eps=eps, n_queries=5000 // shorten, resc_schedule=False, seed=0),
    }
    return [Member(name, f"{attack}", batched(attack)) for name, attack in made.items()]


def shipped(model: Counted, eps: float, classes: int, shorten: int) -> list[Member]:
    import torchattacks as ta

    attack = ta.AutoAttack(model, norm="Linf", eps=eps, n_classes=min(10, classes), seed=0)
    for member in attack._autoattack.attacks if shorten > 1 else ():
        for field in ("steps", "n_queries"):
            if hasattr(member, field):
                setattr(member, field, max(1, getattr(member, field) // shorten))
    members = ", ".join(str(member) for member in attack._autoattack.attacks)
    return [Member("autoattack", members, batched(attack))]


def ours(
    card: str, model: Counted, search: Counted | None, eps: float, shorten: int, norm: str = "linf", seed: int = 0
) -> list[Member]:
    """A card's members, searching on the search copy."""

    def member(name: str, spec: str, attack: Any) -> Member:
        attack = replace(attack, steps=max(1, attack.steps // shorten)) if attack.steps > 1 else attack

        def run(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            found: Tensor = attack.run(model, x, y, ids=ids, seed=seed, batch_size=BATCH, search=search).images
            return found

        return Member(name, spec, run)

    suite = load_suite(card, norm=norm, eps=eps)
    return [member(m.name, f"{m.method} {m.parameters}", m.attack) for m in suite.members]


def members_of(
    contender: str, model: Counted, search: Counted | None, eps: float, classes: int, s: int
) -> list[Member]:
    if contender == SHIPPED:
        return shipped(model, eps, classes, s)
    if contender in SEEDS:
        return ours(STRONG, model, search, eps, s, seed=SEEDS[contender])
    made = ours(STANDARD, model, search, eps, s) if "torchattacks" not in contender else theirs(model, eps, classes, s)
    return [m for m in made if contender in (PEER, STANDARD) or contender.endswith(f": {m.name} alone")]


def cascade(
    members: list[Member],
    model: Counted,
    search: Counted | None,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str = "linf",
) -> list[dict[str, Any]]:
    """Each member on what is left; what it broke and what it cost."""
    counters = [counter for counter in (model, search) if counter is not None]
    with torch.no_grad():
        standing = torch.cat([model(part).argmax(1) for part in x.split(BATCH)]) == y
    rows = []
    for member in members:
        at = standing.nonzero()[:, 0]
        for counter in counters:
            counter.forwards = counter.backwards = 0
        began, worked = time.perf_counter(), time.process_time()
        found = member.attack(x[at], y[at], at) if len(at) else x[at]
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
        passes = {key: sum(getattr(c, key) for c in counters) for key in ("forwards", "backwards")}
        with torch.no_grad():
            parts = found.split(BATCH) if len(at) else ()
            wrong = torch.cat([y[:0], *(model(part).argmax(1) for part in parts)]) != y[at]
        outside = (distance(found - x[at], norm) > allowed(eps)) | (found < 0).flatten(1).any(1)
        outside |= (found > 1).flatten(1).any(1)
        broken = wrong & ~outside
        standing[at[broken]] = False
        rows.append(
            {"member": member.name, "attempted": len(at), "broken": int(broken.sum()), "left": int(standing.sum())}
            | {"outside": int((wrong & outside).sum()), "seconds": seconds, "cpu_seconds": cpu, **passes}
        )
    return rows


def measure(
    contender: str, name: str, key: dict[str, Any], spec: Any, members: list[Member], norm: str = "linf", **of: Any
) -> dict[str, Any]:
    model, x, y, eps = of["model"], of["x"], of["y"], of["eps"]
    where = conditions()
    with torch.no_grad():
        right = int((torch.cat([model(part).argmax(1) for part in x.split(BATCH)]) == y).sum())
    rows = cascade(members, model, of["search"], x, y, eps, norm)
    print(f"  {name} {contender}: {sum(row['seconds'] for row in rows):.1f} s", file=sys.stderr)
    return {
        "key": key,
        "spec": spec,
        "eps": eps,
        "clean": share(right, len(x)),
        "robust": share(rows[-1]["left"], len(x)),
        **{
            field: sum(row[field] for row in rows)
            for field in ("seconds", "cpu_seconds", "forwards", "backwards", "outside")
        },
        "members": rows,
        "load_at_end": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "conditions": where,
    }


def goals(name: str, entries: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What the project has promised of these numbers, where they have been measured."""
    peer, standard = entries.get(PEER), entries.get(STANDARD)
    found = []

    def left(what: str, a: dict[str, Any], b: dict[str, Any] | None) -> None:
        if b:
            slack = max(0.001, 1 / b["robust"]["n"])
            found.append(goal(f"{what}, in robust accuracy", a["robust"]["value"] - b["robust"]["value"], slack))

    def cost(what: str, a: dict[str, Any], b: dict[str, Any] | None, limit: float) -> None:
        for measure in ("cpu_seconds", "forwards", "backwards"):
            if b and b[measure]:
                found.append(goal(f"{what}, in {measure.replace('_', ' ')}", a[measure] / b[measure], limit))

    if standard:
        left(f"{STANDARD} above torchattacks", standard, peer)
    for seed in SEEDS:
        if seed in entries:
            left(f"{seed} above {STANDARD}", entries[seed], standard)
            left(f"{seed} above torchattacks", entries[seed], peer)
    if STRONG in entries:
        defended = NETS[name].defended
        cost(f"{STRONG} / torchattacks", entries[STRONG], peer, 1 / 20 if defended else 1 / 50)
        if defended:
            cost(f"{STRONG} / {STANDARD}", entries[STRONG], standard, 1 / 10)
    return found


def show(name: str, entries: dict[str, dict[str, Any]], norm: str = "linf") -> None:
    """The contenders of one network as a markdown table, one line a member and one a total."""
    some = next(iter(entries.values()))
    clean = some["clean"]
    print(f"\n### {name}, {norm} {some['eps']:.4g}, clean {clean['value']:.3f} (n = {clean['n']})\n")
    print("| contender | member | left | broken | seconds | CPU seconds | torchattacks / this | forwards | backwards |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for contender, entry in entries.items():
        for row in entry["members"]:
            broken = f"{row['broken']} / {row['attempted']}"
            print(
                f"| {contender} | {row['member']} | {row['left']} | {broken} | {row['seconds']:.1f} |"
                f" {row['cpu_seconds']:.1f} | | {row['forwards']:,} | {row['backwards']:,} |"
            )
        reference = entries.get(contender.replace("robustlab:", "torchattacks:") if "alone" in contender else PEER)
        times = f"{reference['cpu_seconds'] / entry['cpu_seconds']:.1f}" if reference else ""
        if len(entry["members"]) > 1:
            r = entry["robust"]
            print(
                f"| **{contender}** | **all** | **{r['value']:.3f}** ({r['low']:.3f}-{r['high']:.3f}) | |"
                f" {entry['seconds']:.1f} | {entry['cpu_seconds']:.1f} | {times} |"
                f" {entry['forwards']:,} | {entry['backwards']:,} |"
            )
    print()


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--n", type=int, help="so many samples everywhere; small numbers say little")
    parser.add_argument("--shorten", type=int, default=1, help="1 / so many of all steps, to try the script out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path("reports/benchmark-nets"), help="where networks are kept")
    parser.add_argument("--data-root", type=Path, help="where MNIST and Fashion-MNIST lie; default: ROBUSTLAB_DATA")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "autoattack.json")
    options = parser.parse_args(None if words is None else list(words))
    if importlib.util.find_spec("torchattacks") is None:
        print("torchattacks is not installed (see benchmarks/README.md): only robustlab is measured.", file=sys.stderr)
        options.contenders = [c for c in options.contenders if "torchattacks" not in c]

    torch.set_num_threads(options.threads)
    results = Results(options.output)
    for name in options.nets:
        net, entries = NETS[name], {}
        net_n = options.n or net.n
        plain, data = network(name, net_n, options.cache.resolve(), options.data_root)
        copy = make_search_copy(plain, data.images[:64])
        if copy.module is None:
            print(f"  {name}: no search copy ({copy.reason})", file=sys.stderr)
        model = Counted(plain).eval()
        search = None if copy.module is None else Counted(copy.module)
        for contender in options.contenders:
            n = net_n if contender not in ALONE or options.n else net.n // (2 if net.n < 500 else 5)
            members = members_of(contender, model, search, net.eps, len(data.classes), options.shorten)
            key = {"net": name, "contender": contender, "n": n, "shorten": options.shorten}
            spec = {"members": {m.name: m.spec for m in members}, "model": plain.hash(), "batch_size": BATCH}
            entry = results.find(key, spec)
            if entry is None:
                of = {"model": model, "search": search, "x": data.images[:n], "y": data.labels[:n], "eps": net.eps}
                entry = measure(contender, name, key, spec, members, **of)
                results = Results(options.output)  # read again: several calls may share the file
                results.put(entry)
            entries[contender] = entry
        show(name, entries)
        show_goals(goals(name, entries))
    print(f"\nWritten to {options.output}")


if __name__ == "__main__":
    main()
