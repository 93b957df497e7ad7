"""Pictures decode to what went in, and the colours of heatmaps are in the order of their lightness."""

from __future__ import annotations

import io
import re
from importlib.resources import files

import numpy as np
import torch
from PIL import Image

from robustlab.base.pictures import blended, enlarged, heat_png, outlined, palette, png


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colours."""
    c = colours / 255
    y = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, 24389 / 27 * y)


def test_heat_colours_rise_in_lightness_by_even_steps() -> None:
    light = lightness(palette())
    assert palette().shape == (256, 3) and light[0] < 10 and light[-1] > 95
    assert (np.diff(light) > 0).all()  # every reader sees the same order
    assert np.abs(light - np.linspace(light[0], light[-1], 256)).max() < 1.5


def test_images_and_other_channel_counts() -> None:
    x = torch.arange(24.0).view(2, 3, 4).div(255)
    assert np.array_equal(pixels(png(x[:1]))[:, :, 0], np.arange(12).reshape(3, 4))
    assert np.array_equal(pixels(png(x))[:, :, 0], np.arange(6, 18).reshape(3, 4))  # the mean of two channels
    colour = torch.rand(3, 5, 2)
    assert np.array_equal(pixels(png(colour)), colour.mul(255).round().byte().permute(1, 2, 0).numpy())


def test_heatmaps() -> None:
    heat = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 1.5]])
    assert np.array_equal(pixels(heat_png(heat, 4.0)), palette()[[[0, 64, 128], [191, 255, 96]]])
    assert np.array_equal(pixels(heat_png(heat, 2.0))[1, :2], palette()[[255, 255]])  # more than full is full
    assert (pixels(heat_png(heat * 0, 0.0)) == palette()[0]).all()


def test_the_pages_legend_has_the_colours_of_the_maps() -> None:
    """The page is built without torch, so its style sheet says them again."""
    css = files("robustlab.reporting").joinpath("page.css").read_text()
    stops = re.findall(r"#([0-9a-f]{6})", re.search(r"\.ramp {.*?}", css, re.DOTALL)[0])  # type: ignore[index]
    places = np.linspace(0, 255, len(stops)).round().astype(int)
    assert (np.abs(palette()[places].astype(int) - [list(bytes.fromhex(stop)) for stop in stops]) <= 1).all()


def test_heat_over_an_image_keeps_the_scale_and_leaves_cold_places_grey() -> None:
    image, heat = torch.rand(3, 4, 4), torch.zeros(4, 4)
    heat[0, 0], heat[0, 1] = 2.0, 1.0
    found = blended(heat, 2.0, image)
    assert torch.allclose(found[:, 1:], 0.7 * image.mean(0)[1:].expand(3, -1, -1))
    assert torch.equal(found[:, 0, 1], blended(heat / 2, 1.0, image)[:, 0, 1])  # half of the scale, whatever it is
    assert float(found[0, 0, 0] - found[2, 0, 0]) > 0.1  # yellow
    assert torch.equal(blended(heat * 0, 0.0, image), blended(heat * 0, 1.0, image))


def test_the_line_runs_around_the_region_and_leaves_it_as_it_is() -> None:
    image, inside = torch.rand(1, 1, 32, 32), torch.zeros(1, 32, 32, dtype=torch.bool)
    inside[0, 8:16, 8:16] = True
    found, plain = outlined(image, inside), enlarged(image.expand(-1, 3, -1, -1))
    changed = (found != plain).any(1)[0]
    assert not bool(changed[24:48, 24:48].any()) and bool(changed[22:24, 24:48].all())
    assert int(changed.sum()) == 28**2 - 24**2  # two pixels on each side
    assert torch.equal(outlined(image, ~inside & inside), plain)
