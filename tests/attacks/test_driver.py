"""The driver's five invariants, and that ask-and-tell carries more than the registry holds today."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks import ATTACKS, PGD, attack_class
from robustlab.attacks.base import Outcome
from robustlab.attacks.driver import drive
from robustlab.attacks.losses import margin
from robustlab.attacks.row_attack import RowAttack
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.attacks.short_tries import ShortTries
from robustlab.base.draws import uniform
from robustlab.base.errors import RunError
from robustlab.oracle import Oracle
from robustlab.threat.geometry import column, distance

from .conftest import answered, quick, small_net

IDS = torch.arange(40)


# --- attacks that only the tests know -------------------------------------------------------------------------


@dataclass(frozen=True)
class LastPGD(PGD):
    keep: ClassVar = "last"


@dataclass(frozen=True)
class ScaleViews(PGD):
    """SI-FGSM's idea: the gradient is averaged over copies of the image scaled by 1/2^i."""

    views: ClassVar = 3

    def view(self, query: Tensor, rows: Rows, i: int, draw: Draw) -> Tensor:
        return query / 2**i


@dataclass(frozen=True)
class EachOtherClass(PGD):
    """Ranks that aim at the other classes in the order of their clean logits, though any wrong class is a success."""

    aims: ClassVar = True

    def ranks(self, y: Tensor, targets: Tensor | None, clean_logits: Tensor | None) -> Tensor:
        assert clean_logits is not None
        return clean_logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True)[:, :3]


@dataclass(frozen=True)
class RandomSearch(RowAttack):
    """A score attack: keeps a random sign flip of one column where the margin rises."""

    needs: ClassVar = "scores"
    loss: str = "margin"

    def start(self, rows: Rows, draw: Draw) -> State:
        best = torch.full((len(rows),), -torch.inf)
        return {"query": rows.x.clone(), "best": rows.x.clone(), "value": best}

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        assert seen.gradient is None
        better = seen.loss > state["value"]
        best = torch.where(column(better, rows.x), state["query"], state["best"])
        u = uniform(draw.keys(rows, "flip"), (2,))
        at = (u[:, 0] * rows.x.shape[3]).long()
        stripe = F.one_hot(at, rows.x.shape[3])[:, None, None, :] * self.eps
        moved = best + stripe * column(u[:, 1].sub(0.5).sign(), rows.x)
        query = torch.clamp(moved, (rows.x - self.eps).clamp(min=0), (rows.x + self.eps).clamp(max=1))
        return {"query": query, "best": best, "value": torch.maximum(seen.loss, state["value"])}


@dataclass(frozen=True)
class Shrinking(RowAttack):
    """A minimum-norm attack: walks out along the gradient, then halves towards the image until that is enough."""

    keep: ClassVar = "smallest"
    norm: str = "l2"  # type: ignore[assignment]
    loss: str = "margin"

    def start(self, rows: Rows, draw: Draw) -> State:
        zeros = torch.zeros(len(rows))
        way = torch.zeros_like(rows.x)
        return {"query": rows.x.clone(), "way": way, "reach": zeros, "low": zeros, "high": zeros + math.inf}

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        assert seen.gradient is not None
        high = torch.where(seen.adversarial, state["reach"], state["high"])
        low = torch.where(seen.adversarial, state["low"], state["reach"])
        g = seen.gradient / column(seen.gradient.flatten(1).norm(dim=1).clamp_min(1e-12), rows.x)
        way = torch.where(column(rows.age == 0, rows.x), g, state["way"])
        reach = torch.where(high.isinf(), low + 0.25, (low + high) / 2)
        query = (rows.x + column(reach, way) * way).clamp(0, 1)
        return {"query": query, "way": way, "reach": reach, "low": low, "high": high}

    def done(self, rows: Rows, state: State) -> Tensor:
        return state["high"] - state["low"] < 1e-4


ALL: list[RowAttack] = [
    # fmn steps onto the boundary itself, where rounding decides: the contract has the test with a tolerance
    *(
        quick(m, eps=0.03 if "linf" in attack_class(m).norms else 0.4)
        for m in ATTACKS
        if m != "fmn" and issubclass(attack_class(m), RowAttack)
    ),
    PGD(eps=0.015, steps=6, restarts=4, loss="dlr"),
    PGD(norm="l2", eps=0.25, steps=6, restarts=3),
    PGD(norm="l1", eps=2.0, steps=6, restarts=2),
    ScaleViews(eps=0.02, steps=4, restarts=2),
    EachOtherClass(eps=0.015, steps=4, loss="margin"),
    RandomSearch(eps=0.2, steps=30, restarts=2),
    Shrinking(steps=25, eps=math.inf),
    LastPGD(eps=0.03, steps=4),
]


def name(attack: RowAttack) -> str:
    return f"{type(attack).__name__}-{attack.norm}"


def same(a: Outcome, b: Outcome) -> bool:
    return all(
        torch.equal(getattr(a, field), getattr(b, field))
        for field in ("success", "rank", "target", "forwards", "backwards")
    ) and torch.allclose(a.images, b.images, atol=1e-5)


# --- the invariants -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ALL, ids=name)
def test_1_rows_share_nothing(attack: RowAttack, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    """`start` and `tell` on permuted rows are the permuted result, at mixed ages and ranks."""
    x, y = sample
    n, perm = len(x), torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    age, rank = torch.arange(n) % attack.steps, torch.arange(n) % 3
    rows = Rows(x, y, (y + 1) % 4, IDS, rank, age, torch.arange(n))
    draw = Draw(7)
    seen = Observation(net(x).detach(), torch.rand(n), torch.randn_like(x), torch.rand(n) < 0.5)
    if attack.needs != "gradient":
        seen = seen._replace(gradient=None)
    state = attack.start(rows, draw)
    mixed = attack.start(rows.take(perm), draw)
    assert all(torch.equal(state[k][perm], mixed[k]) for k in state)
    told = attack.tell(rows, state, seen, draw)
    permuted = Observation(*(None if v is None else v[perm] for v in seen))  # type: ignore[arg-type]
    told_mixed = attack.tell(rows.take(perm), mixed, permuted, draw)
    assert all(torch.allclose(told[k][perm], told_mixed[k], atol=1e-6) for k in told)


@pytest.mark.parametrize("steps", [1, 7])
def test_2_k_steps_cost_k_gradients_and_one_judging_forward(
    steps: int, net: nn.Module, sample: tuple[Tensor, Tensor]
) -> None:
    x, y = sample
    oracle = Oracle(net)
    outcome = PGD(eps=1e-6, steps=steps).run(oracle, x, y, batch_size=40)
    assert (outcome.forwards == steps + 1).all() and (outcome.backwards == steps).all()
    assert (oracle.forwards, oracle.backwards) == (40 * (steps + 1), 40 * steps)
    oracle = Oracle(net)
    outcome = LastPGD(eps=1e-6, steps=steps).run(oracle, x, y)
    assert (outcome.forwards == steps).all() and (outcome.backwards == steps).all()
    assert (oracle.forwards, oracle.backwards) == (40 * steps, 40 * steps)
    assert not torch.equal(outcome.images, x)


def test_2_views_cost_a_gradient_each(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    outcome = ScaleViews(eps=1e-6, steps=5).run(net, *sample)
    assert (outcome.forwards == 3 * 5 + 1).all() and (outcome.backwards == 3 * 5).all()


@pytest.mark.parametrize("stop", [True, False])
def test_3_ranks_are_those_of_sequential_restarts(stop: bool, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    """Restart by restart on what is left, by hand, with the same draws: the same outcome, rank and cost."""
    x, y = sample
    attack = PGD(eps=0.2, steps=2, step_size=0.01, restarts=4, stop_at_success=stop)
    whole = attack.run(net, x, y, ids=IDS, seed=2)

    class OneRank(PGD):
        def start(self, rows: Rows, draw: Draw) -> State:
            return super().start(replace(rows, rank=rows.rank * 0 + current), draw)

    left = torch.ones(len(x), dtype=torch.bool)
    rank, forwards = torch.full_like(y, -1), torch.zeros_like(y)
    for current in range(4):
        once = OneRank(eps=0.2, steps=2, step_size=0.01, stop_at_success=stop)
        i = left.nonzero()[:, 0] if stop else torch.arange(len(x))
        part = once.run(net, x[i], y[i], ids=IDS[i], seed=2)
        new = i[part.success]
        rank[new] = torch.where(rank[new] < 0, current, rank[new])
        forwards[i] += part.forwards
        left[new] = False
    assert torch.equal(whole.success, ~left) and torch.equal(whole.rank, rank) and torch.equal(whole.forwards, forwards)
    assert len(whole.rank.unique()) >= 3  # some succeed at once, some late, some never
    if not stop:
        assert (whole.forwards == 4 * (2 + 1)).all()


@pytest.mark.parametrize("attack", ALL, ids=name)
@pytest.mark.parametrize("searched", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_4_batch_size_order_and_refill_decide_nothing(
    attack: RowAttack, searched: bool, net: nn.Module, sample: tuple[Tensor, Tensor]
) -> None:
    x, y = (each[:: 2 if isinstance(attack, ShortTries) else 1] for each in sample)  # it tries long
    ids = IDS[: len(x)]
    search = small_net() if searched else None
    sizes = (1, 7, 256) if attack.steps < 10 and not searched else (7, 256)
    outcomes = [attack.run(net, x, y, ids=ids, seed=1, batch_size=b, search=search) for b in sizes]
    assert all(same(each, outcomes[-1]) for each in outcomes[:-1])
    back = attack.run(net, x.flip(0), y.flip(0), ids=ids.flip(0), seed=1, batch_size=7, search=search)
    for field in ("images", "success", "rank", "target", "forwards", "backwards"):
        setattr(back, field, getattr(back, field).flip(0))
    assert same(outcomes[-1], back)
    assert outcomes[0].success.any() != (attack.keep == "last")


@pytest.mark.parametrize("quantum", [3, 8])
def test_4_idle_slots_decide_nothing(quantum: int, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    """Batches that shrink in few shapes, as on a GPU."""
    x, y = sample
    attack = PGD(eps=0.015, steps=5, restarts=3)
    shapes: set[int] = set()

    def watched(images: Tensor) -> Tensor:
        shapes.add(len(images))
        return net(images)  # type: ignore[no-any-return]

    outcome = drive(attack, Oracle(watched), x, y, IDS, seed=1, batch_size=16, quantum=quantum)
    assert same(outcome, attack.run(net, x, y, ids=IDS, seed=1))
    assert all(shape % quantum == 0 or shape == 16 for shape in shapes)


@pytest.mark.parametrize("method", sorted(set(ATTACKS) - {"deepfool", "cw", "ead", "brendel-bethge"}))
@pytest.mark.parametrize(("batch_size", "quantum"), [(16, 5), pytest.param(160, 20, marks=pytest.mark.slow)])
def test_4_idle_slots_decide_nothing_of_any_attack(
    method: str, batch_size: int, quantum: int, net: nn.Module, sample: tuple[Tensor, Tensor]
) -> None:
    """Slots that are refilled, and (slow) that idle."""
    x, y = sample
    norm = "l1" if "l1" in attack_class(method).norms else attack_class(method).norms[0]
    attack = quick(method, norm=norm, eps={"l1": 2.0, "l2": 0.3}[norm])
    outcome = drive(attack, Oracle(net), x, y, IDS, seed=1, batch_size=batch_size, quantum=quantum)
    assert same(outcome, attack.run(net, x, y, ids=IDS, seed=1))


def test_5_gradients_are_contiguous_and_parameters_collect_none(sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    net = small_net().to(memory_format=torch.channels_last)
    seen: list[Tensor] = []

    class Watches(PGD):
        def tell(self, rows: Rows, state: State, what: Observation, draw: Draw) -> State:
            assert what.gradient is not None
            seen.append(what.gradient)
            assert not any(p.requires_grad for p in net.parameters())
            return super().tell(rows, state, what, draw)

    Watches(eps=0.01, steps=2).run(net, x, y)
    assert seen and all(g.is_contiguous() for g in seen)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_a_watch_is_told_what_the_attack_is_told(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    told: list[Tensor] = []
    watched: list[tuple[list[int], Tensor]] = []

    class Noting(PGD):
        def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
            told.append(seen.loss)
            return super().tell(rows, state, seen, draw)

    attack = Noting(eps=1e-6, steps=3)
    outcome = attack.run(net, x, y, watch=lambda rows, seen: watched.append((rows.age.unique().tolist(), seen.loss)))
    assert [ages for ages, _ in watched] == [[0], [1], [2]]
    assert all(torch.equal(loss, seen) for loss, (_, seen) in zip(told, watched, strict=True))
    assert same(outcome, attack.run(net, x, y))


# --- success is what the given model says ---------------------------------------------------------------------


def test_a_lying_search_copy_is_found_out(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    """The search model calls everything a success; only what the model itself confirms counts, and the rows go on."""
    x, y = sample

    def liar(images: Tensor) -> Tensor:
        return net(images).roll(1, 1)  # type: ignore[no-any-return]

    attack = PGD(eps=0.02, steps=5)
    outcome = attack.run(net, x, y, search=liar)
    with torch.no_grad():
        assert torch.equal(net(outcome.images).argmax(1) != y, outcome.success)
    assert outcome.refused > 0
    assert (outcome.forwards[~outcome.success] == 6).all()


def test_a_blind_search_copy_still_gets_its_last_point_judged(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    """The search model never sees a success, but its gradients are right: the last point is judged by the model."""
    x, y = sample

    def blind(images: Tensor) -> Tensor:
        return net(images) + 1e4 * F.one_hot(y, 4)  # type: ignore[no-any-return]

    outcome = PGD(eps=0.05, steps=5, loss="margin").run(net, x, y, search=blind, batch_size=64)
    assert outcome.success.float().mean() > 0.8


def test_nan_is_an_error_and_not_a_robust_sample(sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample

    def broken(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4] / 0

    with pytest.raises(RunError, match="NaN or infinite"):
        PGD(eps=0.01, steps=2)(broken, x, y)


@pytest.mark.parametrize("searched", [False, True])
def test_nan_on_one_sample_leaves_the_others_alone(
    searched: bool, net: nn.Module, sample: tuple[Tensor, Tensor]
) -> None:
    x, y = sample

    def partly(images: Tensor) -> Tensor:
        z = net(images)
        return torch.where((images[:, :1, 0, 0] > 0.9), torch.nan, z)

    search = small_net() if searched else None
    clean = PGD(eps=0.02, steps=5, restarts=2).run(net, x, y, ids=IDS)
    outcome = PGD(eps=0.02, steps=5, restarts=2).run(partly, x, y, ids=IDS, search=search)
    bad = outcome.invalid
    assert 0 < bad.sum() < 20 and not outcome.success[bad].any()
    assert torch.equal(outcome.success[~bad], clean.success[~bad])


# --- the rest of the interface --------------------------------------------------------------------------------


def test_query_budget(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    outcome = PGD(eps=1e-6, steps=10, restarts=5).run(Oracle(net, query_budget=17), x, y)
    assert (outcome.forwards == 17).all()


def test_query_budget_holds_where_a_success_is_shown_again(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    attack = attack_class("di-fgsm")(eps=0.03, steps=10, diversity=1.0)
    free = attack.run(net, x, y, ids=IDS)
    outcome = attack.run(Oracle(net, query_budget=5), x, y, ids=IDS)
    assert free.success.any() and outcome.success.any() and (outcome.forwards <= 5).all()


def test_minimum_norm_keeps_the_smallest(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    outcome = Shrinking(steps=25, eps=math.inf).run(net, x, y)
    size = distance(outcome.images - x, "l2")
    assert outcome.success.all()
    assert (outcome.forwards < 26).any()  # `done` ended rows early
    with torch.no_grad():
        closer = x + (outcome.images - x) * 0.99
        assert (net(closer).argmax(1) == y).all()
        assert (margin(net(outcome.images), y) > 0).all()
    assert (size > 0).all()


def test_minimum_norm_with_a_budget_stops_inside_it(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    free = Shrinking(steps=25, eps=math.inf).run(net, x, y)
    eps = float(distance(free.images - x, "l2").median())
    bound = Shrinking(steps=25, eps=eps).run(net, x, y)
    size = distance(bound.images - x, "l2")
    assert torch.equal(bound.success, distance(free.images - x, "l2") <= eps) and torch.equal(
        size <= eps, bound.success
    )
    assert (bound.forwards <= free.forwards).all() and (bound.forwards < free.forwards).any()
    failed = ~bound.success
    assert torch.equal(bound.images[failed], free.images[failed])  # the nearest point, though outside


def test_points_outside_the_budget_do_not_count(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    """An attack may search outside its ball; only what lies inside is a success."""
    x, y = sample

    @dataclass(frozen=True)
    class Outside(PGD):
        def start(self, rows: Rows, draw: Draw) -> State:
            return {**super().start(rows, draw), "query": (rows.x + 0.5).clamp(0, 1)}

    eps = 0.01
    outcome = Outside(eps=eps, steps=1).run(net, x, y)
    assert (net((x + 0.5).clamp(0, 1)).argmax(1) != y).any()
    assert not outcome.success[distance(outcome.images - x, "linf") > eps + 1e-6].any()


def test_labels_only(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    """A target that gives labels is judged like any other; an attack that needs labels sees one-hot answers."""

    @dataclass(frozen=True)
    class Guess(RandomSearch):
        needs: ClassVar = "labels"

        def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
            assert set(seen.logits.unique().tolist()) <= {0.0, 1.0}
            return super().tell(rows, state, seen, draw)

    x, y = sample

    def labels(images: Tensor) -> Tensor:
        return net(images).argmax(1)  # type: ignore[no-any-return]

    attack = Guess(eps=0.3, steps=20)
    by_label = attack.run(Oracle(labels, gives="labels", classes=4), x, y, ids=IDS)
    by_logits = attack.run(Oracle(net, gives="labels"), x, y, ids=IDS)
    assert by_label.success.any() and same(by_label, by_logits)


def test_a_success_takes_no_further_steps(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    attack = PGD(eps=0.1, steps=50)
    oracle, whole = Oracle(net), Oracle(net)
    stopped = attack.run(oracle, x, y, ids=IDS)
    full = replace(attack, stop_at_success=False).run(whole, x, y, ids=IDS)
    assert torch.equal(stopped.success, full.success)
    assert whole.forwards == 40 * 51
    assert oracle.forwards == int(stopped.forwards.sum()) < 0.3 * whole.forwards


def test_the_last_stubborn_samples_take_their_ranks_side_by_side(net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    calls: list[int] = []

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return net(images)  # type: ignore[no-any-return]

    attack = PGD(eps=1e-6, steps=10, restarts=5)
    outcome = attack.run(counted, x[:2], y[:2], batch_size=80)
    assert (outcome.forwards == 5 * 11).all() and len(calls) == 2 * 11  # not 5 * 11: after the first, four at a time
    assert max(calls) == 8


def test_a_sample_may_occur_twice(net: nn.Module) -> None:
    x, y = answered(net, 6)
    twice = PGD(eps=0.02, steps=4, restarts=2).run(net, torch.cat([x, x]), torch.cat([y, y]))
    assert torch.equal(twice.success[:6], twice.success[6:])
    assert torch.allclose(twice.images[:6], twice.images[6:], atol=1e-6)


@pytest.mark.parametrize("method", ["fgsm", "pgd", "mi-fgsm", "apgd", "fab-t", "fmn"])
def test_a_gradient_of_nan_is_no_robustness(method: str, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    """Finite logits, but a backward pass that ends in NaN: the sign of NaN is 0, and linf attacks would stand still."""
    x, y = sample

    def broken(images: Tensor) -> Tensor:
        out: Tensor = net(images) + 0 * torch.sqrt((images - images.detach()).sum(1).flatten(1)).sum(1, keepdim=True)
        return out

    outcome = quick(method, eps=0.05).run(broken, x, y)
    assert (outcome.invalid | outcome.success).all()  # a random start may be adversarial by itself
    assert outcome.invalid.sum() > 30
