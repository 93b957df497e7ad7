"""Attacks of foolbox's under the contract of ours: DeepFool, Carlini and Wagner's l2, EAD and Brendel-Bethge.

They run as foolbox has them (Rauber et al. 2020, doi:10.21105/joss.02607), one batch at a time and on the model itself,
without a search copy. Around them is what the other attacks promise: samples that are wrong from the start are left
out, so that foolbox's guess of the label, the answer on the clean image, is right; what is found is measured and judged
here; a sample for which the model gives NaN does not end the search of the others. Every sample of a batch is charged
its share of what the batch was shown, rounded up: forwards and backwards depend on the batch size, the answers do not,
up to rounding.
"""

from __future__ import annotations

import math
import os
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robustlab.attacks.base import Attack, Keep, Outcome
from robustlab.base.errors import UserError
from robustlab.oracle import NO_GRADIENT, NoGradientError, Oracle, most, raised_by_the_model, undisturbed
from robustlab.threat.geometry import column, distance
from robustlab.threat.model import allowed


def foolbox() -> Any:
    """foolbox, imported late: it takes a second."""
    # foolbox imports GitPython, which raises where there is no git
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*scipy.ndimage", DeprecationWarning)
            import foolbox as module
    except ImportError as error:
        raise UserError(
            f"This attack is foolbox's, which cannot be imported here: {error}. Install it again (pip install -U"
            " foolbox), or use fmn."
        ) from error
    return module


class NotFinite(Exception):
    """The model gave NaN or infinite values for these rows, (B,) bool."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows


class Parts(Exception):
    """The search fails for the batch, because of some samples: smaller ones are to be tried, down to one sample."""


class Shown(nn.Module):
    """The oracle as foolbox wants a model; counts the images that went through it, forwards and backwards.

    samples: in the batch. before: (forwards, backwards) of each that were made elsewhere.
    """

    def __init__(self, oracle: Oracle, eot: int, samples: int) -> None:
        super().__init__()
        self.oracle, self.eot, self.samples = oracle, eot, samples
        self.before: tuple[int | Tensor, int | Tensor] = 0, 0
        self.images = [0, 0]
        self.eval()

    @property
    def charged(self) -> list[int | Tensor]:
        """Forwards and backwards of each sample."""
        return [before + -(-n // self.samples) for before, n in zip(self.before, self.images, strict=True)]

    def forward(self, images: Tensor) -> Tensor:
        if not bool(torch.isfinite(images).all()):  # the attack made no image
            raise Parts
        self.images[0] += self.eot * len(images)
        logits = torch.stack([self.oracle.differentiable(images) for _ in range(self.eot)]).mean(0)
        self._check(logits)
        if images.requires_grad and torch.is_grad_enabled():
            if not logits.requires_grad:
                raise NoGradientError(NO_GRADIENT)
            images.register_hook(self._gradient)
        return logits

    def _gradient(self, gradient: Tensor) -> None:
        self.images[1] += self.eot * len(gradient)
        self.oracle.backwards += self.eot * len(gradient)
        self._check(gradient)  # Brendel-Bethge's solver would not come back from NaN

    def _check(self, values: Tensor) -> None:
        finite = torch.isfinite(values).flatten(1).all(1)
        if not bool(finite.all()):
            raise NotFinite(~finite)


@dataclass(frozen=True)
class FoolboxAttack(Attack):
    """An attack of foolbox's on the distance. eps: a success is a point within it; the search is the same without."""

    keep: ClassVar[Keep] = "smallest"
    searches = False

    eps: float = math.inf

    @abstractmethod
    def made(self, batch: int) -> Any:
        """foolbox's attack with these parameters, for a batch of so many samples."""

    def attempt(
        self, oracle: Oracle, x: Tensor, y: Tensor, ids: Tensor, targets: Tensor | None, crafting: bool, **how: Any
    ) -> Outcome:
        if oracle.query_budget is not None:
            raise UserError(f"{type(self).__name__} cannot keep to a query budget. Use fmn, or set none.")
        target = torch.full_like(y, -1) if targets is None else targets
        every = crafting and self.keep != "smallest"  # what fools the surrogate already need not fool the target
        with torch.inference_mode(False), torch.enable_grad(), undisturbed(oracle.model):
            parts = zip(*(each.split(how["batch_size"]) for each in (x, y, target)), strict=True)
            done = [self._batch(oracle, every, *part) for part in parts if len(part[0])]
        if not done:
            none = torch.zeros_like(y)
            return Outcome(x, none.bool(), none, target, none, none, none.bool())
        images, found, forwards, backwards, invalid, unsearched = (torch.cat(each) for each in zip(*done, strict=True))
        inside = distance(images - x, self.norm) <= allowed(self.eps)
        success = found & inside
        # a point that is merely far away is no fault of an attack on the distance
        refused = 0 if self.keep == "smallest" else int((found & ~inside).sum())
        rank = torch.where(success, 0, -1)
        return Outcome(
            images, success, rank, target, forwards, backwards, invalid, refused, int((unsearched & ~found).sum())
        )

    def _batch(self, oracle: Oracle, every: bool, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Images, found (wherever they lie), forwards, backwards, invalid and unsearched of a batch.

        every: also what is wrong.
        """
        images = x.clone()
        invalid, unsearched = (torch.zeros_like(y, dtype=torch.bool) for _ in range(2))
        forwards, backwards = torch.zeros_like(y), torch.zeros_like(y)

        def adversarial() -> Tensor:
            logits = oracle.looks(images)
            forwards.add_(oracle.evaluations)
            invalid.logical_or_(~torch.isfinite(logits).all(2).all(0))
            predicted = logits.argmax(2)
            return most(self.succeeds(predicted, y, target)) & ~invalid

        wrong = adversarial()
        todo = [(~invalid if every else ~wrong & ~invalid).nonzero()[:, 0]]
        while todo:
            if not len(rows := todo.pop()):
                continue
            shown, bad = Shown(oracle, self.eot, len(rows)), torch.zeros_like(rows, dtype=torch.bool)
            try:
                with raised_by_the_model():  # the search goes backwards through it
                    images[rows] = self.search(shown, x[rows], y[rows], target[rows])
            except Parts:
                unsearched[rows] = len(rows) == 1
                todo.extend(rows.chunk(2) if len(rows) > 1 else [])
            except NotFinite as error:
                if len(error.rows) == len(rows):  # once more, without them
                    bad = error.rows
                    todo.append(rows[~bad])
                elif len(rows) > 1:  # it was shown other images than those of the batch
                    todo.extend(rows.chunk(2))
                else:
                    bad = ~bad
            for charge, passes in zip((forwards, backwards), shown.charged, strict=True):
                charge[rows] += passes
            invalid[rows[bad]] = True
        found = adversarial()
        if self.keep == "smallest":
            images[~found] = x[~found]
        return images, found, forwards, backwards, invalid, unsearched

    def search(self, shown: Shown, x: Tensor, y: Tensor, target: Tensor, **more: Any) -> Tensor:
        """The points that foolbox finds; where it finds nothing, any. All samples are classified right."""
        points: Tensor = self.made(len(x)).run(*self.asked(shown, x, y, target), **more)
        return or_clean(points.detach().clamp(0, 1), x)

    def asked(self, shown: Shown, x: Tensor, y: Tensor, target: Tensor) -> tuple[Any, Tensor, Any]:
        """What foolbox's attacks are called with: model, images and criterion."""
        criteria = foolbox().criteria
        wanted = criteria.TargetedMisclassification(target) if self.targeted else criteria.Misclassification(y)
        return foolbox().PyTorchModel(shown, (0, 1), device=x.device), x, wanted


def or_clean(points: Tensor, x: Tensor) -> Tensor:
    """The clean image for a black one, which foolbox's C&W and EAD return where they find nothing.

    A black image may be adversarial by itself.
    """
    black = (points == 0).flatten(1).all(1)
    return torch.where(column(black, x), x, points)
