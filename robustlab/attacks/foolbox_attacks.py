"""Attacks on the distance that foolbox has: DeepFool, Carlini and Wagner's l2, EAD and Brendel-Bethge.

They run as foolbox has them (Rauber et al. 2020, doi:10.21105/joss.02607), one batch at a time and on the model itself,
without a search copy. Around them is what the other attacks promise: samples that are wrong from the start are left
out, so that foolbox's guess of the label, the answer on the clean image, is right; what is found is measured and judged
here; a sample for which the model gives NaN does not end the search of the others. Every sample of a batch is charged
what the batch was shown: forwards and backwards depend on the batch size, the answers do not, up to rounding.
"""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.attacks.base import Attack, Outcome
from robustlab.attacks.fmn import BEYOND, FMN
from robustlab.base.errors import UserError
from robustlab.oracle import NO_GRADIENT, NoGradientError, Oracle, most, raised_by_the_model, undisturbed
from robustlab.threat.geometry import distance
from robustlab.threat.model import NORMS, allowed

SAME = 1e-4  # foolbox's Brendel-Bethge takes a smaller change of a value for none in l0


def _foolbox() -> Any:
    """foolbox, imported late: it takes a second."""
    os.environ.setdefault(
        "GIT_PYTHON_REFRESH", "quiet"
    )  # foolbox imports GitPython, which raises where there is no git
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*scipy.ndimage", DeprecationWarning)
            import foolbox
    except ImportError as error:
        raise UserError(
            f"This attack is foolbox's, which cannot be imported here: {error}. Install it again (pip install -U"
            " foolbox), or use fmn."
        ) from error
    return foolbox


class _NotFinite(Exception):
    """The model gave NaN or infinite values for these rows, (B,) bool."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows


class _Shown(nn.Module):
    """The oracle as foolbox wants a model; counts how often a batch went through it, forwards and backwards."""

    def __init__(self, oracle: Oracle, eot: int) -> None:
        super().__init__()
        self.oracle, self.eot = oracle, eot
        self.forwards: int | Tensor = 0
        self.backwards: int | Tensor = 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.forwards = self.forwards + self.eot
        logits = torch.stack([self.oracle.differentiable(images) for _ in range(self.eot)]).mean(0)
        self._check(logits)
        if images.requires_grad:
            if not logits.requires_grad:
                raise NoGradientError(NO_GRADIENT)
            images.register_hook(self._gradient)
        return logits

    def _gradient(self, gradient: Tensor) -> None:
        self.backwards = self.backwards + self.eot
        self.oracle.backwards += self.eot * len(gradient)
        self._check(gradient)  # Brendel-Bethge's solver would not come back from NaN

    def _check(self, values: Tensor) -> None:
        finite = torch.isfinite(values).flatten(1).all(1)
        if not bool(finite.all()):
            raise _NotFinite(~finite)


@dataclass(frozen=True)
class FoolboxAttack(Attack):
    """An attack of foolbox's on the distance. eps: a success is a point within it; the search is the same without."""

    keep = "smallest"

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
        with torch.inference_mode(False), torch.enable_grad(), undisturbed(oracle.model):
            parts = zip(*(each.split(how["batch_size"]) for each in (x, y, target)), strict=True)
            done = [self._batch(oracle, *part) for part in parts if len(part[0])]
        if not done:
            none = torch.zeros_like(y)
            return Outcome(x, none.bool(), none, target, none, none, none.bool())
        images, success, forwards, backwards, invalid = (torch.cat(each) for each in zip(*done, strict=True))
        return Outcome(images, success, torch.where(success, 0, -1), target, forwards, backwards, invalid)

    def _batch(self, oracle: Oracle, x: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Images, success, forwards, backwards and invalid of a batch."""
        images, invalid = x.clone(), torch.zeros_like(y, dtype=torch.bool)
        forwards, backwards = torch.zeros_like(y), torch.zeros_like(y)

        def adversarial() -> Tensor:
            logits = oracle.looks(images)
            forwards.add_(oracle.evaluations)
            invalid.logical_or_(~torch.isfinite(logits).all(2).all(0))
            predicted = logits.argmax(2)
            return most(predicted == target if self.targeted else predicted != y) & ~invalid

        rows = (~adversarial() & ~invalid).nonzero()[:, 0]
        while len(rows):
            shown, bad = _Shown(oracle, self.eot), torch.zeros_like(rows, dtype=torch.bool)
            try:
                with raised_by_the_model():  # foolbox goes backwards through it
                    images[rows] = self.search(shown, x[rows], y[rows], target[rows]).clamp(0, 1)
            except _NotFinite as error:  # once more, without them
                bad = error.rows
            forwards[rows] += shown.forwards
            backwards[rows] += shown.backwards
            invalid[rows[bad]] = True
            rows = rows[~bad] if bool(bad.any()) else rows[:0]
        # where foolbox's C&W and EAD find nothing they return a black image, which may be adversarial by itself
        black = (images == 0).flatten(1).all(1)
        images[black] = x[black]
        found = adversarial()
        images[~found] = x[~found]
        inside = distance(images - x, self.norm) <= allowed(self.eps)
        return images, found & inside, forwards, backwards, invalid

    def search(self, shown: _Shown, x: Tensor, y: Tensor, target: Tensor, **more: Any) -> Tensor:
        """The points that foolbox finds; where it finds nothing, any. All samples are classified right."""
        attack, criteria = self.made(len(x)), _foolbox().criteria
        wanted = criteria.TargetedMisclassification(target) if self.targeted else criteria.Misclassification(y)
        points: Tensor = attack.run(_foolbox().PyTorchModel(shown, (0, 1), device=x.device), x, wanted, **more)
        return points.detach()


@dataclass(frozen=True)
class DeepFool(FoolboxAttack):
    """DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2), linf and l2; foolbox's.

    Steps to where a linear model has its nearest boundary, until the answer changes. A quick estimate, not the smallest
    distance: it stops at the first adversarial point. steps: at most. candidates: likeliest classes whose boundaries
    are looked at, each with a forward and a backward of its own. overshoot: how far beyond the boundary, as a share of
    the way. Untargeted.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> DeepFool(norm="l2").run(model, x, y).success.shape
    torch.Size([4])
    """

    norms = ("linf", "l2")

    norm: str = "l2"  # type: ignore[assignment]
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targeted:
            raise UserError("deepfool chooses its own targets; for a targeted threat use fmn.")
        if self.candidates < 2 or not self.overshoot >= 0:
            raise UserError(
                f"deepfool needs candidates of at least 2 and overshoot of at least 0, got {self.candidates} and"
                f" {self.overshoot}."
            )

    @property
    def queries(self) -> int:
        return self.steps * (self.candidates - 1)

    def made(self, batch: int) -> Any:
        kind = {"linf": "LinfDeepFoolAttack", "l2": "L2DeepFoolAttack"}[self.norm]
        return getattr(_foolbox().attacks, kind)(steps=self.steps, candidates=self.candidates, overshoot=self.overshoot)


@dataclass(frozen=True)
class PenaltyAttack(FoolboxAttack):
    """Minimises distance plus c times the margin, for several c between which it searches the best of each sample.

    steps: of each search, all of which are taken: foolbox's early stop looks at the sum over the batch, so that the
    neighbours of a sample would decide what is found for it. binary_search_steps: values of c, from initial_const on.
    """

    steps: int = 100
    binary_search_steps: int = 6
    initial_const: float = 1.0
    step_size: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("binary_search_steps")
        if not (self.initial_const > 0 and self.step_size > 0):
            raise UserError(f"{type(self).__name__} needs initial_const and step_size above 0.")

    @property
    def queries(self) -> int:
        return self.steps * self.binary_search_steps


@dataclass(frozen=True)
class CW(PenaltyAttack):
    """Carlini and Wagner's attack (2017, arXiv:1608.04644, section V), l2; foolbox's. Targeted or not.

    Adam on the arctanh of the pixels. The default is meant for a CPU, 600 gradients a sample (the paper takes 20 times
    1,000 and more); values of exactly 0 or 1, as in MNIST's black, need more steps or a larger step_size.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> CW(steps=10).run(model, x, y).success.shape
    torch.Size([4])
    """

    norms = ("l2",)

    norm: str = "l2"  # type: ignore[assignment]

    def made(self, batch: int) -> Any:
        return _foolbox().attacks.L2CarliniWagnerAttack(
            binary_search_steps=self.binary_search_steps,
            steps=self.steps,
            stepsize=self.step_size,
            initial_const=self.initial_const,
            abort_early=False,
        )


@dataclass(frozen=True)
class EAD(PenaltyAttack):
    """Elastic-net attack (Chen et al. 2018, arXiv:1709.04114, algorithm 1), l1, with the L1 decision rule; foolbox's.

    beta: the weight of l1 beside the squared l2. Gradients are taken at extrapolated points, which may lie a little
    outside the box; every point that counts lies in it. Targeted or not.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> EAD(steps=10).run(model, x, y).success.shape
    torch.Size([4])
    """

    norms = ("l1",)

    norm: str = "l1"  # type: ignore[assignment]
    beta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise UserError(f"EAD needs beta above 0, got {self.beta}.")

    @property
    def looks(self) -> int:
        return 2 * super().looks  # each new point is looked at once more

    def made(self, batch: int) -> Any:
        return _foolbox().attacks.EADAttack(
            binary_search_steps=self.binary_search_steps,
            steps=self.steps,
            initial_stepsize=self.step_size,
            initial_const=self.initial_const,
            regularization=self.beta,
            decision_rule="L1",
            abort_early=False,
        )


@dataclass(frozen=True)
class BrendelBethge(FoolboxAttack):
    """Brendel and Bethge's attack (2019, arXiv:1907.01003, algorithm 1), linf, l2, l1 and l0; foolbox's.

    Follows the boundary from an adversarial point to the nearest one: FMN's with as many steps, which it can only make
    better. Needs numba, which compiles its solver anew in each process, for half a minute or more. Targeted or not.

    >>> BrendelBethge(norm="linf").steps
    100
    """

    norms = NORMS

    norm: str = "l2"  # type: ignore[assignment]
    steps: int = 100

    @property
    def queries(self) -> int:
        return 2 * self.steps

    def made(self, batch: int) -> Any:
        if importlib.util.find_spec("numba") is None:
            raise UserError("brendel-bethge needs numba, which is not installed: pip install numba. Or use fmn.")
        kind = {"linf": "Linfinity", "l2": "L2", "l1": "L1", "l0": "L0"}[self.norm]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "At the first initialisation the optimizer needs to be compiled")
            # foolbox's trust region grows with the number of samples in the batch; this is the one of a single sample
            return getattr(_foolbox().attacks, f"{kind}BrendelBethgeAttack")(steps=self.steps, lr=1e-3 / batch)

    def search(self, shown: _Shown, x: Tensor, y: Tensor, target: Tensor, **more: Any) -> Tensor:
        if shown.oracle.evaluations > 1:
            raise UserError("brendel-bethge follows a boundary, and that of a randomised model moves. Use fmn.")
        self.made(len(x))  # what is missing is said before the work
        fmn = FMN(self.norm, targeted=self.targeted, steps=self.steps)
        targets = target if self.targeted else None
        first = fmn.run(shown.oracle, x, y, targets=targets, batch_size=len(x))
        shown.forwards, shown.backwards = first.forwards, first.backwards
        if bool(first.invalid.any()):
            raise _NotFinite(first.invalid)
        nearest, rows = first.images, first.success.nonzero()[:, 0]
        try:
            while len(rows):  # foolbox insists that all are adversarial, which rounding may change in another batch
                answers = shown(nearest[rows]).argmax(1)
                holds = answers == target[rows] if self.targeted else answers != y[rows]
                if bool(holds.all()):
                    break
                rows = rows[holds]
            else:
                return nearest
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is only read
                found = super().search(shown, x[rows], y[rows], target[rows], starting_points=nearest[rows])
        except _NotFinite as error:
            bad = torch.zeros_like(first.invalid)
            bad[rows[error.rows]] = True
            raise _NotFinite(bad) from error
        delta = found - x[rows]
        if self.norm == "l0":
            delta = delta * (delta.abs() > SAME)
        found = (x[rows] + delta * BEYOND).clamp(0, 1)  # exactly on the boundary rounding decides
        nearer = distance(found - x[rows], self.norm) < distance(nearest[rows] - x[rows], self.norm)
        nearest[rows[nearer]] = found[nearer]
        return nearest
