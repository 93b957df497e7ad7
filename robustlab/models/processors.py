"""What an image processor of transformers does to pixels, found by asking it. See `preprocessing`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.words import first_line
from robustlab.models.framing import framing

_SIDE = 256  # of the images that are shown to it
_NEAR = 1e-5  # float32 and a few operations


class Preprocessing(NamedTuple):
    """(x - mean) / std of images x in [0, 1], the channels then `reversed` or not; shape: None for any size.

    notes: whether the processor shows another part of an image than robustlab; see `framing`.
    """

    mean: list[float]
    std: list[float]
    reversed: bool
    shape: tuple[int, int, int] | None
    notes: list[str]


def preprocessing(processor: Any, channels: int, name: str) -> Preprocessing:
    """Mean, standard deviation, order of the channels and size that belong to an image processor.

    Its settings alone do not say it: some divide by the standard deviation twice, some reverse the channels without a
    setting for that. So it is shown black, white, gray and one bright channel at a time: from black and white follow
    mean and std of each channel, from the bright ones which channel becomes which. Where it does more to colours, or
    puts a frame around a square image, it is refused. What it crops or stretches is said in a note, and is not done.

    processor: called with an image of Pillow, gives `pixel_values`. channels: 1 or 3. name: in messages.
    Raises UserError.
    """
    if channels not in (1, 3):
        raise UserError(f"{name} takes images of {channels} channels; 1 or 3 are expected.")
    bright = [tuple(255 * (i == j) for i in range(channels)) for j in range(channels)]
    black, white, gray = ((value,) * channels for value in (0, 255, 51))
    made = [_asked(processor, _filled(colour, _SIDE), name) for colour in (black, white, gray, *bright)]
    values = torch.stack([each[:, 0, 0] for each in made]).double()  # (colours, channels)
    start, slope = values[0], values[1] - values[0]
    reach = values[3:] - start  # (bright channel, channel of the result)
    orders = [torch.diag(slope), torch.diag(slope).flip(0)]
    found = next((k for k, order in enumerate(orders) if _near(reach, order, slope)), None)
    straight = _near(values[2], start + slope * (51 / 255), slope)
    flat = all(bool((each == each[:, :1, :1]).all()) for each in made)
    if found is None or not straight or not flat or not bool((slope > 0).all()):
        raise UserError(
            f"The image processor of {name} ({type(processor).__name__}) does more than to scale the colours and the"
            " image, such as a frame around it. Write a FILE.py:function whose module does that."
        )
    mean, std = (0.0 - start / slope).tolist(), (1 / slope).tolist()
    if found == 1:
        mean, std = mean[::-1], std[::-1]
    height, width = made[0].shape[1:]
    norm, turned = ([_exact(v) for v in mean], [_exact(v) for v in std]), found == 1
    if _asked(processor, _filled(black, _SIDE // 2), name).shape != made[0].shape:  # it scales nothing
        return Preprocessing(*norm, turned, None, [])

    def show(image: Image.Image) -> Tensor:
        return (_asked(processor, image, name).double() - start[:, None, None]) / slope[:, None, None]

    shape = (channels, height, width)
    return Preprocessing(*norm, turned, shape, framing(show, shape))


def _filled(colour: tuple[int, ...], side: int) -> Image.Image:
    """A square of one colour, with as many channels as the colour has values."""
    return Image.new("L", (side, side), colour[0]) if len(colour) == 1 else Image.new("RGB", (side, side), colour)


def _asked(processor: Any, image: Image.Image, name: str) -> Tensor:
    """(C, H, W), what the processor makes of an image."""
    channels = len(image.getbands())
    try:
        made = processor(images=image, return_tensors="pt")["pixel_values"]
    except Exception as error:  # of as many kinds as there are processors
        raise UserError(
            f"The image processor of {name} ({type(processor).__name__}) cannot take an image of {channels}"
            f" channels: {first_line(error)}"
        ) from error
    if not isinstance(made, Tensor) or made.ndim != 4 or made.shape[:2] != (1, channels):
        raise UserError(
            f"The image processor of {name} ({type(processor).__name__}) makes no image (1, {channels}, H, W) of"
            f" one but {tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__}."
        )
    return made[0]


def _near(values: Tensor, wanted: Tensor, scale: Tensor) -> bool:
    return bool(((values - wanted).abs() <= _NEAR * scale.abs().clamp_min(1)).all())


def _exact(value: float) -> float:
    """The value as it was written: with the fewest digits that are as near as float32 is.

    >>> _exact(0.48500001), _exact(0.48145467), _exact(1 / 255)
    (0.485, 0.4814547, 0.003921569)
    """
    return next((short for n in range(3, 10) if abs((short := round(value, n)) - value) <= 2e-7 * abs(value)), value)
