"""Guided Grad-CAM, which comes with a warning: it can show edges, whatever the model has learned."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.explain.cams import grad_cam
from robustlab.explain.heatmaps import LayerHeatmaps, of_pixels
from robustlab.explain.layers import Layer
from robustlab.oracle import ask

WARNING = (
    "Guided Grad-CAM can show the edges of the image rather than what the model has learned: Adebayo et al. (2018)"
    " found maps that hardly change when the model's upper layers become random. Use grad-cam or occlusion to argue"
    " about a model."
)


def guided_grad_cam(
    model: nn.Module, images: Tensor, classes: Tensor, *, layer: str | Layer | None = None, batch_size: int = 64
) -> LayerHeatmaps:
    """Grad-CAM times guided backpropagation (Selvaraju et al. 2017; Springenberg et al. 2015, arXiv:1412.6806).

    It failed the sanity checks of Adebayo et al. (2018), https://arxiv.org/abs/1810.03292, on a large network, and
    warns of that; on the small networks of the zoo it passes `sanity.randomisation`.
    Guided backpropagation is a gradient that is cut off at zero at each ReLU; of a pixel's channels the largest
    absolute value counts. Values are at least 0. Arguments and errors as `robustlab.explain.grad_cam`; also a UserError
    where the model has no ReLU modules, for then nothing would be guided.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> with warnings.catch_warnings(action="ignore"):
    ...     guided_grad_cam(net, torch.rand(2, 3, 8, 8), torch.tensor([0, 1])).maps.shape
    torch.Size([2, 8, 8])
    """
    warnings.warn(WARNING, stacklevel=2)
    cam = grad_cam(model, images, classes, layer=layer, batch_size=batch_size)
    found = of_pixels(model, images, classes, batch_size, lambda x, asked: _guided(model, x, asked))
    return LayerHeatmaps(cam.maps * found.maps, cam.layer)


def _guided(model: nn.Module, x: Tensor, asked: Tensor) -> Tensor:
    with _cut_gradients(model):
        logits = ask(model, x)
        (gradient,) = torch.autograd.grad(logits.gather(1, asked[:, None]).sum(), x)
    return gradient.abs().amax(1)


@contextmanager
def _cut_gradients(model: nn.Module) -> Iterator[None]:
    """What comes back to the output of a ReLU is cut off at zero, as long as the context is open."""
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    if not relus:
        raise UserError("Guided Grad-CAM needs modules of the type torch.nn.ReLU, and the model has none.")

    def cut(module: nn.Module, given: Any, out: Tensor) -> None:
        out.register_hook(lambda gradient: gradient.clamp_min(0))

    with ExitStack() as hooks:
        for module in relus:
            hooks.enter_context(module.register_forward_hook(cut))
        yield
