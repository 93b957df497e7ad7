"""The heat inside a sticker: the mask in the image against the renderer, the share against closed forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import torch
from torch import nn

from robustlab.explain.regions import heat_inside
from robustlab.models.classifier import Classifier
from robustlab.physical.heat import Heat, mask_in_images
from robustlab.physical.masks import mask_of
from robustlab.physical.sticker import Sticker
from robustlab.physical.studies import StickerJob
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


def test_a_network_without_a_map_does_not_end_the_run() -> None:
    """The first logit is that of the sign, so that it is read right; no layer has places."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16))
    nn.init.zeros_(net[1].weight)
    net[1].bias.data = -torch.arange(16.0)
    texture = torch.zeros(3, 64, 64)
    sticker = Sticker(texture, mask_of("bars", faces()[0]), "stop", "yield")
    job = SimpleNamespace(models=[Classifier(net, name="flat")], n=4, seed=0, size=32, sticker=lambda name: sticker)
    heat = Heat(cast(StickerJob, job))
    done = heat.work("0")
    assert done["rows"] == [] and "No heatmaps: " in heat.section({"0": done})["note"]
