"""Heatmaps from gradients at the image: saliency and integrated gradients, computed by captum (imported late)."""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.explain.heatmaps import Heatmaps, of_pixels
from robustlab.oracle import ask


def saliency(model: nn.Module, images: Tensor, classes: Tensor, *, batch_size: int = 64) -> Heatmaps:
    """Which pixels change the class's logit most: the largest absolute gradient over the channels of each pixel.

    Simonyan et al. (2013), "Deep inside convolutional networks", https://arxiv.org/abs/1312.6034. Values are logits
    per unit of the image, at least 0. Arguments as `robustlab.explain.grad_cam`. UserError: the model has no gradient.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    >>> saliency(net, torch.rand(2, 3, 2, 2), torch.tensor([0, 1])).maps.shape
    torch.Size([2, 2, 2])
    """
    from captum.attr import Saliency

    found = Saliency(partial(ask, model))

    def attribute(x: Tensor, asked: Tensor) -> Tensor:
        return cast(Tensor, found.attribute(x, asked, abs=True)).amax(1)

    return of_pixels(model, images, classes, batch_size, attribute)


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    batch_size: int = 64,
    steps: int = 32,
    baseline: float = 0.0,
    signed: bool = False,
) -> Heatmaps:
    """How much of the class's logit each pixel brings, from a plain image to this one: integrated gradients.

    Sundararajan et al. (2017), https://arxiv.org/abs/1703.01365, by the Gauss-Legendre rule with so many steps. The
    channels of a pixel are summed; what speaks against the class is cut off at zero unless `signed`. A signed map sums
    to the logit of the image less that of the plain image, up to the error of the rule. A pixel that has the
    baseline's value gets zero whatever it means: on black ground, try another baseline.

    baseline: the value in [0, 1] of all pixels of the plain image. At most `batch_size` images go through the model at
    a time. Arguments and errors as `saliency`.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    >>> found = integrated_gradients(net, torch.ones(1, 3, 2, 2), torch.tensor([1]), signed=True)
    >>> bool(torch.isclose(found.maps.sum(), net[1].weight[1].sum(), atol=1e-5))
    True
    """
    from captum.attr import IntegratedGradients

    check_whole("steps", steps, 1)
    if not 0 <= baseline <= 1:
        raise UserError(f"baseline is a value of pixels in [0, 1]; got {baseline}.")
    found = IntegratedGradients(partial(ask, model))

    def attribute(x: Tensor, asked: Tensor) -> Tensor:
        size = max(batch_size, len(x))  # captum asks for one step of all images at least
        each = found.attribute(x, baseline, asked, n_steps=steps, internal_batch_size=size)
        total = cast(Tensor, each).sum(1)
        return total if signed else total.clamp_min(0)

    return of_pixels(model, images, classes, batch_size, attribute)
