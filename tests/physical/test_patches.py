"""Patches: placed as said, fitted alike whatever stops the fit, counted only where success means something."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.draws import keys, uniform
from robustlab.base.errors import UserError
from robustlab.oracle import NoGradientError
from robustlab.physical import Patch, PatchAttack, measure_patch, patch_controls
from robustlab.physical.placement import Placement, keyed

IDS = torch.arange(60)
LABELS = IDS % 3
QUICK = PatchAttack(target=2, steps=4, batch=8, texels=16)


def pictures(channels: int = 3, height: int = 28, width: int = 28) -> Tensor:
    """Images on the grid k / 255, their class a little brighter in one third of the rows."""
    noise = uniform(keys(7, IDS, "pictures"), (channels, height, width)) * 0.5
    rows = torch.arange(height) * 3 // height
    return ((noise + 0.15 * (rows[None, :] == LABELS[:, None])[:, None, :, None]) * 255).round() / 255


class Thirds(nn.Module):
    """Reads as the class the third of the rows that is brightest; a BatchNorm and a dropout to be left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(40.0))
        self.norm, self.drop = nn.BatchNorm2d(1, affine=False, eps=0.0), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.drop(self.norm(F.adaptive_avg_pool2d(x.mean(1, keepdim=True), (3, 1)))).flatten(1)


NET = Thirds().eval()


def test_a_patch_at_a_known_place_is_pasted() -> None:
    """At scale 1, without rotation, with as many texels as pixels: the very values, and nothing else changes."""
    texture = (torch.rand(3, 8, 8) * 255).round() / 255
    fixed: dict[str, Any] = {"shape": "square", "scale": (1, 1), "rotation": 0}
    images = (torch.rand(4, 3, 32, 64) * 255).round() / 255
    patch = Patch(texture, share=64 / (32 * 64), place=(0.25, 0.5), **fixed)  # room of 56 x 24 pixels
    expected = images.clone()
    expected[:, :, 12:20, 14:22] = texture
    assert torch.allclose(patch.on(images), expected, atol=1e-6)


def test_a_quarter_turn_is_a_quarter_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    texture = torch.rand(1, 32, 32)
    where = Placement(shape="square", share=1.0, scale=(1, 1), rotation=90)
    monkeypatch.setattr("robustlab.physical.placement.uniform", lambda key, shape: torch.ones(len(key), *shape))
    turned = where.pasted(torch.zeros(1, 1, 32, 32), texture, torch.zeros(1, dtype=torch.int64))[0]
    assert torch.allclose(turned, texture.rot90(-1, (1, 2)), atol=1e-5)  # clockwise, as y points down


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize(("height", "width", "texels"), [(28, 28, 64), (32, 48, 16), (224, 224, 64)])
def test_its_share_of_the_area(shape: str, height: int, width: int, texels: int) -> None:
    patch = Patch(torch.ones(1, texels, texels), shape=shape, share=0.10, scale=(1, 1), rotation=30)
    covered = patch.on(torch.zeros(40, 1, height, width), IDS[:40]).mean((1, 2, 3))
    assert (covered - 0.10).abs().max() < 0.004 and covered.std() < 0.002  # so all of it is in each image


def test_scale_and_place_are_drawn_from_the_whole_range() -> None:
    at = Placement(scale=(0.5, 1.5), rotation=90).draw(keyed(0, torch.arange(4000), "judge"), 40, 80)
    side = Placement().side(40, 80)
    assert [round(float(v), 1) for v in (at.side.min() / side, at.side.max() / side)] == [0.5, 1.5]
    assert [round(math.degrees(v)) for v in (at.angle.min(), at.angle.max())] == [-90, 90]
    for place, room in ((at.x, 80), (at.y, 40)):
        assert float((place - at.side / 2).min()) >= 0 and float((place + at.side / 2).max()) <= room
        assert abs(float(place.mean()) - room / 2) < 0.5


def test_places_depend_on_seed_and_id_alone() -> None:
    images, patch = pictures(), Patch(torch.rand(3, 16, 16))
    whole = patch.on(images, IDS, seed=1)
    assert torch.equal(whole[10:13], patch.on(images[10:13], IDS[10:13], seed=1))
    assert torch.equal(whole.flip(0), patch.on(images.flip(0), IDS.flip(0), seed=1))
    assert not torch.equal(whole, patch.on(images, IDS, seed=2))
    assert torch.equal(whole, (whole * 255).round() / 255)
    assert torch.equal(patch.on(images), patch.on(images.clone()))


def test_fitting_and_judging_share_no_key() -> None:
    found = torch.cat([keyed(0, IDS, "judge"), *(keyed(0, IDS, "fit", step) for step in range(5))])
    assert len(found.unique()) == 6 * len(IDS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (40, 60), (224, 224)])
def test_a_fitted_patch_succeeds_and_grey_does_not(channels: int, height: int, width: int) -> None:
    """The best patch for this network is white where it lies in the target's rows, the lowest third."""
    images = pictures(channels, height, width)
    attack = replace(QUICK, shape="square", steps=25, share=0.12, scale=(1, 1.2), place=(0.5, 1.0), rotation=0)
    patch = attack.fit(NET, images, LABELS, IDS)
    assert patch.texture.shape == (channels, 16, 16) and patch.texture[:, 4:].mean() > 0.95
    found = measure_patch(NET, patch, images, LABELS, IDS)
    assert found["clean"]["value"] == 1 and found["found"]["patch"]["success"]["n"] == 40
    assert found["found"]["patch"]["success"]["value"] > 0.9 > 0.1 > found["found"]["grey"]["success"]["value"]


def test_untargeted_any_other_class_will_do() -> None:
    patch = replace(QUICK, target=None, steps=25).fit(NET, pictures(), LABELS, IDS)
    found = measure_patch(NET, patch, pictures(), LABELS, IDS)["found"]
    assert found["patch"]["success"] == found["patch"]["misread"] and found["patch"]["success"]["n"] == 60
    assert found["patch"]["success"]["value"] > found["grey"]["success"]["value"]


def test_a_stopped_fit_goes_on_to_the_same_patch() -> None:
    states: list[dict[str, Tensor]] = []
    whole = QUICK.fit(NET, pictures(), LABELS, IDS, watch=lambda step, loss, state: states.append(state))
    assert [int(state["step"]) for state in states] == [1, 2, 3, 4]
    for state in states:
        assert torch.equal(QUICK.fit(NET, pictures(), LABELS, IDS, state=state).texture, whole.texture)


def test_the_seed_decides() -> None:
    one = QUICK.fit(NET, pictures(), LABELS, IDS, seed=1)
    assert torch.equal(one.texture, QUICK.fit(NET, pictures(), LABELS, IDS, seed=1).texture)
    assert not torch.equal(one.texture, QUICK.fit(NET, pictures(), LABELS, IDS, seed=2).texture)
    backwards = QUICK.fit(NET, pictures().flip(0), LABELS.flip(0), IDS.flip(0), seed=1)
    assert torch.allclose(one.texture, backwards.texture)  # chosen by id, whatever the order


def test_images_of_the_target_class_are_not_seen() -> None:
    images = pictures()
    changed = torch.where((LABELS == 2)[:, None, None, None], 1 - images, images)
    assert torch.equal(QUICK.fit(NET, images, LABELS, IDS).texture, QUICK.fit(NET, changed, LABELS, IDS).texture)


def test_the_classifier_is_left_as_it_was() -> None:
    net = Thirds().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    patch = QUICK.fit(net, pictures(), LABELS, IDS)
    measure_patch(net, patch, pictures(), LABELS, IDS)
    assert net.training and net.drop.training and all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_what_counts() -> None:
    """Only images that are read right and are not of the target class, whatever the batch."""
    images, labels = pictures(), LABELS.clone()
    labels[:6] = (labels[:6] + 1) % 3  # six that are read wrong: two each of 0, 1 and 2
    patch = Patch(torch.ones(3, 8, 8), target=2, place=(0.5, 1.0), share=0.2)
    found = measure_patch(NET, patch, images, labels, IDS)
    assert (found["clean"]["value"], found["clean"]["n"]) == (0.9, 60)
    assert {each["success"]["n"] for each in found["found"].values()} == {36}
    assert found["found"]["patch"]["success"]["value"] == 1.0
    assert 0.9 < found["found"]["patch"]["success"]["low"] < 1.0
    assert measure_patch(NET, patch, images, labels, IDS, batch_size=7) == found


def test_controls() -> None:
    images, patch = pictures(), Patch(torch.rand(3, 20, 20), target=1)
    made = patch_controls(patch, 0, images, LABELS, IDS + 100)
    *names, picture = made
    assert names == ["grey", "random", "black and white"] and picture.startswith("picture of the target, id 1")
    one = int(picture.rsplit(" ", 1)[1]) - 100
    small = F.interpolate(images[one, None], (20, 20), mode="bilinear", antialias=True)[0]
    assert LABELS[one] == 1 and torch.equal(made[picture].texture, small)
    assert made["grey"].texture.unique().tolist() == [0.5]
    black_and_white = made["black and white"].texture
    assert black_and_white.unique().tolist() == [0, 1] and torch.equal(black_and_white[0], black_and_white[2])
    assert all(replace(each, texture=patch.texture).target == 1 and each.share == patch.share for each in made.values())
    assert list(patch_controls(replace(patch, target=None), 0, images, LABELS, IDS)) == names


def test_a_target_by_name() -> None:
    by_number = QUICK.fit(NET, pictures(), LABELS, IDS)
    by_name = replace(QUICK, target="low").fit(NET, pictures(), LABELS, IDS, classes=("high", "middle", "low"))
    assert by_name.target == 2 and torch.equal(by_name.texture, by_number.texture)


def test_saved_and_loaded(tmp_path: Path) -> None:
    patch = Patch((torch.rand(1, 12, 12) * 255).round() / 255, target=3, shape="square", place=(0.1, 0.9), share=0.2)
    patch.save(tmp_path / "one.safetensors")
    again = Patch.load(tmp_path / "one.safetensors")
    assert torch.equal(again.texture, patch.texture)
    assert replace(again, texture=None).__dict__ == replace(patch, texture=None).__dict__
    Patch(torch.full((1, 4, 4), 2.0)).save(tmp_path / "two.safetensors")
    (tmp_path / "three.safetensors").write_bytes(b"nothing")
    for name in ("two", "three", "none"):
        with pytest.raises(UserError, match="is no patch"):
            Patch.load(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PatchAttack(share=0.0), "share must be more than 0"),
        (lambda: PatchAttack(shape="star"), "shape must be one of circle, square"),
        (lambda: PatchAttack(scale=(1.2, 0.8)), "lower one first"),
        (lambda: PatchAttack(rotation=-1.0), "rotation must lie"),
        (lambda: PatchAttack(place=(0.5, 1.5)), "place must be"),
        (lambda: PatchAttack(steps=0), "steps must be at least 1"),
        (lambda: PatchAttack(lr=0.0), "lr must be above 0"),
        (lambda: PatchAttack(texels=4096), "texels must be at most"),
        (lambda: QUICK.fit(NET, pictures() * 255, LABELS), "must lie in"),
        (lambda: QUICK.fit(NET, pictures(), LABELS[:5]), "60 images and 5 labels"),
        (lambda: QUICK.fit(NET, pictures(), torch.full((60,), 2)), "All images are of the target class"),
        (lambda: replace(QUICK, target=3).fit(NET, pictures(), LABELS), "the target must be class numbers from 0 to 2"),
        (lambda: replace(QUICK, target="a").fit(NET, pictures(), LABELS, classes="bc"), "no class 'a'.* Known: b, c"),
        (lambda: replace(QUICK, target="a").fit(NET, pictures(), LABELS), "give the number"),
        (lambda: replace(QUICK, share=0.9).fit(NET, pictures(), LABELS), "does not fit"),
        (lambda: Patch(torch.rand(1, 4, 4)).on(pictures()), "1 channels and the images have 3"),
        (lambda: patch_controls(Patch(torch.rand(3, 4, 4), 5), 0, pictures(), LABELS), "No image is of the target"),
    ],
)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_a_model_without_a_gradient() -> None:
    with pytest.raises(NoGradientError):
        QUICK.fit(lambda x: NET(x).detach(), pictures(), LABELS, IDS)


def test_images_of_the_size_of_imagenet() -> None:
    """A network of torchvision, 224 x 224: the patch covers its share."""
    from torchvision.models import resnet18

    images, net = torch.rand(3, 3, 224, 224), resnet18(num_classes=10).eval()
    patch = PatchAttack(target=7, steps=1, batch=2, scale=(1, 1)).fit(net, images, torch.zeros(3))
    changed = (replace(patch, texture=torch.ones(3, 64, 64)).on(torch.zeros(3, 3, 224, 224)) > 0.5).float().mean()
    assert float(changed) == pytest.approx(0.10, abs=0.002)
