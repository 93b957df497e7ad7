"""What random search asks for: the schedule, the windows, and no query that says nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import Square
from robustlab.attacks.rows import Draw, Observation, Rows
from robustlab.attacks.square import bump, sides
from robustlab.base.draws import pixel_ids
from robustlab.base.errors import UserError
from robustlab.threat.geometry import distance

from .conftest import answered, small_net


class Asked(nn.Module):
    """Remembers every image that it was shown, and never changes its mind."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = small_net(), list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        z: Tensor = self.inner(x)
        return z - 100 * torch.nn.functional.one_hot(self.answer, z.shape[1]).float().neg()

    answer: Tensor


def asked(norm: str, eps: float, steps: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Asked]:
    net = Asked()
    x, net.answer = answered(net.inner, 3, size=size)
    Square(norm=norm, eps=eps, steps=steps).run(net, x, net.answer, batch_size=3)  # type: ignore[arg-type]
    return x, torch.stack(net.seen), net


@pytest.mark.parametrize("size", [(8, 8), (6, 11), (12, 5)])
def test_every_query_differs_from_the_best_point_so_far(size: tuple[int, int]) -> None:
    x, queries, net = asked("linf", 0.05, 60, size)
    assert len(queries) == 61
    best, top = queries[0], torch.full((3,), -torch.inf)
    for at, query in enumerate(queries):
        if at:
            assert ((query - best).abs().flatten(1).amax(1) > 1e-6).all()
        assert (query - x).abs().max() <= 0.05 + 1e-6 and query.min() >= 0 and query.max() <= 1
        z = net.inner(query).detach()
        loss = z.scatter(1, net.answer[:, None], -torch.inf).amax(1) - z.gather(1, net.answer[:, None])[:, 0]
        better = loss > top
        best, top = torch.where(better[:, None, None, None], query, best), torch.maximum(top, loss)


def test_windows_are_squares_that_reach_every_pixel() -> None:
    x, queries, _ = asked("linf", 0.05, 900, (7, 9))
    touched = torch.zeros(7, 9, dtype=torch.bool)
    for before, after in zip(queries[:-1], queries[1:], strict=True):
        touched |= (before != after).any(1).any(0)
    assert touched.all()


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.6), ("l1", 4.0)])
def test_l2_and_l1_stay_inside_and_use_the_budget(norm: str, eps: float) -> None:
    x, queries, _ = asked(norm, eps, 60, (9, 12))
    size = torch.stack([distance(query - x, norm) for query in queries])
    assert (size <= eps * (1 + 1e-5)).all() and size.median() > 0.8 * eps
    assert all(not torch.equal(a, b) for a, b in zip(queries[:-1], queries[1:], strict=True))


def test_the_schedule_of_the_paper_and_its_scaling() -> None:
    table = sides(10000, 0.8, False, 32, 32, False)
    assert [table[i] for i in (0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)] == [
        29, 29, 20, 14, 10, 7, 5, 4, 3, 2, 1,
    ]  # fmt: skip
    assert sides(5000, 0.8, True, 32, 32, False) == table[::2]
    assert set(sides(100, 0.8, False, 4, 9, False)) <= {1, 2, 3, 4}


@pytest.mark.parametrize("p", [1, 2])
def test_bumps_have_norm_one_and_two_signs(p: int) -> None:
    for side in (1, 2, 3, 7, 12):
        shape = bump(side, p)
        assert shape.shape == (side, side) and torch.isclose((shape.abs() ** p).sum(), torch.tensor(1.0), atol=1e-5)
        assert side == 1 or (shape.min() < 0 < shape.max())


def test_a_probe_that_finds_nothing_ends_all_and_one_that_finds_something_goes_on_in_full() -> None:
    net = small_net()
    x, y = answered(net)
    whole = Square(eps=0.06, steps=400).run(net, x, y)
    early = whole.success & (whole.forwards <= 41)  # the first point is one query
    assert early.any() and (whole.success & ~early).any()
    probed = Square(eps=0.06, steps=400, probe=40).run(net, x, y)
    assert torch.equal(probed.success, whole.success) and torch.equal(probed.images, whole.images)
    assert torch.equal(probed.forwards[early], whole.forwards[early])
    assert torch.equal(probed.forwards[~early], whole.forwards[~early] + 41)

    rest = ~early
    ids = pixel_ids(x)[rest]
    short = Square(eps=0.06, steps=400, probe=40).run(net, x[rest], y[rest], ids=ids)
    assert not short.success.any() and (short.forwards == 41).all()
    size = (short.images - x[rest]).abs().flatten(1).amax(1)  # the last point is kept
    assert (size > 0.03).all() and (size <= 0.06 + 1e-6).all()


def test_a_probe_is_ignored_where_nothing_is_judged() -> None:
    net = small_net()
    x, y = answered(net)
    one, other = (Square(eps=0.06, steps=60, probe=p).run(net, x, y, surrogate=net) for p in (0, 20))
    assert torch.equal(one.images, other.images)


def test_a_probe_is_no_longer_than_the_attack() -> None:
    with pytest.raises(UserError, match=r"probe, queries, from 0 to its steps \(50\); got 51"):
        Square(steps=50, probe=51)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.6), ("l1", 4.0)])
def test_leaping_changes_nothing_but_the_number_of_forward_passes(norm: str, eps: float) -> None:
    calls = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            found: Tensor = net(x)
            return found

    net = small_net()
    x, y = answered(net, 6)
    attack = Square(norm=norm, eps=eps, steps=150)  # type: ignore[arg-type]
    runs = []
    for batch_size in (7, 200):
        calls.clear()
        runs.append((attack.run(Counting(), x, y, batch_size=batch_size), len(calls)))
    (one, often), (many, seldom) = runs
    assert one.success.any() and not one.success.all()
    assert torch.equal(one.success, many.success) and torch.equal(one.forwards, many.forwards)
    assert torch.equal(one.images, many.images)
    assert seldom < 0.6 * often


@pytest.mark.parametrize("at", [0, 1, 17, 32])
def test_leaping_stops_where_the_model_returns_nan(at: int) -> None:
    x, queries, net = asked("linf", 0.05, 40, (8, 8))

    def failing(q: Tensor) -> Tensor:
        z = net.inner(q).detach() + 100 * torch.nn.functional.one_hot(net.answer[0], 4).float()
        return torch.where((q == queries[at, 0]).flatten(1).all(1)[:, None], torch.nan, z)

    for batch_size in (1, 128):
        found = Square(eps=0.05, steps=40).run(failing, x, net.answer[:1].expand(3), batch_size=batch_size)
        assert found.invalid.tolist() == [True, False, False]
        assert found.forwards.tolist() == [at + 1, 41, 41]


def test_what_was_seen_while_leaping_is_not_asked_for_again() -> None:
    x, queries, net = asked("linf", 0.05, 40, (8, 8))
    shown = []

    def moody(q: Tensor) -> Tensor:
        """Gives way at the 30th query, the first time it is shown."""
        z = net.inner(q).detach() + 100 * torch.nn.functional.one_hot(net.answer[0], 4).float()
        at = (q == queries[30, 0]).flatten(1).all(1)
        shown.append(int(at.sum()))
        return torch.where(at[:, None], -z, z) if sum(shown) <= 1 else z

    found = Square(eps=0.05, steps=40).run(moody, x[:1], net.answer[:1])
    assert found.success.all() and found.forwards.tolist() == [31] and sum(shown) == 1


def test_a_loss_of_nan_is_no_better_point() -> None:
    x, y = torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.long)
    attack, draw, age = Square(eps=0.1, steps=10), Draw(0), torch.full((2,), 3)
    rows = Rows(x=x, y=y, target=y - 1, id=torch.arange(2), rank=y.clone(), age=age, pos=torch.arange(2))
    state = attack.start(rows, draw) | {"top": torch.tensor([-1.0, -1.0])}
    best = state["best"].clone()
    state["query"] = torch.rand_like(x)
    seen = Observation(torch.zeros(2, 3), torch.tensor([torch.nan, 0.5]), None, torch.zeros(2, dtype=torch.bool))
    told = attack.tell(rows, state, seen, draw)
    assert torch.equal(told["best"][0], best[0]) and torch.equal(told["best"][1], state["query"][1])
    assert told["top"].tolist() == [-1.0, 0.5]
