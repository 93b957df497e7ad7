"""The methods by name. Reading this file imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.lazy import locate

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustlab.explain.heatmaps import Heatmaps


@dataclass(frozen=True)
class Method:
    """A way to draw heatmaps.

    path: "module:function". says: what a map shows, in a line of the page. layer: is it drawn from a layer? of_class:
    is a map about a class? signed: can it keep what speaks against the class? passes: forward and backward passes an
    image, roughly.
    """

    path: str
    says: str
    layer: bool = False
    of_class: bool = True
    signed: bool = False
    passes: int = 2


METHODS: dict[str, Method] = {
    "grad-cam": Method(
        "robustlab.explain.cams:grad_cam", "what speaks for the class in the layer", layer=True, signed=True
    ),
    "activations": Method(
        "robustlab.explain.activations:activation_map",
        "what the layer responds to, whatever the class",
        layer=True,
        of_class=False,
    ),
    "saliency": Method("robustlab.explain.gradients:saliency", "the pixels that change the class's logit most"),
    "integrated-gradients": Method(
        "robustlab.explain.gradients:integrated_gradients",
        "what each pixel brings to the class's logit, from black to this image",
        signed=True,
        passes=64,
    ),
    "occlusion": Method(
        "robustlab.explain.occluding:occlusion",
        "what the class's probability loses under a grey square",
        signed=True,
        passes=49,
    ),
    "guided-grad-cam": Method(
        "robustlab.explain.guided:guided_grad_cam", "Grad-CAM times guided backpropagation", layer=True, passes=4
    ),
}


def method(name: str) -> Method:
    """A method by its name; a `UserError` for one that is not there.

    >>> method("occlusion").layer
    False
    """
    if name not in METHODS:
        raise UserError(f"Unknown method {name!r}; known are {', '.join(METHODS)}.{did_you_mean(name, METHODS)}")
    return METHODS[name]


def draw(name: str, model: nn.Module, images: Tensor, classes: Tensor, **more: Any) -> Heatmaps:
    """Heatmaps by the name of the method.

    more: `batch_size` and the method's own; `layer` and `signed` are left out where the method has none.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> draw("saliency", net, torch.rand(1, 3, 2, 2), torch.tensor([1]), layer=None).maps.shape
    torch.Size([1, 2, 2])
    """
    chosen = method(name)
    options: Mapping[str, Any] = {
        key: value
        for key, value in more.items()
        if (key != "layer" or chosen.layer) and (key != "signed" or chosen.signed)
    }
    asked = (classes,) if chosen.of_class else ()
    return cast("Heatmaps", locate(chosen.path)(model, images, *asked, **options))
