"""Classifiers: architectures, the wrapper around any module, and the zoo. Importing this module imports no torch.

An architecture is a function from (classes, shape, **options) to an `nn.Module`; its name in `ARCHITECTURES` is what a
user types.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.base.lazy import exports

if TYPE_CHECKING:
    from robustlab.models.classifier import Classifier, check

__all__ = ["ARCHITECTURES", "Classifier", "check", "load_model"]

ARCHITECTURES: dict[str, str] = {
    "cnn": "robustlab.models.cnn:cnn",
    "resnet18": "robustlab.models.resnet:resnet18",
    "resnet20": "robustlab.models.resnet:resnet20",
    "vit": "robustlab.models.vit:vit",
}


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    shape: tuple[int, int, int] | None = None,
    download: bool = False,
    device: str = "cpu",
    run_code: bool = True,
) -> Classifier:
    """The classifier that a name means, in eval mode: images in [0, 1] (N, C, H, W) -> logits (N, K).

    name: a zoo name (`road-signs/cnn`), the path of a model card (`mine/model.toml`, see `ModelCard`)
    or of the folder of a training that holds one,
    `torchvision:resnet18`, an exported program (`FILE.pt2`), or `FILE.py:function`, a factory that returns a module.
    The last two run what is in the file: take them only from people whose code you would run. weights: a `.safetensors`
    or `.pth` file with the module's parameters, which can hold no code; for torchvision also `random`, or the name of
    weights of its own, in torch's cache or fetched there with `download`. mean, std: the normalisation, one value or
    one a channel. What is left out is what the name brings along. run_code: without it a name that leads to code, also
    through a card, is refused. Raises UserError.

    >>> model = load_model("road-signs/cnn")
    >>> model.shape, len(model.classes)
    ((3, 32, 32), 16)
    """
    from robustlab.models.loading import load

    return load(
        name,
        weights=weights,
        mean=mean,
        std=std,
        classes=classes,
        shape=shape,
        download=download,
        device=device,
        run_code=run_code,
    )


__getattr__ = exports(__name__, ["robustlab.models.classifier:Classifier", "robustlab.models.classifier:check"])
