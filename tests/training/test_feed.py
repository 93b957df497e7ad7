"""Shares of a batch, and BatchNorm over the whole of it: the pieces of a training on several processes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from robustlab.base.processes import ALONE, World
from robustlab.data import Data
from robustlab.defenses.batch import Batch
from robustlab.training.batches import own_shares
from robustlab.training.feed import Feed
from robustlab.training.recipe import Recipe
from robustlab.training.whole_batches import WholeBatches
from tests.training.test_training import SMALL, stripes

DATA = stripes(50, "train")


def batch(recipe: Recipe, world: World, index: Tensor, data: Data = DATA) -> Batch:
    return Feed(data, recipe, 3, torch.contiguous_format, False, world).batch(index, 2, 1.5)


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.8, "cutout": 4, "flip": True}], ids=["plain", "mixup"])
@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_all_processes_are_the_batch(changes: dict[str, float], size: int) -> None:
    recipe, index = replace(SMALL, **changes), torch.randperm(50)[:17]
    whole = batch(recipe, ALONE, index)
    assert not torch.equal(whole.x, DATA.images[index])
    for rank in range(size):
        share = batch(recipe, World(rank, size), index)
        for key in ("x", "y", "key", "other", "share"):
            all_of_it, part = getattr(whole, key), getattr(share, key)
            assert part is None if all_of_it is None else torch.equal(part, all_of_it[rank::size]), (rank, key)


def test_a_mixture_is_of_two_images_of_the_batch() -> None:
    index = torch.tensor([4, 40, 17, 9, 31])
    mixed = batch(replace(SMALL, shift=0, mixup=1.0), World(1, 2), index)
    assert mixed.other is not None and mixed.share is not None
    share = own_shares(DATA.ids, 3, 2, 1.0)[index[1::2]]
    assert torch.equal(mixed.share, share) and 0.5 <= float(share.min()) and float(share.max()) <= 1
    for x, own, other, weight in zip(mixed.x, index[1::2], mixed.other, share, strict=True):
        second = (x - weight * DATA.images[own]) / (1 - weight)
        found = [i for i in index if torch.allclose(DATA.images[i], second, atol=1e-4)]
        assert len(found) == 1 and DATA.labels[found[0]] == other


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


NETS: dict[str, Callable[[], nn.Module]] = {
    "2d": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 2)),
    "1d": lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5), nn.Tanh()),
    "no affine": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(inplace=True)),
    "cumulative": lambda: nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.Conv2d(3, 4, 3)),
    "no statistics": lambda: nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Conv2d(3, 4, 3)),
}


@pytest.mark.parametrize("name", NETS)
def test_batchnorm_over_all_processes_is_torchs_own_where_there_is_one(group: None, name: str) -> None:
    torch.manual_seed(0)
    own = NETS[name]()
    other, layers = copy.deepcopy(own), [type(m) for m in own.modules()]
    whole = WholeBatches(other, torch.device("cpu"))
    for step in range(3):
        x = torch.rand(7, 3, 4, 4) + step
        found = []
        for net in (own, other):
            leaf = x.clone().requires_grad_(True)
            if net is other:
                with whole:
                    assert [type(m) for m in net.modules()] != layers
                    out = net(leaf)
                    (out**3).sum().backward()
                assert [type(m) for m in net.modules()] == layers
            else:
                out = net(leaf)
                (out**3).sum().backward()
            found.append([out, leaf.grad, *(p.grad for p in net.parameters()), *net.state_dict().values()])
        assert own.state_dict().keys() == other.state_dict().keys()
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    with whole:  # in eval mode it is torch's own, whatever is inside
        own.eval(), other.eval()
        assert torch.allclose(own(x), other(x), atol=1e-5)
    assert not any(m.training for m in other.modules())
