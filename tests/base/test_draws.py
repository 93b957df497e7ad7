"""Draws are pure functions of their key, and look random."""

from __future__ import annotations

import numpy as np
import scipy.stats
import torch

from robustlab.base.draws import bits, keys, normal, pixel_ids, uniform


def test_splitmix64_reference() -> None:
    # the first outputs of splitmix64 seeded with 1234567 (Vigna's reference implementation)
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    got = bits(torch.tensor([1234567]), 5)[0].numpy().astype(np.uint64)
    assert got.tolist() == wanted


def test_a_draw_depends_on_its_key_alone() -> None:
    ids = torch.arange(100)
    whole = uniform(keys(3, ids, "start"), (3, 5))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(uniform(keys(3, ids[order], "start"), (3, 5)), whole[order])
    assert torch.equal(uniform(keys(3, ids[7:8], "start"), (3, 5)), whole[7:8])


def test_every_part_of_the_key_counts() -> None:
    ids = torch.arange(50)
    base = keys(0, ids, "start", 1)
    for other in (
        keys(1, ids, "start", 1),
        keys(0, ids + 50, "start", 1),
        keys(0, ids, "noise", 1),
        keys(0, ids, "start", 2),
    ):
        assert not torch.isin(base, other).any()
    assert len(keys(0, torch.arange(100_000)).unique()) == 100_000


def test_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    normal(keys(0, torch.arange(4)), (3, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_uniform_and_normal_have_their_distributions() -> None:
    key = keys(5, torch.arange(200))
    u = uniform(key, (500,)).flatten().numpy()
    assert 0 <= u.min() and u.max() < 1
    assert scipy.stats.kstest(u, "uniform").pvalue > 1e-3
    z = normal(key, (501,)).flatten().numpy()
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-3
    rows = normal(key, (200,)).numpy()
    assert abs(np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]) < 0.02


def test_pixel_ids_tell_images_apart() -> None:
    x = torch.rand(20, 3, 4, 4)
    ids = pixel_ids(torch.cat([x, x.flip(3), x]))
    assert torch.equal(ids[:20], ids[40:])
    assert len(ids.unique()) == 40
