"""Image files of many kinds, written by Pillow and read back."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from robustlab.data.decoding import decode, fit, to_tensor


def written(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_come_back_as_they_were(format: str) -> None:
    pixels = noise(5, 7, 3)
    options = {"lossless": True} if format == "WEBP" else {}
    image = decode(written(Image.fromarray(pixels), format, **options))
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), pixels)
    tensor = to_tensor(image, 3)
    assert tensor.shape == (3, 5, 7) and tensor.dtype == torch.float32
    assert torch.equal((tensor * 255).round().byte().permute(1, 2, 0), torch.from_numpy(pixels))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_become_eight(format: str) -> None:
    values = np.array([[0, 257 * 3, 257 * 3 + 200], [65535, 40000, 128]], dtype=np.uint16)
    image = decode(written(Image.fromarray(values), format))
    assert image.mode == "L" and np.asarray(image).tolist() == [[0, 3, 4], [255, 156, 0]]


def test_values_of_32_bits_are_refused() -> None:
    for kind in (np.int32, np.float32):
        with pytest.raises(ValueError, match="32 bits"):
            decode(written(Image.fromarray(np.zeros((2, 2), kind)), "TIFF"))


def test_what_is_transparent_lies_on_black() -> None:
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], dtype=np.uint8)
    image = decode(written(Image.fromarray(rgba), "PNG"))
    assert np.asarray(image).tolist() == [[[200, 100, 50], [0, 0, 0], [100, 50, 25]]]
    grey = decode(written(Image.fromarray(rgba).convert("LA"), "PNG"))
    assert grey.mode == "L" and np.asarray(grey)[0, 1] == 0


def test_palettes_become_their_colours() -> None:
    colours = Image.new("P", (2, 1))
    colours.putpalette([255, 0, 0, 9, 9, 9, 1, 2, 3])
    colours.putdata([0, 1])
    assert np.asarray(decode(written(colours, "PNG"))).tolist() == [[[255, 0, 0], [9, 9, 9]]]
    colours.putdata([0, 2])
    assert np.asarray(decode(written(colours, "PNG", transparency=0))).tolist() == [[[0, 0, 0], [1, 2, 3]]]
    colours.putdata([1, 1])
    assert decode(written(colours, "GIF")).mode == "L"  # only its grey occurs
    assert decode(written(Image.new("1", (2, 1), 1), "PNG")).mode == "L"


def test_exif_turns_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    pixels = noise(4, 6, 3)
    turned = decode(written(Image.fromarray(pixels), "PNG", exif=exif))
    assert np.array_equal(np.asarray(turned), np.rot90(pixels, -1))


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (24, 24), (301, 97), (7, 5), (24, 25)])
def test_fit_is_what_torchvision_does(shape: tuple[int, int]) -> None:
    image = Image.fromarray(noise(*shape, 3))
    theirs = Compose([Resize(24), CenterCrop(24)])(image)
    assert np.array_equal(np.asarray(fit(image, (24, 24))), np.asarray(theirs))


@pytest.mark.parametrize("size", [(10, 40), (40, 10), (1, 1), (33, 34)])
def test_fit_keeps_the_aspect_ratio(size: tuple[int, int]) -> None:
    """A disc stays a disc, and in the middle."""
    y, x = np.mgrid[:120, :160]
    disc = ((y - 59.5) ** 2 + (x - 79.5) ** 2 < 30**2).astype(np.uint8) * 255
    got = np.asarray(fit(Image.fromarray(disc), size)).astype(float) / 255
    assert got.shape == size
    scale = max(size[0] / 120, size[1] / 160)
    if min(size) > 1 and 60 * scale < min(size):
        assert got.sum() == pytest.approx(np.pi * (30 * scale) ** 2, rel=0.05)
        assert np.allclose(got, got[::-1], atol=0.15) and np.allclose(got, got[:, ::-1], atol=0.15)


def test_colour_for_a_grey_model_is_its_luma() -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert to_tensor(red, 1).shape == (1, 2, 2)
    assert to_tensor(red, 1).mean().item() == pytest.approx(0.299, abs=0.002)
    assert torch.equal(*to_tensor(red.convert("L"), 3)[:2])
