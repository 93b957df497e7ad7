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

__all__ = [
    "ARCHITECTURES",
    "BUILDERS",
    "LIBRARIES",
    "Classifier",
    "check",
    "library_of",
    "load_model",
    "two_classes",
]

ARCHITECTURES: dict[str, str] = {
    "cnn": "robustlab.models.cnn:cnn",
    "resnet18": "robustlab.models.resnet:resnet18",
    "resnet20": "robustlab.models.resnet:resnet20",
    "vit": "robustlab.models.vit:ViT",
}

# `torchvision:NAME` and its like: what loads a classifier of another package
LIBRARIES: dict[str, str] = {
    "torchvision": "robustlab.models.torchvision_models:load_torchvision",
    "timm": "robustlab.models.timm_models:load_timm",
    "hf": "robustlab.models.transformers_models:load_transformers",
}
# of those that can be trained from random weights: what builds a fresh module
BUILDERS: dict[str, str] = {
    "torchvision": "robustlab.models.torchvision_models:build_torchvision",
    "timm": "robustlab.models.timm_models:build_timm",
}


def library_of(name: str) -> str:
    """The package that a name of a model belongs to, a key of `LIBRARIES`; empty for all other names.

    >>> library_of("timm:resnet18"), library_of("road-signs/cnn")
    ('timm', '')
    """
    library, colon, rest = name.partition(":")
    return library if colon and rest and library in LIBRARIES else ""


__getattr__ = exports(
    __name__,
    [
        "robustlab.models.classifier:Classifier",
        "robustlab.models.classifier:check",
        "robustlab.models.loading:load_model",
        "robustlab.models.single_output:two_classes",
    ],
)
