"""Classifiers: architectures, the wrapper around any module, and the zoo. Importing this module imports no torch.

An architecture is a function from (classes, shape, **options) to an `nn.Module`; its name in `ARCHITECTURES` is what a
user types.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustlab.models.classifier import Classifier, check

__all__ = ["ARCHITECTURES", "Classifier", "check", "load_model"]

ARCHITECTURES: dict[str, str] = {
    "cnn": "robustlab.models.cnn:cnn",
    "resnet20": "robustlab.models.resnet:resnet20",
}


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    shape: tuple[int, int, int] | None = None,
    device: str = "cpu",
) -> Classifier:
    """The classifier that a name means, in eval mode: images in [0, 1] (N, C, H, W) -> logits (N, K).

    name: a zoo name (`road-signs/cnn`), the path of a model card (`runs/mine/model.toml`), or `FILE.py:function`, a
    factory that returns a module. weights: a `.safetensors` or `.pth` file with the module's parameters. mean, std: the
    normalisation, one value or one a channel; a card's own is used where they are left out. Raises UserError.

    >>> model = load_model("road-signs/cnn")
    >>> model.shape, len(model.classes)
    ((3, 32, 32), 16)
    """
    from robustlab.models.loading import load

    return load(name, weights=weights, mean=mean, std=std, classes=classes, shape=shape, device=device)


def __getattr__(name: str) -> Any:
    if name in ("Classifier", "check"):
        return getattr(import_module("robustlab.models.classifier"), name)
    raise AttributeError(f"module 'robustlab.models' has no attribute '{name}'")
