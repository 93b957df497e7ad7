"""What every attack is: a frozen dataclass of its parameters, called with (classifier, images, labels)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robustlab.attacks.call import as_given, check_call
from robustlab.attacks.searching import Search, searched
from robustlab.base.draws import pixel_ids
from robustlab.base.errors import RunError, UserError, did_you_mean
from robustlab.base.given import images_of, labels_of, of_other_type
from robustlab.base.memory import of_the_machine
from robustlab.oracle import Access, Oracle, most, undisturbed
from robustlab.threat.geometry import distance
from robustlab.threat.model import BUDGET_NORMS, Norm, allowed, check_eps, parse_eps

INVALID = (
    "The model returned NaN or infinite values or gradients under attack, so its robustness cannot be judged."
    " Check the model on extreme inputs (all 0, all 1); float16 weights overflow easily."
)
MOST = 1_000_000_000  # upper limit of every number that an attack counts
Model = Callable[[Tensor], Tensor]  # images in [0, 1] (N, C, H, W) -> logits (N, K); usually an nn.Module
Keep = Literal["adversarial", "smallest", "last"]  # which point of a sample the driver keeps


@dataclass(frozen=True)
class Allocation:
    """How an attack shared its tries. aside: samples that did not take every try, being far from a success.

    controls: samples that were ranked as these, and took every try. controls_succeeded: of them; where there were any,
    `again` samples that had been set aside were tried in full, too.
    """

    aside: int
    controls: int
    controls_succeeded: int
    again: int


@dataclass(eq=False)
class Outcome:
    """What an attack did to each of n samples.

    images: the adversarial image, or where the attack failed its final point. success: as judged by the target.
    rank: the try that succeeded, -1 for none. forwards, backwards: what the sample cost.
    invalid: the target returned NaN or infinite values for it; neither a success nor a failure.
    refused: successes that do not count: the target did not confirm what the search copy said, or the point of a
    wrapped attack lies outside the budget. Summed over samples.
    unsearched: samples on which another library's search could not start or go on; they count as failures.
    allocation: of an attack that does not try all samples in full.
    """

    images: Tensor
    success: Tensor
    rank: Tensor
    target: Tensor
    forwards: Tensor
    backwards: Tensor
    invalid: Tensor
    refused: int = 0
    unsearched: int = 0
    allocation: Allocation | None = None

    def put(self, at: Tensor, found: Outcome, first: int = 0) -> None:
        """Add what further tries, from number `first` on, did to the samples at `at`, which had not succeeded."""
        self.images[at], self.success[at], self.target[at] = found.images, found.success, found.target
        self.rank[at] = torch.where(found.success, found.rank + first, -1)
        self.invalid[at] |= found.invalid
        self.forwards[at] += found.forwards
        self.backwards[at] += found.backwards
        self.refused += found.refused
        self.unsearched += found.unsearched


@dataclass(frozen=True)
class Attack(ABC):
    """What all attacks share: the threat, and how they are called.

    norm: linf, l2 or l1. eps: budget in the units of the norm, images in [0, 1]. targeted: success is being predicted
    as the target given in the call, otherwise as anything but the label. eot: how often each query is shown to a
    randomised model, for the mean of losses and gradients (Athalye et al. 2018, arXiv:1802.00420, section 4.2).
    """

    needs: ClassVar[Access] = "gradient"
    keep: ClassVar[Keep] = "adversarial"
    aims: ClassVar[bool] = False  # ranks set targets of their own, though any wrong class is a success
    norms: ClassVar[tuple[str, ...]] = BUDGET_NORMS
    searches: ClassVar[bool] = True  # on a copy of the model, where there is one
    keyed: ClassVar[bool] = True  # random numbers are keyed by sample: batch size and order change nothing
    any_eps: ClassVar[bool] = True  # can be run at another budget than the suite's, for a curve

    norm: Norm = "linf"
    eps: float = 8 / 255
    targeted: bool = False
    steps: int = 1
    eot: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if self.keep != "smallest" or self.eps != math.inf:
            object.__setattr__(self, "eps", check_eps(self.norm, parse_eps(self.eps)))
        if self.norm not in self.norms:
            raise UserError(
                f"{type(self).__name__} knows the norms {', '.join(self.norms)}, got {self.norm!r}."
                + did_you_mean(str(self.norm).lower(), self.norms)
            )
        self._at_least_one("steps", "eot")
        for key, value in ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "eps"):
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{type(self).__name__} needs a finite {key}, got {value}.")
            if isinstance(value, int) and value > MOST:
                raise UserError(f"{type(self).__name__} takes {key} of at most {MOST:,}, got {value}.")

    def _at_least_one(self, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{type(self).__name__} needs {key} of at least 1, got {value!r}.")

    @property
    def queries(self) -> int:
        """The most points a try may ask to see: its steps, unless a step asks more than once."""
        return self.steps

    @property
    def looks(self) -> int:
        """How often a sample is shown to the model while it is attacked, at most."""
        return self.queries * self.eot

    @property
    def likely_looks(self) -> float:
        """The same where the attack is as long as it usually is, for an estimate of the time."""
        return self.looks

    def succeeds(self, predicted: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """bool, as `predicted`: is the answer what this attack is after? y, target: labels and targets."""
        return predicted == target if self.targeted else predicted != y

    @abstractmethod
    def attempt(
        self, oracle: Oracle, x: Tensor, y: Tensor, ids: Tensor, targets: Tensor | None, crafting: bool, **how: Any
    ) -> Outcome:
        """The attack on what `run` has checked. crafting: another model than the oracle will judge the images.

        how: seed, batch_size, search, clean_logits and watch, as in `run`.
        """

    # --- how it is called -----------------------------------------------------------------------------------------

    def __call__(self, classifier: Model | Oracle, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
        """Attacked images, same shape and dtype as `images`; see `run` for the options.

        >>> from robustlab.attacks import PGD
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten())
        >>> x, y = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])
        >>> PGD(steps=100)(model, x, y, search="auto").shape  # on a faster copy: about 0.6 of the time
        torch.Size([4, 3, 4, 4])
        """
        outcome = self.run(classifier, images, labels, **options)
        if bool(outcome.invalid.any()):
            raise RunError(INVALID)
        return outcome.images

    def run(
        self,
        classifier: Model | Oracle,
        images: Tensor,
        labels: Tensor,
        *,
        targets: Tensor | None = None,
        ids: Tensor | None = None,
        seed: int = 0,
        batch_size: int = 128,
        search: Search = None,
        surrogate: Model | None = None,
        clean_logits: Tensor | None = None,
        watch: Callable[..., None] | None = None,
    ) -> Outcome:
        """The attack on n samples, with all that was counted.

        images: (n, C, H, W) float in [0, 1]. labels, targets: (n,) class numbers, targets also one for all. Arrays and
        lists are taken, too; what comes back are tensors. ids: (n,) int64, the keys of the random
        draws; default: a hash of the pixels. search: a faster copy of the classifier to search on; "auto" makes one for
        this call, if it agrees with the classifier as it is now, which judges what was found. surrogate: craft the
        images on this model alone, with every step, and show the classifier only the last point (a transfer attack).
        watch: called with the `Rows` and the `Observation` of each step (attacks of rows alone).
        Of a randomised model the majority of several evaluations counts: give Oracle(model, evaluations=10).
        The classifier is put into eval mode and left as it was found.
        """
        images = images_of(images)
        labels = labels_of(labels, len(images))
        if targets is not None:
            one = [targets] * len(images) if isinstance(targets, int) else targets
            targets = labels_of(one, len(images), "targets")
        oracle = classifier if isinstance(classifier, Oracle) else Oracle(classifier)
        asked = oracle if surrogate is None else Oracle(surrogate)
        check_call(self, (oracle, asked), images, labels, targets, seed, batch_size)
        # in one order of memory, so that rounding does not depend on how the images lie
        x, y = images.detach().float().contiguous(), labels.to(images.device)
        wanted = search if surrogate is None or search == "auto" else None
        try:
            outcome = self.attempt(
                asked,
                x,
                y,
                pixel_ids(images) if ids is None else labels_of(ids, len(images), "ids").to(images.device),
                None if targets is None else targets.to(images.device),
                crafting=surrogate is not None,
                seed=seed,
                batch_size=batch_size,
                search=searched(wanted, asked, x, batch_size, self.looks if self.searches else 0),
                clean_logits=clean_logits,
                watch=watch,
            )
        except RuntimeError as error:
            if isinstance(error, RunError) or of_the_machine(error) or not (text := of_other_type(asked.model, x)):
                raise
            raise UserError(f"The model cannot take the images.{text}") from error
        if surrogate is not None:
            self._transfer(outcome, oracle, x, y, batch_size)
        self._in_type_of(images, outcome, oracle, x, y, batch_size)
        return outcome

    def _in_type_of(
        self, images: Tensor, outcome: Outcome, oracle: Oracle, x: Tensor, y: Tensor, batch_size: int
    ) -> None:
        """The outcome's images in the type of those given; what rounding has changed is judged once more."""
        found = outcome.images
        outcome.images = as_given(found, x, images, self.norm, self.eps)
        if outcome.images.dtype in (torch.float32, torch.float64):
            return
        points = outcome.images.float()
        changed = (outcome.success & (points != found).flatten(1).any(1)).nonzero()[:, 0]
        success, _ = self._judged(oracle, points[changed], y[changed], outcome.target[changed], batch_size)
        outcome.success[changed] = success
        outcome.forwards[changed] += oracle.evaluations
        outcome.rank[~outcome.success] = -1

    def _transfer(self, crafted: Outcome, oracle: Oracle, x: Tensor, y: Tensor, batch_size: int) -> None:
        """Judge images that were crafted elsewhere, by one look of the target at each."""
        success, finite = self._judged(oracle, crafted.images, y, crafted.target, batch_size)
        inside = distance(crafted.images - x, self.norm) <= allowed(self.eps)
        crafted.invalid = crafted.invalid | ~finite
        crafted.success = success & inside & ~crafted.invalid
        crafted.rank = torch.where(crafted.success, 0, -1)
        crafted.forwards = crafted.forwards + oracle.evaluations

    def _judged(
        self, oracle: Oracle, images: Tensor, y: Tensor, target: Tensor, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """(n,) bool each: does the target say that the image is a success, and are its outputs finite?"""
        if not len(images):
            return torch.zeros_like(y, dtype=torch.bool), torch.ones_like(y, dtype=torch.bool)
        with undisturbed(oracle.model):
            logits = torch.cat([oracle.looks(part) for part in images.split(batch_size)], 1)
        return most(self.succeeds(logits.argmax(2), y, target)), torch.isfinite(logits).all(2).all(0)
