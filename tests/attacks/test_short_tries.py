"""Short tries: what they add to PGD, and how effort is shared among samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import APGDT, ShortTries
from robustlab.attacks.allocation import FLOOR, LEAST, allot
from robustlab.attacks.base import Outcome
from robustlab.attacks.rows import Draw, Observation, Rows, Watch
from robustlab.base.draws import pixel_ids
from robustlab.base.errors import UserError
from robustlab.oracle import Oracle

from .conftest import answered, small_net


class Wavy(nn.Module):
    """A net whose gradients mislead, so that another try may find what the first one did not."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_net()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x + 0.1 * torch.sin(200 * x))
        return out


def wavy(n: int) -> tuple[Wavy, Tensor, Tensor]:
    net = Wavy().eval()
    return net, *answered(net, n)


def test_the_step_falls_from_eps_to_zero_along_a_cosine() -> None:
    """On a linear model each step has the size of the schedule, as long as the ball does not cut it."""
    seen: list[Tensor] = []
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0] * 4, [1.01] * 4]))

    def model(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        out: Tensor = net(x) + torch.tensor([9.0, 0.0])
        return out

    x = torch.full((1, 1, 2, 2), 0.5)
    attack = ShortTries(eps=0.2, steps=4, restarts=1)
    assert not attack.run(model, x, torch.tensor([0])).success.any()
    assert torch.equal(seen[0], x)  # the first try starts at the clean image
    assert torch.allclose(seen[1], x + 0.2)  # by eps, to the edge, where it stays
    assert len(seen) == 5
    rows = Rows(x, torch.tensor([0]), *torch.tensor([[-1], [0], [0], [2], [0]]))
    shown = Observation(torch.zeros(1, 2), x, -torch.ones_like(x), torch.tensor([False]))
    state = {**attack.start(rows, Draw(0)), "query": x}
    assert torch.allclose(attack.tell(rows, state, shown, Draw(0))["query"], x - 0.2 * (1 + math.cos(math.pi / 2)) / 2)


def test_later_tries_start_elsewhere_and_drift_towards_the_likeliest_classes_by_turns() -> None:
    attack, n = ShortTries(eps=0.1, steps=8, drift=3, classes=2), 5
    x, none = torch.rand(n, 1, 2, 2), torch.zeros(n, dtype=torch.long)
    rows = Rows(x, none, none - 1, none + 3, torch.arange(n), none.clone(), none)  # one sample, five tries
    logits = torch.tensor([[9.0, 1.0, 4.0, 2.0]]).expand(n, -1)
    state = attack.start(rows, Draw(0))
    assert torch.equal(state["query"][0], x[0]) and (state["query"][1:] != x[1:]).flatten(1).any(1).all()
    state = attack.tell(rows, state, Observation(logits, x, torch.rand_like(x), none.bool()), Draw(0))
    assert state["class"][1:].tolist() == [2, 3, 2, 3]
    assert torch.equal(attack._class(logits.flip(1), rows, state), state["class"])  # once chosen, it stays
    rows.age += 2
    weights = torch.stack([attack.objective(row.expand(n, -1), rows, state) for row in torch.eye(4)], 1)
    assert torch.allclose(weights[1:].gather(1, state["class"][1:, None]), torch.tensor(0.8))
    assert (weights[1:, 0] >= -0.8).all() and (weights[1:, 0] <= 0.1).all()
    assert len(weights[1:].unique(dim=0)) == n - 1
    margins = attack.objective(logits, rows, state)
    assert margins[0] == -5.0  # the first try raises the margin from its first step on
    rows.age += 1
    assert (attack.objective(logits, rows, state) == -5.0).all()


def test_a_target_is_what_the_margin_is_of() -> None:
    net = small_net()
    x, y = answered(net, 60)
    target = (y + 1) % 4
    found = ShortTries(eps=0.05, targeted=True, steps=8, restarts=3).run(net, x, y, targets=target)
    assert found.success.any() and not found.success.all()
    with torch.no_grad():
        assert torch.equal(net(found.images).argmax(1) == target, found.success)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.012), ("l2", 0.12)])
def test_sharing_finds_what_every_try_finds_and_costs_less(norm: str, eps: float) -> None:
    net = small_net()
    x, y = answered(net, 200)
    full, shared = (
        ShortTries(norm=norm, eps=eps, steps=4, restarts=8, share=s).run(net, x, y)  # type: ignore[arg-type]
        for s in (1.0, 0.5)
    )
    assert 20 < int(full.success.sum()) < 150
    assert full.allocation is None and shared.allocation is not None
    for key in ("success", "rank"):
        assert torch.equal(getattr(shared, key), getattr(full, key))
    assert torch.equal(shared.images[full.success], full.images[full.success])
    assert shared.backwards.sum() < 0.6 * full.backwards.sum()
    spared = shared.allocation.aside
    assert spared == int((~shared.success & (shared.backwards < 32)).sum()) > 0
    assert shared.allocation.controls >= LEAST and shared.allocation.controls_succeeded == 0


def test_where_margins_mislead_sharing_ends_with_every_try() -> None:
    net, x, y = wavy(200)
    full, shared = (ShortTries(eps=0.03, steps=8, restarts=8, share=s).run(net, x, y) for s in (1.0, 0.1))
    assert (full.rank > 0).any() and shared.allocation is not None
    assert shared.allocation.controls_succeeded > 0 and shared.allocation.again > 20
    for key in ("success", "rank", "images", "forwards", "backwards"):
        assert torch.equal(getattr(shared, key), getattr(full, key))


def test_sharing_does_not_depend_on_batches_or_order() -> None:
    net, x, y = wavy(120)
    attack, ids = ShortTries(eps=0.03, steps=6, restarts=5, share=0.4), torch.arange(120)
    turned = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    one = attack.run(net, x, y, ids=ids, batch_size=120)
    other = attack.run(net, x[turned], y[turned], ids=ids[turned], batch_size=7)
    assert torch.equal(one.success[turned], other.success) and torch.equal(one.rank[turned], other.rank)
    assert torch.equal(one.backwards[turned], other.backwards) and one.allocation == other.allocation


def test_everything_is_tried_where_nothing_may_be_told_apart() -> None:
    net = small_net()
    x, y = answered(net, 60)
    attack = ShortTries(eps=1e-6, steps=3, restarts=4, share=0.2)
    budget = attack.run(Oracle(net, query_budget=100), x, y)
    assert budget.allocation is None and (budget.backwards == 12).all()
    every = ShortTries(eps=1e-6, steps=3, restarts=4, share=0.2, stop_at_success=False).run(net, x, y)
    assert every.allocation is None and (every.backwards == 12).all()
    few = attack.run(net, x[:FLOOR], y[:FLOOR])
    assert (few.backwards == 12).all()


def test_a_class_of_ones_own_keeps_its_ways_where_effort_is_shared() -> None:
    """On another path than its base class, and on the same with and without sharing."""

    @dataclass(frozen=True)
    class Still(ShortTries):
        def tell(self, rows: Rows, state: Any, seen: Observation, draw: Draw) -> Any:
            return {**super().tell(rows, state, seen, draw), "query": state["query"]}

    net = small_net()
    x, y = answered(net, 60)
    alone = Still(eps=1e-6, steps=3, restarts=4, share=1.0).run(net, x, y, ids=torch.arange(60))
    shared = Still(eps=1e-6, steps=3, restarts=4, share=0.4).run(net, x, y, ids=torch.arange(60))
    whole = shared.backwards == 12
    assert whole.any() and not whole.all()
    assert torch.equal(shared.images[whole], alone.images[whole])
    other = ShortTries(eps=1e-6, steps=3, restarts=4, share=0.4).run(net, x, y, ids=torch.arange(60))
    assert not torch.equal(other.images, shared.images)


def test_whoever_watches_is_told_places_and_tries_of_the_whole_call() -> None:
    net = small_net()
    x, y = answered(net, 60)
    told = torch.zeros(60, 4, dtype=torch.long)

    def watch(rows: Rows, seen: Observation) -> None:
        live = rows.pos >= 0
        assert torch.equal(rows.y[live], y[rows.pos[live]])
        told.index_put_((rows.pos[live], rows.rank[live]), torch.tensor(1), accumulate=True)

    found = ShortTries(eps=1e-6, steps=3, restarts=4, share=0.4).run(net, x, y, watch=watch)
    assert torch.equal((told > 0).sum(1) * 3, found.backwards)


def shared(falls: Tensor, tops: Tensor, share: float, tries: int = 8, seed: int = 0) -> tuple[Outcome, Tensor]:
    """The allocation on samples of which it is known at which try they fall (`tries`: never), and their margins."""
    taken = torch.zeros(len(falls), dtype=torch.long)

    def attempt(at: Tensor, first: int, count: int, watch: Watch) -> Outcome:
        assert (taken[at] == first).all() and first + count <= tries  # each try once, in order
        taken[at] += count
        success = (falls[at] >= first) & (falls[at] < first + count)
        none = torch.zeros_like(at)
        watch(Rows(none, none, none, at, none, none, pos=at), Observation(tops[at], tops[at], None, success))
        rank = torch.where(success, falls[at] - first, -1)
        return Outcome(none.float(), success, rank, none, none, none, none.bool())

    def long(at: Tensor) -> Outcome:
        raise AssertionError("nothing was to be finished")

    return allot(attempt, long, torch.arange(len(falls)), tries, share, 0.0, steps=1, seed=seed), taken


def test_a_share_goes_on_and_a_few_of_the_rest_take_every_try() -> None:
    falls, tops = torch.full((400,), 8), -torch.arange(400.0)
    found, taken = shared(falls, tops, 0.5)
    assert found.allocation is not None and not found.success.any()
    counts = [int((taken == t).sum()) for t in range(9)]
    assert sum(counts) == 400 and counts[0] == 0
    assert counts[1] == 200 - 20 and counts[2] == 100 - 10  # a tenth are controls
    assert found.allocation.controls == 20 + 10 + 5 + 3 + 1
    assert counts[8] == found.allocation.controls + FLOOR and found.allocation.aside == 400 - counts[8]
    assert (taken[:FLOOR] == 8).all()
    assert int((taken[200:] == 8).sum()) == 20  # drawn from all that are set aside
    other, elsewhere = shared(falls, tops, 0.5, seed=1)
    assert not torch.equal(taken, elsewhere)


def test_a_fallen_control_brings_everybody_back() -> None:
    """Margins that say nothing: those ranked lowest fall at the fifth try."""
    falls, tops = torch.full((400,), 8), -torch.arange(400.0)
    falls[200:] = 4
    found, taken = shared(falls, tops, 0.5)
    assert found.allocation is not None
    assert bool(found.success[200:].all()) and (found.rank[200:] == 4).all()
    assert found.allocation.controls_succeeded >= 10 and found.allocation.aside == 0
    assert found.allocation.again > 100
    assert (taken[~found.success] == 8).all()


def test_the_controls_estimate_what_is_missed() -> None:
    """Over many draws the share of the controls that fall is that of all that are set aside at first."""
    falls, tops = torch.full((400,), 8), -torch.arange(400.0)
    falls[200::5] = 7
    fell = [found.allocation for seed in range(30) for found, _ in [shared(falls, tops, 0.5, seed=seed)]]
    controls = sum(a.controls for a in fell if a)
    assert 0.06 < sum(a.controls_succeeded for a in fell if a) / controls < 0.15  # 20 of the first 39 stand for a fifth


def test_no_sample_and_equal_margins_are_no_trouble() -> None:
    found, _ = shared(torch.zeros(0, dtype=torch.long), torch.zeros(0), 0.5)
    assert found.allocation is not None and found.allocation.controls == 0
    found, taken = shared(torch.full((100,), 8), torch.full((100,), -torch.inf), 0.5)
    assert found.allocation is not None and found.allocation.aside == int((taken < 8).sum())


def test_a_share_is_a_share() -> None:
    with pytest.raises(UserError, match="share, of the samples that go on, above 0 and at most 1; got 1.5"):
        ShortTries(share=1.5)


def test_the_nearest_of_what_is_left_take_apgd_t_in_full() -> None:
    net, x, y = wavy(80)
    attack = ShortTries(eps=0.03, steps=4, restarts=2, share=1.0)
    short, longer = attack.run(net, x, y), replace(attack, finish=0.5).run(net, x, y)
    left = ~short.success
    more = longer.backwards > short.backwards
    assert int(more.sum()) == int(left.sum()) // 2 and not (more & ~left).any()
    found = longer.success & left
    assert found.any() and (longer.rank[found] >= 2).all()
    whole = APGDT(eps=0.03).run(net, x[more], y[more], ids=pixel_ids(x)[more])
    assert torch.equal(whole.success, longer.success[more])
    assert torch.equal(whole.backwards, (longer.backwards - short.backwards)[more])


@pytest.mark.parametrize("share", [0.9, 1.0])
def test_samples_are_ranked_by_their_margins_also_where_they_drift(share: float) -> None:
    """Logits with an offset: the weights of a drift make sums that say nothing about how near a success is."""
    net = small_net()
    x, y = answered(net, 60)
    tops = torch.full((60,), -torch.inf)

    def watch(rows: Rows, seen: Observation) -> None:
        live = rows.pos >= 0
        tops.scatter_reduce_(0, rows.pos[live], seen.loss[live], "amax")

    def offset(x: Tensor) -> Tensor:
        out: Tensor = net(x) + 50
        return out

    found = ShortTries(eps=1e-6, steps=6, restarts=3, share=share).run(offset, x, y, watch=watch)
    with torch.no_grad():
        logits = net(x)
    margins = logits.scatter(1, y[:, None], -torch.inf).amax(1) - logits.gather(1, y[:, None])[:, 0]
    assert torch.allclose(tops[~found.success], margins[~found.success], atol=1e-3)
