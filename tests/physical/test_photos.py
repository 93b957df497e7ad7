"""Stickers on photographs: put where the corners say, fitted alike whatever stops the fit, counted fairly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from robustlab.base.draws import keys, uniform
from robustlab.base.errors import UserError
from robustlab.oracle import NoGradientError
from robustlab.physical import (
    STILL,
    Camera,
    PhotoAttack,
    PhotoSticker,
    fit_and_judge,
    measure_photo,
    photo_controls,
    photographs,
)
from robustlab.physical.palette import PRINTABLE
from robustlab.physical.photo_view import homography, keyed, light_of, pasted, rectified, viewed

IDS = torch.arange(30)
SQUARE = torch.tensor([[6, 6], [26, 6], [26, 26], [6, 26]])
TILTED = torch.tensor([[5.0, 8.0], [28.0, 3.0], [25.0, 29.0], [8.0, 24.0]])
QUICK = PhotoAttack(target=1, mask="poster", steps=4, batch=8, texels=16)


def pictures() -> Tensor:
    """Dark images on the grid k / 255."""
    return (uniform(keys(7, IDS, "pictures"), (3, 32, 32)) * 0.3 * 255).round() / 255


class Redness(nn.Module):
    """Class 1 where the middle is more red than green and blue; a BatchNorm and a dropout to be left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3, affine=False, eps=0.0), nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: Tensor) -> Tensor:
        middle = self.drop(self.norm(x))[:, :, 12:20, 12:20].mean((2, 3))
        red = self.scale * (middle[:, 0] - middle[:, 1:].mean(1) - 0.1)
        return torch.stack([-red, red], 1)


NET = Redness().eval()


def test_corners_go_to_the_corners_of_the_face() -> None:
    h = homography(TILTED[None])[0]
    found = torch.cat([TILTED, torch.ones(4, 1)], 1) @ h.T
    assert torch.allclose(found[:, :2] / found[:, 2:], torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]), atol=1e-4)
    assert bool((found[:, 2] > 0).all())


def test_a_texture_on_a_square_is_pasted_texel_by_texel() -> None:
    """With as many texels as sampled points: the very values, and nothing outside the square changes."""
    texture, mask = torch.rand(3, 40, 40), torch.ones(40, 40)
    mask[:20] = 0
    images = torch.rand(2, 3, 32, 32)
    expected = images.clone()
    expected[:, :, 16:26, 6:26] = F.avg_pool2d(texture, 2)[:, 10:]
    assert torch.allclose(
        pasted(images, SQUARE.float().expand(2, 4, 2), texture, mask, torch.ones(2)), expected, atol=1e-5
    )


def test_what_was_pasted_is_seen_again_from_the_front() -> None:
    texture = F.interpolate(torch.rand(1, 3, 4, 4), (128, 128), mode="bilinear")[0]
    images = torch.zeros(1, 3, 256, 256)
    corners = TILTED[None] * 8
    front = rectified(pasted(images, corners, texture, torch.ones(128, 128), torch.ones(1)), corners, 128)[0]
    assert (front - texture)[:, 4:-4, 4:-4].abs().mean() < 0.01


def test_what_lies_behind_the_horizon_gets_no_sticker() -> None:
    """A quadrilateral in strong perspective, whose horizon lies inside the image."""
    corners = torch.tensor([[[14.0, 12.0], [18.0, 12.0], [32.0, 30.0], [0.0, 30.0]]])
    found = pasted(torch.zeros(1, 3, 32, 32), corners, torch.ones(3, 16, 16), torch.ones(16, 16), torch.ones(1))[0, 0]
    assert bool((found[:12] == 0).all()) and found[12:30, 16].min() > 0.999


def test_cameras_depend_on_seed_and_id_alone() -> None:
    images, corners, texture = pictures(), TILTED.expand(30, 4, 2), torch.rand(3, 16, 16)

    def seen(part: slice, seed: int = 0) -> Tensor:
        sticker = texture, torch.ones(16, 16), torch.ones(30)[part]
        return viewed(images[part], corners[part], Camera(), keyed(seed, IDS[part], "judge"), sticker)

    whole = seen(slice(None))
    assert torch.allclose(whole[10:13], seen(slice(10, 13)), atol=1e-5)
    assert (whole - seen(slice(None), 1)).abs().mean() > 0.02


@pytest.mark.parametrize(
    "change",
    [{"turn": 20.0}, {"scale": (0.7, 0.8)}, {"shift": 0.2}, {"brightness": 0.4}, {"blur": 0.1}, {"noise": 0.2}],
)
def test_each_change_changes_the_bare_image_and_the_one_with_the_sticker(change: dict[str, Any]) -> None:
    images, corners, grey = pictures(), TILTED.expand(30, 4, 2), torch.full((3, 16, 16), 0.5)
    camera, key = replace(STILL, **change), keyed(0, IDS, "judge")
    sticker = grey, torch.ones(16, 16), torch.ones(30)
    bare, with_it = (viewed(images, corners, camera, key, each) for each in (None, sticker))
    assert (bare - images).abs().mean() > 0.01
    assert (with_it - pasted(images, corners, *sticker)).abs().mean() > 0.01


def test_the_sticker_moves_with_the_image() -> None:
    """A sticker that shows what lies there already is not seen, however the image is turned, scaled and shifted."""
    blocks = F.interpolate(torch.rand(1, 3, 4, 4), (64, 64), mode="bilinear").expand(30, 3, 64, 64)
    corners = (TILTED * 2).expand(30, 4, 2)
    texture = rectified(blocks[:1], corners[:1], 128)[0]
    camera = replace(STILL, turn=30.0, scale=(0.7, 1.3), shift=0.1)
    sticker, key = (texture, torch.ones(128, 128), torch.ones(30)), keyed(0, IDS, "judge")
    bare, with_it = (viewed(blocks, corners, camera, key, each) for each in (None, sticker))
    assert (bare - with_it).abs().mean() < 0.004 < 0.05 < (bare - blocks).abs().mean()


def test_a_sticker_is_as_dark_as_the_thing_it_is_on() -> None:
    face, grey = torch.full((3, 64, 64), 0.6), torch.full((3, 16, 16), 0.5)
    images = torch.tensor([0.6, 0.3, 0.9, 0.0])[:, None, None, None].expand(4, 3, 32, 32)
    sticker = PhotoSticker(grey, torch.ones(64, 64).bool(), face, 1)
    assert sticker.on(images, SQUARE)[:, 0, 16, 16].mul(255).round().tolist() == [128, 64, 191, 13]
    assert light_of(images, SQUARE.float().expand(4, 4, 2), face).tolist() == pytest.approx(
        [1, 0.5, 1.5, 0.1], rel=1e-5
    )


def test_fitting_and_judging_share_no_key() -> None:
    copies = [keyed(0, IDS, "fit", step, torch.full_like(IDS, copy)) for step in range(4) for copy in range(2)]
    assert len(torch.cat([keyed(0, IDS, "judge"), *copies]).unique()) == 9 * len(IDS)


@pytest.mark.parametrize("target", [1, "red", None])
def test_a_fitted_sticker_succeeds_and_grey_does_not(target: int | str | None) -> None:
    before = {name: value.clone() for name, value in NET.state_dict().items()}
    attack = replace(QUICK, target=target, steps=25)
    sticker = attack.fit(NET, pictures()[:20], SQUARE, torch.zeros(20), IDS[:20], ["dark", "red"])
    assert sticker.target == (None if target is None else 1)
    assert float(torch.cdist(sticker.texture.flatten(1).T, PRINTABLE).amin(1).max()) < 1e-3  # printable, each texel
    found = measure_photo(NET, sticker, pictures()[20:], SQUARE, torch.zeros(10), IDS[20:])
    for view in ("still", "camera"):
        assert found[view]["clean"]["value"] == 1 and found[view]["found"]["sticker"]["success"]["n"] == 10
        assert found[view]["found"]["sticker"]["success"]["value"] == 1
        assert found[view]["found"]["grey"]["success"]["value"] == 0
    assert not NET.training and all(torch.equal(before[name], value) for name, value in NET.state_dict().items())


def test_a_success_counts_only_where_the_image_is_read_right() -> None:
    images = pictures()
    images[:4, 0] = 0.9  # read as red, though labelled dark
    labels = torch.zeros(30, dtype=torch.int64)
    labels[4:6] = 1  # of the target class, and read wrong
    face = torch.full((3, 64, 64), 0.15)  # as bright as the pictures
    red = PhotoSticker(PRINTABLE[3, :, None, None].expand(3, 8, 8), torch.ones(64, 64).bool(), face, 1)
    found = measure_photo(NET, red, images, SQUARE, labels, IDS, camera=STILL)
    assert found["still"] == found["camera"]
    assert (found["still"]["clean"]["n"], found["still"]["found"]["sticker"]["success"]["n"]) == (30, 24)
    assert found["still"]["found"]["sticker"]["success"]["value"] == 1


@pytest.mark.parametrize("stop", [1, 5])
def test_a_stopped_search_goes_on_to_the_same_sticker(stop: int) -> None:
    """In the first fit, of the whole face, and in the second, of the blocks."""
    attack, states = replace(QUICK, mask="search", steps=4, share=0.1), []

    def fit(**more: Any) -> PhotoSticker:
        return attack.fit(NET, pictures()[:3], TILTED, torch.zeros(3), IDS[:3], **more)  # fewer images than the batch

    whole = fit(watch=lambda step, loss, state: states.append({name: value.clone() for name, value in state.items()}))
    again = fit(state=states[stop])
    assert len(states) == attack.fits * attack.steps
    assert torch.equal(whole.texture, again.texture) and torch.equal(whole.mask, again.mask)
    assert 0.05 < whole.mask.float().mean() <= 0.1
    assert not torch.equal(whole.texture, fit(seed=1).texture)


def test_a_single_photograph_is_fitted_under_many_cameras() -> None:
    sticker, found = fit_and_judge(NET, pictures()[:1], SQUARE, torch.zeros(1), replace(QUICK, steps=25))
    assert (found["fitted"], found["held_out"], found["still"]["found"]["sticker"]["success"]["value"]) == (1, False, 1)
    losses: list[float] = []
    replace(QUICK, steps=1).fit(
        lambda x: losses.append(len(x.flatten(1).unique(dim=0))) or NET(x), pictures()[:1], SQUARE, torch.zeros(1)
    )
    assert losses == [8]  # the batch holds 8 different views of it
    assert sticker.mask.all()


def test_a_saved_sticker_is_the_same(tmp_path: Path) -> None:
    mask = torch.rand(64, 64) < 0.5
    sticker = PhotoSticker(torch.rand(3, 16, 16), mask, torch.rand(3, 64, 64), 7)
    sticker.save(tmp_path / "sticker.safetensors")
    again = PhotoSticker.load(tmp_path / "sticker.safetensors")
    assert again.target == 7
    assert all(torch.equal(getattr(sticker, name), getattr(again, name)) for name in ("texture", "mask", "face"))
    for content in (b"", b"no sticker", (tmp_path / "sticker.safetensors").read_bytes()[:-9]):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(UserError, match="is no sticker for photographs"):
            PhotoSticker.load(tmp_path / "broken")


def test_it_is_printed(tmp_path: Path) -> None:
    sticker = PhotoSticker(torch.zeros(3, 16, 16), torch.ones(64, 64).bool(), torch.ones(3, 64, 64), 7)
    sticker.print(tmp_path / "paper", width=0.3)
    with Image.open(tmp_path / "paper" / "sticker.png") as image:
        assert abs(image.width / image.info["dpi"][0] * 25.4 - 300) < 0.5


def test_controls_lie_in_the_same_mask() -> None:
    sticker = PhotoSticker(torch.zeros(3, 16, 16), torch.rand(64, 64) < 0.5, torch.ones(3, 64, 64), 1)
    found = photo_controls(sticker)
    assert list(found) == ["grey", "random", "black and white"]
    assert all(torch.equal(each.mask, sticker.mask) and each.target == 1 for each in found.values())
    assert len({each.texture.numpy().tobytes() for each in found.values()}) == 3


# --- photographs of one's own -----------------------------------------------------------------------------------------


def frames(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir()
    for at, size in enumerate(sizes):
        Image.fromarray(np.full((*size[::-1], 3), 50 * at + 50, np.uint8)).save(folder / f"frame{at:02}.png")
    return folder


def test_a_picture_is_scaled_and_its_corners_with_it(tmp_path: Path) -> None:
    folder = frames(tmp_path / "video", [(200, 100)])
    found = photographs(folder / "frame00.png", "20,10 180,10 180,90 20,90", (50, 40))
    assert found.images.shape == (1, 3, 50, 40) and found.names == ["frame00.png"]
    assert found.corners.tolist() == [[[4, 5], [36, 5], [36, 45], [4, 45]]]


@pytest.mark.parametrize("kind", ["list.json", "dict.json", "titled.csv"])
def test_frames_with_their_own_corners(tmp_path: Path, kind: str) -> None:
    folder, file = frames(tmp_path / "video", [(100, 100), (200, 100)]), tmp_path / kind
    (folder / "notes.txt").write_text("not a picture")
    own = [[[10, 10], [90, 10], [90, 90], [10, 90]], [[20, 10], [180, 10], [180, 90], [20, 90]]]
    if kind == "list.json":
        file.write_text(json.dumps(own))
    elif kind == "dict.json":
        file.write_text(json.dumps({f"frame0{at}.png": own[at] for at in (1, 0)}))
    else:
        lines = [f"frame0{at}.png," + ",".join(str(v) for point in own[at] for v in point) for at in (1, 0)]
        file.write_text("name,x1,y1,x2,y2,x3,y3,x4,y4\n" + "\n".join(lines) + "\n")
    found = photographs(folder, file, 50)
    assert found.images[:, 0, 0, 0].mul(255).tolist() == [50, 100]
    assert torch.equal(found.corners[0], found.corners[1]) and found.corners[0].tolist()[2] == [45, 45]


FINE = "10,10 90,10 90,90 10,90"


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ("10,10 90,90 90,10 10,90", "frame00.png cross"),
        ("10,10 10,90 90,90 90,10", "clockwise"),
        ("10,10 90,10 50,10.5 10,90", "convex"),
        ("10,10 50,50 90,90 10,90", "on a line"),
        ("10,10 190,10 90,90 10,90", "corner 190,10 of frame00.png lies outside the picture, which is 100 x 100"),
        ("-1,10 90,10 90,90 10,90", "outside"),
        ("10,10 90,10 90,90", "8 numbers; got 6"),
        ("upper left", "got 'upper left'"),
        ("nan,10 90,10 90,90 10,90", "not finite"),
        ("none.json", "does not exist"),
    ],
)
def test_corners_that_cannot_be_used(tmp_path: Path, corners: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        photographs(frames(tmp_path / "video", [(100, 100)]), corners)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[[[1, 2]]]", "8 numbers; got 2"),
        ("a.json", '{"other.png": []}', "no corners for frame00.png"),
        ("a.json", "[]", "each of the 1 pictures; got 0"),
        ("a.json", '[[["a", 2]]]', "four pairs"),
        ("a.json", "[7]", "8 numbers; got 1"),
        ("a.json", "{", "damaged"),
        ("a.csv", "frame00.png,1,2,3\n", "8 numbers; got 3"),
        ("a.csv", "frame01.png,1,2,3\n", "no corners for frame00.png"),
    ],
)
def test_files_of_corners_that_cannot_be_used(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        photographs(frames(tmp_path / "video", [(100, 100)]), tmp_path / name)


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    for path, message in (
        (tmp_path / "nothing.png", "does not exist"),
        (tmp_path / "empty", "holds no pictures"),
        (tmp_path / "text.png", "cannot be read as a picture"),
        (frames(tmp_path / "mixed", [(100, 100), (200, 100)]), "pictures of one size"),
    ):
        with pytest.raises(UserError, match=message):
            photographs(path, FINE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: QUICK.fit(NET, pictures(), SQUARE, torch.ones(30)), "All photographs are of the target class"),
        (lambda: QUICK.fit(NET, pictures()[:, :1], SQUARE, torch.zeros(30)), "3 channels, got 1"),
        (lambda: QUICK.fit(NET, pictures(), SQUARE[:3], torch.zeros(30)), "shape"),
        (lambda: QUICK.fit(NET, pictures(), SQUARE.expand(7, 4, 2), torch.zeros(30)), "for 30 images"),
        (lambda: QUICK.fit(NET, pictures(), SQUARE * 2, torch.zeros(30)), "outside the picture"),
        (lambda: replace(QUICK, target=5).fit(NET, pictures(), SQUARE, torch.zeros(30)), "the target must be"),
        (lambda: replace(QUICK, target="rde").fit(NET, pictures(), SQUARE, torch.zeros(30), None, ["red"]), "'red'"),
        (lambda: replace(QUICK, mask="bras").fit(NET, pictures(), SQUARE, torch.zeros(30)), "bars"),
        (lambda: PhotoAttack(texels=48), "divide 256"),
        (lambda: PhotoAttack(share=0.0), "share"),
        (lambda: PhotoAttack(lr=float("nan")), "lr"),
        (lambda: Camera(noise=-0.1), "noise"),
        (lambda: Camera(scale=(1.1, 0.9)), "smaller one first"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_a_model_without_a_gradient() -> None:
    with pytest.raises(NoGradientError):
        QUICK.fit(lambda x: NET(x).detach(), pictures(), SQUARE, torch.zeros(30))
