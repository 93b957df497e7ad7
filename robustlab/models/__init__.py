"""Classifiers: architectures, the wrapper around any module, and the zoo. Importing this module imports no torch.

An architecture makes an `nn.Module` of (classes, shape, **options); its name in `ARCHITECTURES` is what a user types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustlab.base.lazy import exports

if TYPE_CHECKING:
    from robustlab.models.classifier import Classifier, check
    from robustlab.models.loading import load_model
    from robustlab.models.single_output import two_classes

__all__ = ["ARCHITECTURES", "Classifier", "check", "load_model", "two_classes"]

ARCHITECTURES: dict[str, str] = {
    "cnn": "robustlab.models.cnn:cnn",
    "resnet18": "robustlab.models.resnet:resnet18",
    "resnet20": "robustlab.models.resnet:resnet20",
    "vit": "robustlab.models.vit:ViT",
}


__getattr__ = exports(
    __name__,
    [
        "robustlab.models.classifier:Classifier",
        "robustlab.models.classifier:check",
        "robustlab.models.loading:load_model",
        "robustlab.models.single_output:two_classes",
    ],
)
