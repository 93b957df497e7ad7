"""STRIP: what a classifier says of images laid over each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.draws import bits, keys
from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.defenses.filters.base import Filter, Scores, Seen
from robustlab.oracle import ask, undisturbed


@dataclass(frozen=True)
class Strip(Filter):
    """STRIP (Gao et al. 2019, arXiv:1902.06531): a triggered image keeps its class under other images laid over it.

    Each image is added to `overlays` clean images, drawn by seed and id, and cut to [0, 1]; the score is minus the mean
    entropy of the classifier's answers, in nats. Removed is what scores higher than all but a share `fpr` of the clean
    images treated alike. weight: of the clean image; the paper adds both whole, 1. Of the answers to clean images,
    those on themselves count too. UserError: fewer than 20 clean images, or of another shape than the images.

    >>> images, linear = torch.rand(30, 1, 2, 2), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> seen = Seen(torch.arange(30) % 2, classifier=linear, images=images, clean_images=images)
    >>> Strip(overlays=8)(seen).knows
    'clean images'
    """

    overlays: int = 64
    fpr: float = 0.01
    weight: float = 1.0
    seed: int = 0
    batch_size: int = 512
    needs: ClassVar[tuple[str, ...]] = ("classifier", "images", "clean_images")

    def __post_init__(self) -> None:
        for name, least in (("overlays", 1), ("seed", 0), ("batch_size", 1)):
            check_whole(name, getattr(self, name), least)
        if not 0 < self.fpr < 1 or not 0 < self.weight <= 1:
            raise UserError(f"fpr must be in (0, 1) and weight in (0, 1]; got {self.fpr} and {self.weight}.")

    @property
    def knows(self) -> str:
        return "clean images"

    def filter(self, seen: Seen) -> Scores:
        assert seen.images is not None and seen.clean_images is not None
        clean = seen.clean_images
        if len(clean) < 20 or clean.shape[1:] != seen.images.shape[1:]:
            raise UserError(
                f"STRIP needs 20 clean images of shape {tuple(seen.images.shape[1:])}; got {tuple(clean.shape)}."
            )
        with torch.no_grad(), undisturbed(seen.classifier):
            scores = -self._entropies(seen, seen.images, seen.ids, "images")
            known = -self._entropies(seen, clean, torch.arange(len(clean)), "clean")
        limit = float(known.quantile(1 - self.fpr))
        return self.result(seen, scores, scores > limit, limit=limit, clean_images=len(clean))

    def _entropies(self, seen: Seen, images: Tensor, ids: Tensor, what: str) -> Tensor:
        assert seen.classifier is not None and seen.clean_images is not None
        clean, parts = seen.clean_images, []
        size = max(1, self.batch_size // self.overlays)
        for x, own in zip(images.split(size), ids.split(size), strict=True):
            drawn = bits(keys(self.seed, own, "strip", what), self.overlays).remainder(len(clean))
            mixed = (x[:, None] + self.weight * clean[drawn]).clamp(0, 1)
            logp = F.log_softmax(ask(seen.classifier, mixed.flatten(0, 1)).float(), 1)
            parts.append(-(logp.exp() * logp).sum(1).view(len(x), -1).mean(1))
        return torch.cat(parts)
