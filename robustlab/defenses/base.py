"""What a defense may do: take training images out, change a batch and its loss, put something before the classifier."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.typed import check_amounts
from robustlab.data import Data
from robustlab.defenses.batch import Batch
from robustlab.models.classifier import Classifier
from robustlab.threat.model import ThreatModel


@dataclass(frozen=True, eq=False)
class Prepared:
    """Training data as a defense hands them on. about: what it did to them, and why; JSON, kept as prepared.json."""

    data: Data
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def without(cls, data: Data, scores: Tensor, threshold: float, why: str) -> Prepared:
        """The images whose score is at most `threshold`. scores: (N,), one an image. why: what the score is.

        >>> from robustlab.threat.model import ThreatModel
        >>> import torch
        >>> ids = torch.arange(4)
        >>> data = Data("four", "train", torch.rand(4, 1, 2, 2), ids % 2, ids, ("a", "b"), "hash", ThreatModel())
        >>> kept = Prepared.without(data, scores=torch.tensor([0.0, 0.9, 0.1, 0.2]), threshold=0.5, why="loss")
        >>> kept.data.ids.tolist(), kept.about["removed"], kept.data.notes[0][:41]
        ([0, 2, 3], [1], 'The defense took out 1 of 4 training imag')
        """
        keep = scores <= threshold  # a score that is no number is taken out
        removed = data.ids[~keep].tolist()
        note = f"The defense took out {len(removed)} of {len(data)} training images ({why} above {threshold:.4g})."
        about = {"why": why, "threshold": threshold, "removed": removed}
        about |= {"ids": data.ids.tolist(), "scores": [float(score) for score in scores]}
        return cls(replace(data.take(keep), notes=(*data.notes, note)), about)


@dataclass(frozen=True)
class Defense:
    """What a recipe's `[defense]` table makes; the fields of a subclass are its parameters. This one does nothing.

    A field `eps` is a budget: that of the data set unless somebody says another; a field `norm` says in which norm
    (without one: linf). Only a defense with a budget is for robustness: the kept epoch is then the best one under PGD,
    and else the best one on clean images (with `keeps_last` the last one). All numbers are finite and at least 0.
    """

    keeps_last: ClassVar[bool] = False
    positive: ClassVar[tuple[str, ...]] = ()  # fields that are larger than 0

    def __post_init__(self) -> None:
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        check_amounts(type(self).__name__, given, self.positive)

    @property
    def threat(self) -> ThreatModel | None:
        """What to defend against, where the defense has a budget."""
        eps = getattr(self, "eps", None)
        return None if eps is None else ThreatModel(getattr(self, "norm", "linf"), eps)

    def record(self, data: Data) -> dict[str, Any]:
        """What decides a training beside the fields, for its configuration; a UserError where it does not fit."""
        return {}

    def prepare(self, data: Data) -> Prepared:
        """The training images to learn from. The same data must give the same ones: a resumed training asks again."""
        return Prepared(data)

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        """The images (B, C, H, W) to learn from in place of `batch.x`, without a gradient; these themselves by default.

        The model is in training mode and is left as it was found: `oracle.undisturbed` sees to it.
        """
        return batch.x

    def loss(self, model: nn.Module, batch: Batch, near: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) on what is learned from, and the loss, a mean over the batch. near: what `perturb` gave."""
        logits = model(near)
        return logits, batch.cross_entropy(logits)

    def wrap(self, classifier: Classifier) -> nn.Module:
        """A module with the classifier inside, from images in [0, 1] to logits; it is trained, kept and attacked so.

        Everything in it but the classifier follows from the fields: only the classifier's weights are stored. PGD
        measures every epoch, so it must let a gradient through; what rounds may hand it on as if it did not.
        """
        return classifier


def defended(classifier: Classifier, defense: Defense) -> Classifier:
    """What `wrap` makes of a classifier, as a classifier for the same data; UserError where it adds parameters.

    >>> model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), shape=(3, 2, 2))
    >>> defended(model, Defense()) is model
    True
    """
    module = defense.wrap(classifier)
    if module is classifier:
        return classifier
    if len(list(module.parameters())) > len(list(classifier.parameters())):
        raise UserError(f"{type(defense).__name__} adds parameters to the classifier, which a model card cannot hold.")
    return Classifier(module).described_as(classifier).train(classifier.training)
