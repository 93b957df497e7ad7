"""The rendered world: keys, geometry, sensor, gradients, batch sizes."""

from __future__ import annotations

import math
import time
from dataclasses import fields

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from robustlab.base.errors import UserError
from robustlab.data.road_signs import _images, load
from robustlab.worlds.road_signs import CLASSES, Ranges, Scenes, draw, faces, prepare, render
from robustlab.worlds.road_signs.camera import centres, on_sign
from robustlab.worlds.road_signs.scenes import FOCAL, WIDTH


def _scenes(count: int = 64, split: str = "test", **values: float) -> Scenes:
    return draw(0, split, torch.arange(count)).override(**values)


def _plain(count: int = 1) -> Scenes:
    """A sign seen straight on from near, in the middle of the crop, in good light and with nothing in the way."""
    return _scenes(
        count, distance=5.0, yaw=0.0, pitch=0.0, roll=0.0, light=1.0, temperature=6500.0, haze=0.0, occlusion=0.0,
        shadow=0.0, fill=0.8, shift_x=0.0, shift_y=0.0, motion=0.0,
    )  # fmt: skip


def _lit(face: Tensor, scenes: Scenes) -> Tensor:
    return render(prepare(face), scenes, noise=False)


# what is drawn


def test_a_scene_does_not_depend_on_how_it_is_asked_for() -> None:
    whole = _scenes(300)
    index = torch.tensor([250, 3, 77])
    part = draw(0, "test", index)
    for f in fields(Scenes):
        assert torch.equal(getattr(whole, f.name)[index], getattr(part, f.name)), f.name


def test_splits_and_seeds_share_no_key() -> None:
    index = torch.arange(5000)
    worlds = [(0, "train"), (0, "val"), (0, "test"), (1, "train"), (1, "test")]
    keys = torch.cat([draw(seed, split, index).key for seed, split in worlds])
    assert len(keys.unique()) == len(keys)


def test_factors_fill_their_ranges_and_are_independent() -> None:
    scenes, r = _scenes(20_000), Ranges()
    f = scenes.factors()
    for name, low, high in [
        ("distance", *r.distance), ("yaw", -r.yaw, r.yaw), ("pitch", -r.pitch, r.pitch), ("roll", -r.roll, r.roll),
        ("light", *r.light), ("blur", *r.blur), ("fill", *r.fill), ("shift_x", -r.shift, r.shift),
    ]:  # fmt: skip
        assert low <= f[name].min() and f[name].max() <= high * 1.00001, name
        assert f[name].min() < low + 0.02 * (high - low) and f[name].max() > high - 0.02 * (high - low), name
    hidden = f["occlusion"][f["occlusion"] > 0]
    assert len(hidden) / 20_000 == pytest.approx(0.15, abs=0.01)
    assert 0.05 <= hidden.min() and hidden.max() <= 0.2
    assert len(f["background"].unique()) == 5
    assert torch.bincount(scenes.label, minlength=16).float().std() < 60  # 35 expected
    assert f["noise"][f["light"] < 0.05].mean() > 1.5 * f["noise"][f["light"] > 0.5].mean()
    unrelated = torch.stack([f[n] for n in ("distance", "yaw", "light", "shadow", "blur", "fill", "occlusion")])
    assert (torch.corrcoef(unrelated) - torch.eye(7)).abs().max() < 0.03


def test_labels_can_be_chosen_and_change_nothing_else() -> None:
    index = torch.arange(50)
    free, stops = draw(0, "test", index), draw(0, "test", index, labels=CLASSES.index("stop"))
    assert stops.label.unique().tolist() == [0]
    assert torch.equal(free.yaw, stops.yaw)
    near = draw(0, "test", index, ranges=Ranges(distance=(3.0, 4.0)))
    assert near.distance.max() <= 4 and torch.equal(near.yaw, free.yaw)


# faces


def test_faces_are_distinct_and_have_their_colours() -> None:
    face = faces(64)
    assert face.shape == (16, 4, 64, 64) and face.min() >= 0 and face.max() <= 1
    flat = (face[:, :3] * face[:, 3:]).flatten(1)
    assert (torch.cdist(flat, flat) + 100 * torch.eye(16)).min() > 1
    left, right = face[CLASSES.index("turn left")], face[CLASSES.index("turn right")]
    torch.testing.assert_close(left, right.flip(2), atol=0.5, rtol=0)  # mirrored up to a pixel of the edges
    assert (left - right.flip(2)).abs().mean() < 0.005

    middle = {name: face[CLASSES.index(name), :3, 32, 32] for name in ("road closed", "priority road", "no entry")}
    assert middle["road closed"].min() > 0.9 and middle["no entry"].min() > 0.85
    assert middle["priority road"][0] > 0.9 and middle["priority road"][2] < 0.1
    assert face[0, 0, 10, 32] > 0.65 and face[0, 1, 10, 32] < 0.15  # the red of the stop sign
    assert face[:, 3, 0, 0].max() < 0.01 and face[:, 3, 32, 32].min() > 0.99


def test_faces_are_handed_out_as_copies() -> None:
    faces(64).zero_()
    assert faces(64).max() > 0.9


# geometry


def test_the_homography_is_a_pinhole_camera() -> None:
    scenes = _scenes(32)
    x = centres(8, torch.device("cpu"))
    u, v = on_sign(scenes, x, x)
    a, b, g = (math.pi / 180 * getattr(scenes, name).double() for name in ("yaw", "pitch", "roll"))
    zero, one = torch.zeros_like(a), torch.ones_like(a)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, -1).view(-1, 3, 3)

    turn = (
        matrix(a.cos(), zero, a.sin(), zero, one, zero, -a.sin(), zero, a.cos())
        @ matrix(one, zero, zero, zero, b.cos(), -b.sin(), zero, b.sin(), b.cos())
        @ matrix(g.cos(), -g.sin(), zero, g.sin(), g.cos(), zero, zero, zero, one)
    )
    on_plane = torch.stack([u, v, torch.zeros_like(u)], -1).double() * WIDTH / 2  # metres
    world = torch.einsum("bij,bhwj->bhwi", turn, on_plane)
    world[..., 2] += scenes.distance.double()[:, None, None]
    half = (WIDTH / 2 / scenes.distance / scenes.fill).double()[:, None, None]
    back_x = world[..., 0] / world[..., 2] / half - 2 * scenes.shift_x.double()[:, None, None]
    back_y = world[..., 1] / world[..., 2] / half - 2 * scenes.shift_y.double()[:, None, None]
    torch.testing.assert_close(back_x, x.double().expand(32, 8, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(back_y, x.double()[:, None].expand(32, 8, 8), atol=1e-5, rtol=0)


def test_the_sign_covers_its_share_of_the_crop_and_stays_in_the_middle() -> None:
    white = torch.ones(1, 4, 256, 256)
    black = torch.cat([torch.zeros(1, 3, 256, 256), torch.ones(1, 1, 256, 256)], 1)
    scenes = _plain()
    seen = (_lit(white, scenes) - _lit(black, scenes))[0].mean(0)
    assert seen.sum(0).gt(seen.sum(0).max() / 2).sum() in (25, 26)  # 0.8 of 32 pixels
    weight = seen / seen.sum()
    place = torch.arange(32) + 0.5
    assert float((weight.sum(0) * place).sum()) == pytest.approx(16, abs=0.1)
    assert float((weight.sum(1) * place).sum()) == pytest.approx(16, abs=0.1)


def test_a_far_sign_has_few_pixels() -> None:
    assert FOCAL * WIDTH / 3 == 140  # as the camera is specified
    board = (torch.arange(256) // 16 % 2).float().expand(1, 3, 256, 256)  # 16 stripes
    board = torch.cat([board, torch.ones(1, 1, 256, 256)], 1)
    contrast = [_lit(board, _plain().override(distance=d))[0, :, 14:18, 8:24].std().item() for d in (3.0, 12.0, 35.0)]
    assert contrast[0] > contrast[1] > 5 * contrast[2]


# the picture


def test_sampling_twice_is_as_good_as_twelve_times() -> None:
    scenes = _scenes(48, "val")
    psnr = []
    for part in torch.arange(48).split(16):
        some = scenes.take(part)
        fine = render(prepare(faces(), oversample=12), some, noise=False)
        error = (render(prepare(faces()), some, noise=False) - fine).square().mean((1, 2, 3))
        psnr.append(-10 * error.log10())
    assert torch.cat(psnr).mean() > 44


def test_noise_grows_in_the_dark_and_light_brightens() -> None:
    scenes = _scenes(64)
    prepared = prepare(faces())
    for light, other in ((0.05, 0.2), (0.2, 0.8)):
        assert (
            render(prepared, scenes.override(light=light)).mean()
            < render(prepared, scenes.override(light=other)).mean()
        )
    grain = [
        (render(prepared, part) - render(prepared, part, noise=False)).std().item()
        for part in (scenes.override(noise=0.0), scenes.override(noise=0.01), scenes.override(noise=0.03))
    ]
    assert grain[0] == 0 and 0 < grain[1] < grain[2]


def test_an_occluder_hides_the_sign() -> None:
    white = torch.ones(1, 4, 256, 256)
    black = torch.cat([torch.zeros(1, 3, 256, 256), torch.ones(1, 1, 256, 256)], 1)
    seen = [
        (_lit(white, scenes) - _lit(black, scenes)).mean().item()
        for scenes in (_plain(16), _plain(16).override(occlusion=0.1), _plain(16).override(occlusion=0.2))
    ]
    assert seen[0] > 1.05 * seen[1] > 1.05**2 * seen[2]


def test_which_face_is_shown() -> None:
    scenes, prepared = _scenes(16), prepare(faces())
    own = render(prepared, scenes)
    assert torch.equal(own, render(prepared, scenes, which=scenes.label))
    given = render(prepare(faces()[scenes.label]), scenes, which=torch.arange(16))  # one face for each scene
    assert torch.equal(own, given)
    single = render(prepare(faces()[:1]), scenes)
    assert torch.equal(single, render(prepared, scenes, which=torch.zeros(16, dtype=torch.int64)))


@pytest.mark.parametrize("size", [16, 33, 64])
def test_every_size_shows_the_same_scene(size: int) -> None:
    def coarse(of_size: int, scenes: Scenes) -> Tensor:
        return adaptive_avg_pool2d(render(prepare(faces(), of_size), scenes, noise=False), 8)

    scenes, usual = _plain(8), coarse(32, _plain(8))
    assert (coarse(size, scenes) - usual).abs().mean() < 0.03
    assert (coarse(size, scenes.override(shift_x=0.06)) - usual).abs().mean() > 0.04  # two pixels of 32 to the side


# gradients


def test_face_gradients_agree_with_finite_differences() -> None:
    scenes = _scenes(12, light=0.5)
    face = faces(128)[:1].clamp(0.05, 0.95)
    direction = torch.zeros_like(face)
    direction[:, :3] = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()

    def value(f: Tensor) -> Tensor:
        return (render(prepare(f), scenes).double() * weights).sum()

    x = face.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x), x)
    slope = float((gradient.double() * direction).sum())
    step = 3e-3
    measured = float((value(face + step * direction) - value(face - step * direction)) / (2 * step))
    assert abs(slope) > 0.1
    assert slope == pytest.approx(measured, rel=0.01)


def test_gradients_stay_finite_on_black_and_white() -> None:
    for level in (0.0, 1.0):
        face = torch.full((1, 4, 64, 64), level, requires_grad=True)
        render(prepare(face), _scenes(32)).sum().backward()
        assert face.grad is not None and bool(face.grad.isfinite().all())


# the data set


def test_images_are_the_same_in_every_batch_size() -> None:
    scenes = _scenes(160)
    reference = _images(scenes, 32)
    for batch_size in (1, 7, 256):
        assert torch.equal(_images(scenes, 32, batch_size), reference), batch_size


def test_load_gives_eight_bit_images_with_their_factors() -> None:
    data = load("test", 100)
    assert data.images.shape == (100, 3, 32, 32) and data.images.dtype == torch.float32
    levels = data.images * 255
    assert torch.equal(data.images, levels.round() / 255)
    assert data.images.min() >= 0 and data.images.max() <= 1
    assert torch.equal(data.images[:30], load("test", 30).images)
    scenes = draw(0, "test", torch.arange(100))
    assert torch.equal(data.labels, scenes.label) and torch.equal(data.factors["distance"], scenes.distance)
    assert all(v.shape == (100,) and v.dtype == torch.float32 for v in data.factors.values())
    assert data.classes == CLASSES and len(CLASSES) == 16
    assert data.meanings.keys() == data.factors.keys()  # every factor has a label, a unit and a kind
    assert data.factors["background"].max() < len(data.meanings["background"].categories) == 5


def test_the_hash_names_the_world_not_the_selection() -> None:
    hashes = {load("test", 2).hash, load("val", 2).hash, load("test", 2, seed=1).hash, load("test", 2, size=16).hash}
    assert len(hashes) == 4
    assert load("test", 5).hash == load("test", 2).hash


def test_bad_input_is_told() -> None:
    with pytest.raises(UserError, match="512"):
        load("test", 1, size=4096)


@pytest.mark.slow
def test_speed() -> None:
    """1,000 images a second on two cores are asked for; one shared core manages 500 of CPU time even when busy."""
    scenes, prepared = _scenes(128), prepare(faces())
    render(prepared, scenes)
    began = time.process_time()
    for _ in range(8):
        render(prepared, scenes)
    assert 8 * 128 / (time.process_time() - began) > 500
