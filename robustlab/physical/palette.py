"""Colours that a printer can make, and textures that are mixtures over them."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.base.draws import keys, uniform

# sRGB in [0, 1]: what an ordinary printer makes of black, white, grey, red, green, blue, yellow, orange on matt paper
PRINTABLE = torch.tensor(
    [
        [0.09, 0.09, 0.10],
        [0.93, 0.93, 0.91],
        [0.52, 0.52, 0.52],
        [0.76, 0.14, 0.16],
        [0.13, 0.48, 0.26],
        [0.12, 0.28, 0.60],
        [0.92, 0.80, 0.15],
        [0.89, 0.48, 0.13],
    ]
)


def mixed(logits: Tensor, palette: Tensor, sharpness: float) -> Tensor:
    """(3, t, t) colours: the softmax of logits (K, t, t) over the palette (K, 3), sharper as `sharpness` grows."""
    return torch.einsum("khw,kc->chw", (sharpness * logits).softmax(0), palette)


def hard(logits: Tensor, palette: Tensor) -> Tensor:
    """(3, t, t): each texel the one colour of the largest logit."""
    return palette[logits.argmax(0)].permute(2, 0, 1).contiguous()


def control_textures(texels: int, blocks: int, seed: int, purpose: str) -> dict[str, Tensor]:
    """(3, t, t) each, that nobody fitted: grey, random printable colours, random black and white, in large blocks."""
    place = torch.arange(texels) * blocks // texels
    large = uniform(keys(seed, torch.arange(1), purpose), (2, blocks, blocks))[0][:, place[:, None], place]
    return {
        "grey": torch.full((3, texels, texels), 0.5),
        "random": PRINTABLE[(large[0] * len(PRINTABLE)).long()].permute(2, 0, 1).contiguous(),
        "black and white": torch.where(large[1] < 0.5, PRINTABLE[0, :, None, None], PRINTABLE[1, :, None, None]),
    }


def from_palette(texture: Tensor, mask: Tensor, palette: Tensor) -> float:
    """The mean distance of the texels in the mask to the nearest printable colour, 0 to about 1.7."""
    colours = texture.permute(1, 2, 0)[mask]
    return (
        float(torch.cdist(colours, palette, compute_mode="donot_use_mm_for_euclid_dist").amin(1).mean())
        if len(colours)
        else 0.0
    )


def non_printability(texture: Tensor, weight: Tensor, palette: Tensor) -> Tensor:
    """The mean over texels of the product of distances to all colours (Sharif et al. 2016, section 5.2.3), in logs.

    The logarithm of the geometric mean, since the gradient of a plain product of eight small numbers vanishes. weight:
    (t, t).
    """
    difference = (texture[None] - palette[:, :, None, None]).square().sum(1).add(1e-4).log() / 2
    return (difference.mean(0) * weight).sum() / weight.sum()


def total_variation(texture: Tensor, weight: Tensor) -> Tensor:
    """The mean absolute difference of neighbours, (3, t, t), where both are in the mask (t, t)."""
    down = (texture[:, 1:] - texture[:, :-1]).abs().sum(0) * weight[1:] * weight[:-1]
    right = (texture[:, :, 1:] - texture[:, :, :-1]).abs().sum(0) * weight[:, 1:] * weight[:, :-1]
    return (down.sum() + right.sum()) / weight.sum()
