"""The heat inside a sticker: the mask in the image against the renderer, the share against closed forms."""

from __future__ import annotations

import torch

from robustlab.physical.heat import heat_inside, mask_in_images
from robustlab.physical.masks import mask_of
from robustlab.worlds.road_signs import draw, faces, prepare, render


def test_the_mask_lies_where_the_renderer_draws_it() -> None:
    """Two signs that differ inside the mask only: there the images differ, apart from the blur of the camera."""
    face, mask = faces()[0], mask_of("bars", faces()[0])
    scenes = draw(0, "test", torch.arange(16), 0).override(
        distance=4.0, occlusion=0.0, light=0.5, motion=0.0, haze=0.0, shadow=0.0
    )
    inside = mask_in_images(mask, scenes, 32)
    black, white = (torch.cat([torch.where(mask, value, face[:3]), face[3:]]) for value in (0.0, 1.0))
    one, two = (render(prepare(each[None], 32), scenes, noise=False) for each in (black, white))
    change = (two - one).abs().mean(1)
    assert bool((change[inside == 0].mean() < 0.1 * change[inside == 1].mean()).all())
    for found, wanted in zip(inside, change, strict=True):
        assert float(torch.corrcoef(torch.stack([found.flatten(), wanted.flatten()]))[0, 1]) > 0.9
    moved = inside.roll(4, 1)
    assert float(torch.corrcoef(torch.stack([moved.flatten(), change.flatten()]))[0, 1]) < 0.6


def test_an_even_map_has_the_share_of_the_area() -> None:
    inside = mask_in_images(mask_of("bars", faces()[0]), draw(0, "test", torch.arange(8), 0), 32)
    assert torch.allclose(heat_inside(torch.ones(8, 32, 32), inside), inside.mean((1, 2)))
    assert torch.allclose(heat_inside((inside == 1).float(), inside), torch.ones(8))
    assert bool(heat_inside(torch.zeros(8, 32, 32), inside).isnan().all())
