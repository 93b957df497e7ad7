"""Occlusion: what the class loses where a grey square covers the image. Computed by captum (imported late)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.explain.heatmaps import Heatmaps, of_pixels
from robustlab.oracle import ask


def occlusion(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    batch_size: int = 64,
    window: int | None = None,
    stride: int | None = None,
    fill: float = 0.5,
    signed: bool = False,
) -> Heatmaps:
    """What the class's probability loses where a square covers the image, as a map: occlusion.

    Zeiler and Fergus (2014), "Visualizing and understanding convolutional networks", https://arxiv.org/abs/1311.2901.
    The square goes over the image from its upper left corner; at the far borders it is cut off. A pixel's value is the
    mean loss under all squares that cover it, between 0 and 1: where the probability rises it is 0, unless `signed`
    (then between -1 and 1). It needs no gradient. A model that is sure of its answer hardly loses any probability, and
    a square on an image that has no such colour is an odd sight of its own: the map shows both.

    window: side of the square in pixels (default: a quarter of the image's shorter side). stride: from one place to
    the next (default: half the window). fill: the square's value in [0, 1]; the paper's is grey. Arguments as
    `robustlab.explain.grad_cam`.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    >>> occlusion(net, torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), window=2).maps.shape
    torch.Size([2, 4, 4])
    """
    from captum.attr import Occlusion

    shorter = min(images.shape[2:]) if images.ndim == 4 else 1
    window = max(1, shorter // 4) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    check_whole("window", window, 1)
    check_whole("stride", stride, 1)
    if window > shorter or stride > window:
        raise UserError(
            f"window is at most the image's shorter side ({shorter}), and stride at most the window, so that every"
            f" pixel is covered; got window {window}, stride {stride}."
        )
    if not 0 <= fill <= 1:
        raise UserError(f"fill is a value of pixels in [0, 1]; got {fill}.")
    found = Occlusion(lambda x: ask(model, x).float().softmax(1))

    def attribute(x: Tensor, asked: Tensor) -> Tensor:
        side = (x.shape[1], window, window)
        step = (x.shape[1], stride, stride)
        with torch.no_grad():
            each = cast(
                Tensor,
                found.attribute(
                    x.detach(),
                    side,
                    step,
                    fill,
                    asked,
                    perturbations_per_eval=max(1, batch_size // len(x)),
                ),
            )
        loss = each[:, 0]  # all channels are covered together
        return loss if signed else loss.clamp_min(0)

    return of_pixels(model, images, classes, batch_size, attribute, gradients=False)
