"""What every attack is: a frozen dataclass of its parameters, called with (classifier, images, labels)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor

from robustlab.attacks.losses import LOSSES
from robustlab.attacks.returned import as_given
from robustlab.base.draws import keys, pixel_ids
from robustlab.base.errors import RunError, UserError, did_you_mean
from robustlab.base.given import check_classes, check_module, images_of, labels_of, of_other_type
from robustlab.base.memory import of_the_machine
from robustlab.base.typed import check_whole
from robustlab.oracle import Access, Oracle, most, undisturbed
from robustlab.threat.geometry import distance
from robustlab.threat.model import BUDGET_NORMS, Norm, allowed, check_eps, parse_eps

INVALID = (
    "The model returned NaN or infinite values or gradients under attack, so its robustness cannot be judged."
    " Check the model on extreme inputs (all 0, all 1); float16 weights overflow easily."
)
MOST = 1_000_000_000  # of whatever an attack counts; no run would get there
Model = Callable[[Tensor], Tensor]  # images in [0, 1] (N, C, H, W) -> logits (N, K); usually an nn.Module
Keep = Literal["adversarial", "smallest", "last"]  # which point of a sample the driver keeps
State = dict[str, Tensor]  # first dimension = rows; "query" is the next point to be seen


@dataclass
class Rows:
    """The samples in the slots of the working batch, one rank each. All fields have the rows as first dimension."""

    x: Tensor  # clean images
    y: Tensor  # labels
    target: Tensor  # the class to reach, -1 for none
    id: Tensor
    rank: Tensor
    age: Tensor  # steps taken
    pos: Tensor  # place in the selection

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def join(self, other: Rows) -> Self:
        return type(self)(**{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)})

    def put(self, index: Tensor, other: Rows) -> None:
        for f in fields(self):
            getattr(self, f.name)[index] = getattr(other, f.name)


class Seen(NamedTuple):
    """What the target showed at `state["query"]`; the gradient is None where the attack does not need one.

    With `eot` draws logits, loss and gradient are their means.
    """

    logits: Tensor
    loss: Tensor
    gradient: Tensor | None
    hit: Tensor  # (B,) bool: the point is adversarial


@dataclass(frozen=True)
class Draw:
    """Random keys for rows: a function of (seed, sample id, rank, age, purpose) and of nothing else."""

    seed: int

    def keys(self, rows: Rows, purpose: str) -> Tensor:
        return keys(self.seed, rows.id, rows.rank, rows.age, purpose)


@dataclass(eq=False)
class Outcome:
    """What an attack did to each of n samples.

    images: the adversarial image, or where the attack failed its final point. success: as judged by the target.
    rank: the try that succeeded, -1 for none. forwards, backwards: what the sample cost.
    invalid: the target returned NaN or infinite values for it; neither a success nor a failure.
    refused: hits of the search copy that the target itself did not confirm, summed over samples.
    """

    images: Tensor
    success: Tensor
    rank: Tensor
    target: Tensor
    forwards: Tensor
    backwards: Tensor
    invalid: Tensor
    refused: int = 0


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

    def turned(self, predicted: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """bool, as `predicted`: is the answer what this attack is after? y, target: labels and targets."""
        return predicted == target if self.targeted else predicted != y

    @abstractmethod
    def attempt(
        self, oracle: Oracle, x: Tensor, y: Tensor, ids: Tensor, targets: Tensor | None, crafting: bool, **how: Any
    ) -> Outcome:
        """The attack on what `run` has checked. crafting: another model than the oracle will judge the images.

        how: seed, batch_size, search and clean_logits, as in `run`.
        """

    # --- how it is called -----------------------------------------------------------------------------------------

    def __call__(self, classifier: Model | Oracle, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
        """Attacked images, same shape and dtype as `images`; see `run` for the options."""
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
        search: Model | None = None,
        surrogate: Model | None = None,
        clean_logits: Tensor | None = None,
    ) -> Outcome:
        """The attack on n samples, with all that was counted.

        images: (n, C, H, W) float in [0, 1]. labels, targets: (n,) class numbers, targets also one for all. Arrays and
        lists are taken, too; what comes back are tensors. ids: (n,) int64, the keys of the random
        draws; default: a hash of the pixels. search: a faster copy of the classifier to search on. surrogate: craft the
        images on this model alone, with every step, and show the classifier only the last point (a transfer attack).
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
                search=None if surrogate is not None else search,
                clean_logits=clean_logits,
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
        rows = (outcome.success & (points != found).flatten(1).any(1)).nonzero()[:, 0]
        for i in rows.split(batch_size) if len(rows) else ():
            with undisturbed(oracle.model):
                predicted = oracle.looks(points[i]).argmax(2)
            outcome.success[i] = most(self.turned(predicted, y[i], outcome.target[i]))
            outcome.forwards[i] += oracle.evaluations
        outcome.rank[~outcome.success] = -1

    def _transfer(self, crafted: Outcome, oracle: Oracle, x: Tensor, y: Tensor, batch_size: int) -> None:
        """Judge images that were crafted elsewhere, by one look of the target at each."""
        if not len(x):
            return
        with undisturbed(oracle.model):
            logits = torch.cat([oracle.looks(part) for part in crafted.images.split(batch_size)], 1)
        predicted = logits.argmax(2)
        inside = distance(crafted.images - x, self.norm) <= allowed(self.eps)
        crafted.invalid = crafted.invalid | ~torch.isfinite(logits).all(2).all(0)
        turned = most(self.turned(predicted, y, crafted.target))
        crafted.success = turned & inside & ~crafted.invalid
        crafted.rank = torch.where(crafted.success, 0, -1)
        crafted.forwards = crafted.forwards + oracle.evaluations


@dataclass(frozen=True)
class RowAttack(Attack):
    """An attack that moves every sample on its own, by ask and tell; `driver.drive` does the asking.

    A subclass says where a row starts and how it goes on from what was seen; it never calls the classifier.
    restarts: tries at a sample, of which the first that succeeds counts. loss: what is maximised.
    """

    views: ClassVar[int] = 1

    restarts: int = 1
    loss: str = "ce"
    stop_when_fooled: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise UserError(
                f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}.{did_you_mean(self.loss, LOSSES)}"
            )
        self._at_least_one("restarts")

    @property
    def looks(self) -> int:
        return self.queries * self.restarts * self.views * self.eot

    # --- what a subclass says -------------------------------------------------------------------------------------

    def ranks(self, y: Tensor, targets: Tensor | None, clean_logits: Tensor | None) -> Tensor:
        """(n, R): the target of each rank, -1 for none. The default: `restarts` times the given target."""
        column = torch.full_like(y, -1) if targets is None else targets
        return column[:, None].expand(-1, self.restarts)

    @abstractmethod
    def start(self, rows: Rows, draw: Draw) -> State:
        """The state of rows that begin: a dict of tensors with the rows as first dimension, "query" among them."""

    @abstractmethod
    def tell(self, rows: Rows, state: State, seen: Seen, draw: Draw) -> State:
        """How the rows go on from what was seen at their query: the state with the next "query"."""

    def objective(self, logits: Tensor, rows: Rows, state: State) -> Tensor:
        """(B,): what the attack maximises, never reduced over rows."""
        aimed = self.targeted or self.aims
        return LOSSES[self.loss](logits, rows.y, rows.target if aimed else None)

    faithful: ClassVar[bool] = True  # view 0 is the query itself, so that its logits judge it

    def view(self, query: Tensor, rows: Rows, i: int, draw: Draw) -> Tensor:
        """What the target is shown as view i of the query."""
        return query

    def judged(self, rows: Rows, state: State) -> Tensor | None:
        """(B,) bool: rows that only want to know whether their query is adversarial, so that its gradient is zero."""
        return None

    def crafted(self, state: State) -> Tensor:
        """(B, C, H, W): what comes out where nothing is judged, for training and for transfer; the last point."""
        return state["query"]

    def done(self, rows: Rows, state: State) -> Tensor | None:
        """(B,) bool: rows that end before their last step."""
        return None

    def attempt(
        self, oracle: Oracle, x: Tensor, y: Tensor, ids: Tensor, targets: Tensor | None, crafting: bool, **how: Any
    ) -> Outcome:
        from robustlab.attacks.driver import drive

        return drive(
            self,
            oracle,
            x,
            y,
            ids,
            targets=targets,
            keep="last" if crafting and self.keep == "adversarial" else None,
            **how,
        )


@dataclass(frozen=True)
class MinimumAttack(RowAttack):
    """An attack that looks for the nearest adversarial point. eps: stop a sample as soon as one within it is found.

    Without eps every step is taken. Where nothing is found inside eps, the image is the nearest adversarial one, and
    no success; where nothing is found at all, the clean image.
    """

    keep = "smallest"

    eps: float = math.inf


@dataclass(frozen=True)
class SearchAttack(RowAttack):
    """A random search: most queries leave the state as it is, so that several of the next ones are known beforehand."""

    needs = "scores"

    @abstractmethod
    def idle(self, state: State, loss: Tensor) -> Tensor:
        """(B,) bool: a query of this loss leaves all of the state but "query" as it is; False where in doubt."""

    @abstractmethod
    def propose(self, rows: Rows, state: State, draw: Draw) -> Tensor:
        """(B, C, H, W): the query after one that has left the state as it is; looks at all of it but "query"."""


def check_call(
    attack: Attack,
    oracles: tuple[Oracle, Oracle],
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    seed: int,
    batch_size: int,
) -> None:
    """Raise a `UserError` for what cannot be attacked. oracles: who judges, and who is asked."""
    name = type(attack).__name__
    check_whole("seed", seed, 0)
    check_whole("batch_size", batch_size, 1)
    for oracle in oracles:
        check_module(oracle.model, images.device)
    given = {"labels": labels} if targets is None else {"labels": labels, "targets": targets}
    expected = {what: (int(each.min()), int(each.max())) for what, each in given.items() if len(each)}
    for what, ends in expected.items():
        check_classes(*ends, None, what)
    for oracle in oracles:
        oracle.expected = expected
    if attack.targeted and targets is None:
        raise UserError(f"A targeted {name} needs targets: attack(model, images, labels, targets=...).")
    if not attack.targeted and targets is not None:
        raise UserError(f"targets were given to an untargeted attack; write {name}(targeted=True, ...).")
    if targets is not None and bool((targets.to(labels.device) == labels).any()):
        raise UserError("A target equals its label; leave those samples out, they are there already.")
    if not oracles[1].allows(attack.needs):
        raise UserError(f"{name} needs {attack.needs}, and the target gives only {oracles[1].gives}.")
