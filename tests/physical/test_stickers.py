"""Stickers: what is fitted is what is printed and judged, a stopped fit goes on to the same, controls do nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from robustlab import load_model
from robustlab.base.errors import UserError
from robustlab.physical import RP2, Sticker, answers, controls, drive_by, grid, judged
from robustlab.physical.fitted import unwatched
from robustlab.physical.masks import MASKS, Shape, best_blocks, mask_of, shape_of
from robustlab.physical.measure import DISTANCES, YAWS, paper_cells
from robustlab.physical.palette import PRINTABLE, from_palette, hard, mixed, non_printability, total_variation
from robustlab.physical.rp2 import _Fit
from robustlab.worlds.road_signs import CLASSES, Ranges, draw, faces

MODEL = load_model("road-signs/cnn")
STOP = faces()[CLASSES.index("stop")]
QUICK = RP2("stop", "speed limit 50", mask="bars", steps=4, scenes=8)


@pytest.fixture(scope="module")
def fitted() -> Sticker:
    return RP2("stop", "speed limit 50", mask="poster", steps=40, scenes=16).fit(MODEL)


def test_it_is_read_as_the_target_and_controls_are_not(fitted: Sticker) -> None:
    scenes = judged(fitted, 200, seed=3, ranges=Ranges(yaw=30.0, distance=(3.0, 20.0)))
    found = answers(MODEL, fitted, scenes).summary()
    assert found["clean"]["value"] > 0.9 and found["success"]["value"] > 0.6
    assert found["success"]["n"] == round(found["clean"]["value"] * 200)
    for control in controls(fitted).values():
        assert answers(MODEL, control, scenes).summary()["success"]["value"] < 0.4  # nothing of the sign is left


def test_every_texel_is_a_printable_colour(fitted: Sticker) -> None:
    whole = torch.ones(fitted.texture.shape[1:], dtype=torch.bool)
    assert from_palette(fitted.texture, whole, PRINTABLE) < 1e-6
    assert from_palette(torch.rand(3, 8, 8), torch.ones(8, 8, dtype=torch.bool), PRINTABLE) > 0.05


def test_a_stopped_fit_goes_on_to_the_same_sticker() -> None:
    """At any step of the search and of the fit that follows it."""
    attack = RP2(mask="search", steps=3, scenes=4, blocks=16)
    states: list[dict[str, torch.Tensor]] = []
    whole = attack.fit(MODEL, watch=lambda step, loss, state: states.append(state))
    assert len(states) == 9  # three searches and trials of a step each, and the fit
    for state in states:
        again = attack.fit(MODEL, state=state)
        assert torch.equal(again.texture, whole.texture) and torch.equal(again.mask, whole.mask)


def test_the_seed_and_the_expectation_decide() -> None:
    one, same = QUICK.fit(MODEL, seed=1), QUICK.fit(MODEL, seed=1)
    assert torch.equal(one.texture, same.texture)
    assert not torch.equal(one.texture, QUICK.fit(MODEL, seed=2).texture)
    single = RP2("stop", "speed limit 50", mask="bars", steps=4, scenes=8, expectation=False)
    assert not torch.equal(one.texture, single.fit(MODEL, seed=1).texture)


def test_the_classifier_is_left_as_it_was() -> None:
    before = {key: value.clone() for key, value in MODEL.state_dict().items()}
    MODEL.train()
    try:
        QUICK.fit(MODEL)
        assert MODEL.training and all(p.grad is None and p.requires_grad for p in MODEL.parameters())
        assert all(torch.equal(before[key], value) for key, value in MODEL.state_dict().items())
    finally:
        MODEL.eval()


def test_only_the_mask_changes_and_the_edge_stays() -> None:
    mask = mask_of("bars", STOP)
    red = torch.zeros(3, 64, 64)
    face = Sticker(red, mask, "stop").on(STOP)
    assert torch.equal(face[:3, ~mask], STOP[:3, ~mask]) and not face[:3, mask].any()
    assert torch.equal(face[3], STOP[3])


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str) -> None:
    mask = mask_of(name, STOP)
    shape = shape_of(mask, STOP)
    assert not bool(mask[STOP[3] < 0.99].any())
    assert (0.1 < shape.share < 0.3 or name == "poster") and shape.pieces == {"bars": 2, "art": 4, "poster": 1}.get(
        name, shape.pieces
    )
    assert shape.side > 0.02  # metres: a person with scissors cuts nothing smaller


def test_the_best_blocks() -> None:
    change = torch.zeros(256, 256)
    change[96:112, 96:128], change[160:176, 160:176], change[64:80, 160:176] = 3, 2, 1
    mask = best_blocks(change, STOP, 3.5 * 256 / float((STOP[3] > 0.99).sum()), blocks=16, pieces=2)
    assert mask[96:112, 96:128].all() and mask[160:176, 160:176].all() and int(mask.sum()) == 3 * 256
    assert shape_of(mask, STOP) == Shape(
        float(mask.sum() / (STOP[3] > 0.99).sum()), 2, pytest.approx(16 * 0.75 / 248.3, rel=1e-3)
    )
    assert int(best_blocks(change, STOP, 0.2, 16, pieces=1).sum()) > 3 * 256


def test_a_picture_is_a_mask(tmp_path: Path) -> None:
    picture = Image.new("L", (50, 50))
    picture.paste(255, (20, 20, 30, 30))
    picture.save(tmp_path / "mask.png")
    mask = mask_of(str(tmp_path / "mask.png"), STOP)
    assert 0.9 < mask[104:152, 104:152].float().mean() and not mask[:90].any()


@pytest.mark.parametrize("case", ["empty", "outside", "none", "unknown"])
def test_masks_that_are_none(case: str, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    picture = Image.new("L", (64, 64))
    if case == "outside":
        picture.paste(255, (0, 0, 3, 3))
    picture.save(path)
    if case == "none":
        path.write_text("no picture")
    message = {"empty": "is empty", "outside": "outside the sign", "none": "cannot be read", "unknown": "Did you mean"}
    with pytest.raises(UserError, match=message[case]):
        mask_of("bar" if case == "unknown" else str(path), STOP)


def test_bad_attacks() -> None:
    with pytest.raises(UserError, match="no sign 'stopp'"):
        RP2("stopp")
    with pytest.raises(UserError, match="the sign itself"):
        RP2("stop", "stop")


def test_saved_and_loaded(fitted: Sticker, tmp_path: Path) -> None:
    fitted.save(tmp_path / "one.safetensors")
    again = Sticker.load(tmp_path / "one.safetensors")
    assert torch.equal(again.texture, fitted.texture) and torch.equal(again.mask, fitted.mask)
    assert (again.source, again.target) == ("stop", "speed limit 50")
    (tmp_path / "two.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no sticker"):
        Sticker.load(tmp_path / "two.safetensors")


def test_the_palette() -> None:
    logits = torch.randn(len(PRINTABLE), 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mixed(logits, PRINTABLE, 1e4), hard(logits, PRINTABLE), atol=1e-3)
    weight = torch.ones(4, 4)
    assert total_variation(torch.full((3, 4, 4), 0.3), weight) == 0
    assert non_printability(hard(logits, PRINTABLE), weight, PRINTABLE) < non_printability(
        torch.full((3, 4, 4), 0.7), weight, PRINTABLE
    )


def test_the_grid_and_the_drive_by(fitted: Sticker) -> None:
    rows = grid(MODEL, fitted, n=8, fitted=Ranges(yaw=30.0, distance=(3.0, 20.0)))
    assert [(row["distance"], row["yaw"]) for row in rows] == [(d, a) for d in DISTANCES for a in YAWS]
    assert [row["fitted"] for row in rows if row["yaw"] == 0] == [False, True, True, True, True, True, False, False]
    assert all(row["clean"]["n"] == 8 and row["success"]["n"] <= 8 for row in rows)
    assert paper_cells()[0] == (1.52, 0.0)
    ride = drive_by(MODEL, fitted, frames=10)
    assert [frame["distance"] for frame in ride["frames"]][::9] == [40.0, 3.0] and ride["success"]["n"] <= 10
    bare = Sticker(fitted.texture, torch.zeros_like(fitted.mask), "stop", "yield")
    again = drive_by(MODEL, bare, frames=10)
    right = [frame["attacked"] == "stop" for frame in again["frames"]]
    first = next((i for i in range(10) if all(right[i:])), None)
    assert again["read_at"] == (None if first is None else again["frames"][first]["distance"])


def test_scenes_of_fitting_and_judging_share_no_key() -> None:
    """Nor do those of two steps."""
    quick = _Fit(QUICK, MODEL, STOP, 32, 0, unwatched)
    fit = torch.cat([quick.scenes(step).key for step in range(5)])
    judge = draw(0, "sticker, judge", torch.arange(500), 0).key
    assert len(torch.cat([fit, judge]).unique()) == len(fit) + len(judge)


def test_free_colours_and_their_distance_to_the_printable_ones() -> None:
    """The non-printability score draws free colours towards the palette; the mixture is on it by construction."""
    weight = F.adaptive_avg_pool2d(mask_of("bars", STOP)[None].float(), 64)[0] > 0.5
    free = RP2(mask="bars", steps=20, scenes=4, printable=False)
    far = from_palette(free.fit(MODEL).texture, weight, PRINTABLE)
    near = from_palette(replace(free, non_printability=5.0).fit(MODEL).texture, weight, PRINTABLE)
    assert 0 < near < far
    assert from_palette(RP2(mask="bars", steps=2, scenes=4).fit(MODEL).texture, weight, PRINTABLE) == 0
    with pytest.raises(UserError, match="printable = false"):
        RP2(non_printability=1.0)


def test_the_search_keeps_the_mask_of_the_least_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, kept = iter([2.0, 1.0, 3.0]), []
    monkeypatch.setattr(_Fit, "loss", lambda self, sticker: (kept.append(sticker.mask), next(losses))[1])
    sticker = RP2(steps=2, scenes=2).fit(MODEL, seed=3)
    assert len(kept) == 3 and torch.equal(sticker.mask, kept[1])
