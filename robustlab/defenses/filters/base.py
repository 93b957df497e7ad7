"""What a filter of training images is given, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.words import counted


@dataclass(frozen=True, eq=False)
class Seen:
    """What a filter may look at; a filter that needs a field which is not there says so.

    labels: (n,) int64, as they stand in the training set. representations: (n, d) float, one a sample. ids: (n,) int64,
    by which ties are broken and draws are keyed; left out: the positions. losses: (epochs, n) float, of each sample
    after each epoch. classifier, images (n, C, H, W), clean_images (m, C, H, W): for filters that ask the classifier.
    poisoned: (n,) bool, which only the control `perfect` reads.

    >>> Seen(torch.tensor([0, 1]), representations=torch.zeros(2, 3)).ids.tolist()
    [0, 1]
    """

    labels: Tensor
    representations: Tensor | None = None
    ids: Tensor = field(default=None)  # type: ignore[assignment]
    losses: Tensor | None = None
    classifier: Callable[[Tensor], Tensor] | None = None
    images: Tensor | None = None
    clean_images: Tensor | None = None
    poisoned: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.labels.ndim != 1 or not n or self.labels.is_floating_point():
            raise UserError(f"labels must be whole numbers of shape (n,), got {tuple(self.labels.shape)}.")
        if self.ids is None:
            object.__setattr__(self, "ids", torch.arange(n))
        for name in ("representations", "ids", "images", "poisoned"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise UserError(f"There are {n} labels and {len(value)} {name}: one a sample is needed.")
        x = self.representations
        if x is not None and (x.ndim != 2 or not x.is_floating_point()):
            raise UserError(f"representations must be floats of shape (n, d), got {x.dtype} {tuple(x.shape)}.")
        if x is not None and not all(bool(torch.isfinite(part).all()) for part in x.split(4096)):
            raise UserError("representations must be finite numbers; some are NaN or infinite. Look at the model.")
        if self.losses is not None and (self.losses.ndim != 2 or self.losses.shape[1] != n):
            raise UserError(f"losses must have the shape (epochs, {n}), got {tuple(self.losses.shape)}.")

    def classes(self, least: int = 1) -> Iterator[tuple[int, Tensor]]:
        """Each class and the positions of its samples; a UserError where one has fewer than `least`."""
        for label in self.labels.unique().tolist():
            where = (self.labels == label).nonzero()[:, 0]
            if len(where) < least:
                raise UserError(
                    f"Class {label} has {counted(len(where))}, and the filter needs {least} of each class. Give more"
                    " images, or leave the class out."
                )
            yield label, where


@dataclass(frozen=True, eq=False)
class Scores:
    """What a filter found.

    scores: (n,) float, high is suspicious; NaN where the filter did not look. thresholds: of each class, what a removed
    sample reaches; infinite where nothing is removed. removed: (n,) bool. knows: what the defender had to know. about:
    JSON, what else the filter found.
    """

    scores: Tensor
    thresholds: dict[int, float]
    removed: Tensor
    knows: str
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Filter(ABC):
    """Called with a `Seen`, returns `Scores`; the fields of a subclass are its parameters. needs: fields of `Seen`."""

    needs: ClassVar[tuple[str, ...]] = ("representations",)

    @property
    def knows(self) -> str:
        """What the defender has to know, as a phrase."""
        return "nothing"

    def __call__(self, seen: Seen) -> Scores:
        missing = [name for name in self.needs if getattr(seen, name) is None]
        if missing:
            raise UserError(f"{type(self).__name__} needs {', '.join(missing)}: Seen(labels, {missing[0]}=...).")
        return self.filter(seen)

    @abstractmethod
    def filter(self, seen: Seen) -> Scores:
        """The work; what `needs` names is there."""

    def result(self, seen: Seen, scores: Tensor, removed: Tensor, **about: Any) -> Scores:
        """The scores with the thresholds that follow; UserError where a class would lose all its samples."""
        scores, removed = scores.cpu(), removed.cpu()  # of filters that ask a classifier on a GPU
        thresholds = {}
        for label, where in seen.classes():
            gone = removed[where]
            if bool(gone.all()):
                raise UserError(
                    f"{type(self).__name__} would remove all {len(where)} images of class {label}. Let it remove fewer:"
                    " a smaller eps, or a higher threshold."
                )
            thresholds[label] = float(scores[where][gone].min()) if bool(gone.any()) else float("inf")
        return Scores(scores, thresholds, removed, self.knows, about)


def check_eps(eps: float) -> None:
    """A UserError unless eps is a share of a class of which 1.5 times leaves something.

    >>> check_eps(0.05)
    """
    if not 0 < eps < 2 / 3:
        raise UserError(
            f"eps is the share of poisons in a class, above 0 and below 2/3 (1.5 eps are removed); got {eps}."
        )


def top(scores: Tensor, count: int, ids: Tensor) -> Tensor:
    """(n,) bool: the `count` highest scores; of equal ones those with the smaller id.

    >>> top(torch.tensor([1.0, 3.0, 3.0]), 1, torch.tensor([5, 9, 7])).tolist()
    [False, False, True]
    """
    by_id = ids.argsort()
    order = by_id[scores[by_id].argsort(descending=True, stable=True)]
    chosen = torch.zeros(len(scores), dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen
