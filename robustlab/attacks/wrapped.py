"""Attack objects of foolbox and torchattacks in a suite of ours: `wrap`.

The object runs as its library has it, one batch at a time. What it finds is judged here, as of every attack. Its random
numbers are not keyed by sample, as ours are: they come from the generators of torch, NumPy and Python, seeded once a
call. So what it finds depends on the batch size and on which other samples are in the batch: it is *unkeyed*.
"""

from __future__ import annotations

import copy
import math
import re
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustlab.attacks.base import Keep, Outcome
from robustlab.attacks.foolbox_adapter import FoolboxAttack, NotFinite, Parts, Shown, foolbox, or_clean
from robustlab.attacks.foreign import recorded, seeded
from robustlab.base.errors import RunError, UserError
from robustlab.base.memory import of_the_machine
from robustlab.base.words import kind_and_line
from robustlab.oracle import Access, Oracle, of_the_model
from robustlab.threat.model import NORMS, Norm, ThreatModel, parse_eps

_NORM_OF_P: dict[float, Norm] = {0: "l0", 1: "l1", 2: "l2", math.inf: "linf"}
_SAID = re.compile(r"Distance Measure\s*:\s*(Linf|L0|L1|L2)\b")  # in the docstrings of torchattacks
# fields of an object of torchattacks that say nothing of how it searches
_STATE = ("model", "model_name", "attack", "attack_mode", "targeted", "supported_mode", "normalization_used", "device")
# what asks no gradient, by the name of the class or of one that it comes from
_SCORES = {"Square", "SPSA", "OnePixel", "Pixle", "GenAttack"}
_LABELS = {"BoundaryAttack", "HopSkipJumpAttack", "PointwiseAttack", "GN", "VANILA", "SaltAndPepperNoiseAttack"} | {
    "BaseAdditiveNoiseAttack", "BaseRepeatedAdditiveNoiseAttack", "LinearSearchBlendedUniformNoiseAttack",
    "L2ContrastReductionAttack", "BinarySearchContrastReductionAttack", "LinearSearchContrastReductionAttack",
    "GaussianBlurAttack", "InversionAttack", "DatasetAttack",
}  # fmt: skip


@dataclass(frozen=True)
class Wrapped(FoolboxAttack):
    """An attack object of another library. Made by `wrap`.

    given: the object, which is never changed. needs: what it asks of the model. own_norm: the norm it keeps to, None
    where it does not say. steps: those of the object, 1 where it says none.
    """

    library: ClassVar[str]
    norms = NORMS
    keyed = False

    eps: float = 8 / 255
    steps: int = field(init=False, default=1)
    given: Any = field(default=None, repr=False, kw_only=True)
    own_norm: Norm | None = field(default=None, repr=False, kw_only=True)
    needs: Access = field(default="gradient", kw_only=True)  # type: ignore[misc]

    def __post_init__(self) -> None:
        steps = getattr(_inner(self.given), "steps", 1)
        object.__setattr__(self, "steps", steps if isinstance(steps, int) and steps > 0 else 1)
        super().__post_init__()

    @property
    def method(self) -> str:
        """As lines and tables call it; a second one of the same kind gets a number.

        >>> wrap(foolbox().attacks.LinfPGD(steps=5)).method
        'foolbox.LinfPGD'
        >>> wrap(foolbox().attacks.LinfPGD(steps=5).repeat(3)).method
        'foolbox.LinfPGD-x3'
        """
        inner = _inner(self.given)
        name = type(inner).__name__.replace("ProjectedGradientDescentAttack", "PGD")
        return f"{self.library}.{name}" + (f"-x{self.given.times}" if inner is not self.given else "")

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields of the object, as a run records them."""
        return {key: recorded(value) for key, value in self._fields().items()}

    def under(self, threat: ThreatModel) -> Wrapped:
        """The attack under a suite's threat. A `UserError` where the object was made for another."""
        if self.own_norm not in (None, threat.norm):
            raise UserError(
                f"{self.method} keeps to {self.own_norm}, and the threat is {threat.norm}: give an attack made for"
                f" {threat.norm}, or the suite another norm."
            )
        eps = math.inf if self.keep == "smallest" else threat.eps
        return replace(self, norm=threat.norm, eps=eps, targeted=threat.targeted)

    def attempt(
        self, oracle: Oracle, x: Tensor, y: Tensor, ids: Tensor, targets: Tensor | None, crafting: bool, **how: Any
    ) -> Outcome:
        with seeded(x.device, how["seed"], ids):
            return super().attempt(oracle, x, y, ids, targets, crafting, **how)

    def made(self, batch: int) -> Any:
        return self.given

    def search(self, shown: Shown, x: Tensor, y: Tensor, target: Tensor, **more: Any) -> Tensor:
        try:
            points = self._points(shown, x, y, target)
        except (NotFinite, Parts, UserError, RunError):
            raise
        except Exception as error:
            if of_the_machine(error) or of_the_model(error):
                raise
            if "init_attack failed" in str(error):  # for some samples, and foolbox then gives up all of them
                raise Parts from error
            raise UserError(
                f"{self.method} cannot run here; it says {kind_and_line(error)}. Try the object on the model without"
                " robustlab. If that fails, too, leave it out of the suite."
            ) from error
        if not isinstance(points, Tensor) or points.shape != x.shape:
            came = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
            raise UserError(f"{self.method} returned {came} for images of shape {tuple(x.shape)}.")
        points = points.detach().to(x)
        # a point that is no image is no success
        return torch.where(torch.isfinite(points).flatten(1).all(1)[:, None, None, None], points, x)

    @abstractmethod
    def _points(self, shown: Shown, x: Tensor, y: Tensor, target: Tensor) -> Any:
        """What the object returns for these images."""

    @abstractmethod
    def _fields(self) -> dict[str, Any]:
        """What the object was made with, by name."""


@dataclass(frozen=True)
class WrappedFoolbox(Wrapped):
    """An attack of foolbox's with a fixed budget: it gets that of the threat."""

    library = "foolbox"
    keep: ClassVar[Keep] = "adversarial"

    def _points(self, shown: Shown, x: Tensor, y: Tensor, target: Tensor) -> Any:
        return self.given(*self.asked(shown, x, y, target), epsilons=self.eps)[0]

    def _fields(self) -> dict[str, Any]:
        return {key.strip("_"): value for key, value in vars(self.given).items()}


@dataclass(frozen=True)
class WrappedMinimal(WrappedFoolbox):
    """An attack of foolbox's on the distance. A point is a success if it lies within the budget."""

    keep: ClassVar[Keep] = "smallest"

    eps: float = math.inf

    def _points(self, shown: Shown, x: Tensor, y: Tensor, target: Tensor) -> Any:
        return or_clean(self.given(*self.asked(shown, x, y, target), epsilons=None)[0], x)


@dataclass(frozen=True)
class WrappedTorchattacks(Wrapped):
    """An attack of torchattacks with a budget, which it holds itself. It attacks the model that the suite attacks."""

    library = "torchattacks"
    keep: ClassVar[Keep] = "adversarial"
    any_eps = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for each in (self.given, *self.given._attacks.values()):
            eps = _budget(each)
            if eps is not None and not math.isclose(eps, self.eps, rel_tol=1e-6):
                raise UserError(
                    f"{self.method} was made with eps={eps:.6g}, and the threat has {self.eps:.6g}. Give both the"
                    " same: its budget, step size and schedule belong together, so robustlab does not change them."
                )

    def under(self, threat: ThreatModel) -> Wrapped:
        if threat.targeted and "targeted" not in self.given.supported_mode:
            raise UserError(f"{self.method} has no targeted mode, and the threat is targeted.")
        if self.given.targeted and not threat.targeted:
            raise UserError(f"{self.method} is targeted, and the threat is not. Call its set_mode_default().")
        return super().under(threat)

    def _points(self, shown: Shown, x: Tensor, y: Tensor, target: Tensor) -> Any:
        # a copy whose model, wherever it is used inside, is the one that is attacked
        held = self.given.model
        made = copy.deepcopy(self.given, {} if held is None else {id(held): shown})
        made.set_model(shown)
        made.set_device(x.device)
        if self.targeted:
            made.set_mode_targeted_by_label(quiet=True)
        return made(x, target if self.targeted else y)

    def _fields(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self.given).items() if key[0] != "_" and key not in _STATE}


@dataclass(frozen=True)
class WrappedUnbounded(WrappedTorchattacks):
    """An attack of torchattacks without a budget, such as CW: a point is a success if it lies within the threat's."""

    keep: ClassVar[Keep] = "smallest"

    eps: float = math.inf


def wrap(attack: Any, *, eps: float | str | None = None, needs: Access | None = None) -> Wrapped:
    """An attack object of foolbox or torchattacks as an attack of ours, to call or to put in a suite.

    attack: such as foolbox.attacks.LinfPGD(steps=20) or torchattacks.PGD(model, eps=8/255). A fixed budget of foolbox's
    is that of the threat; attacks on the distance run without one. torchattacks' objects carry their own, which must
    agree with the threat; their model is replaced by the attacked one. eps: the budget where the attack is called
    outside a suite (default: the object's own, else 8/255). needs: what it asks of the model: "gradient", "scores" or
    "labels" (default: what is known of its class, else "gradient"). A model without a gradient answers the last two.

    The random numbers are not keyed by sample: runs and pages mark the attack as unkeyed. A point outside the budget
    counts as a failure of the attack, and is counted among those that were not confirmed.

    >>> LinfPGD = foolbox().attacks.LinfPGD  # or: from foolbox.attacks import LinfPGD
    >>> from robustlab.attacks.suite import load_suite
    >>> suite = load_suite(attacks=[wrap(LinfPGD(steps=5)), "fgsm"], eps="4/255")
    >>> [member.name for member in suite.members], suite.members[0].attack.eps == 4 / 255
    (['foolbox.LinfPGD', 'fgsm'], True)
    """
    needs = _needs(attack) if needs is None else needs
    if needs not in ("gradient", "scores", "labels"):
        raise UserError(f"needs is gradient, scores or labels, got {needs!r}.")
    homes = {f"{each.__module__}.{each.__name__}" for each in type(attack).__mro__}
    budget = None if eps is None else parse_eps(eps)
    if "torchattacks.attack.Attack" in homes:
        if attack.normalization_used is not None:
            raise UserError(
                "A torchattacks object with set_normalization_used() attacks normalised images. Here the images lie in"
                " [0, 1], and the classifier normalises: make a new object without it."
            )
        if attack._model_training:
            raise UserError("The torchattacks object wants the model in training mode; attacks here leave it in eval.")
        held, norm = _budget(attack), _torchattacks_norm(attack)
        kind = WrappedUnbounded if held is None else WrappedTorchattacks
        held = (math.inf if held is None else held) if budget is None else budget
        return kind(norm or "linf", held, bool(attack.targeted), given=attack, own_norm=norm, needs=needs)
    if "foolbox.attacks.base.AttackWithDistance" in homes:
        norm = _foolbox_norm(attack)
        if isinstance(_inner(attack), foolbox().attacks.base.FixedEpsilonAttack):
            held = 8 / 255 if budget is None else budget
            return WrappedFoolbox(norm, held, given=attack, own_norm=norm, needs=needs)
        held = math.inf if budget is None else budget
        return WrappedMinimal(norm, held, given=attack, own_norm=norm, needs=needs)
    raise UserError(
        "wrap takes an attack object of foolbox or torchattacks, such as foolbox.attacks.LinfPGD(steps=20). It got"
        f" {f'the class {attack.__name__}' if isinstance(attack, type) else type(attack).__name__}. An attack of"
        " robustlab needs no wrapping."
    )


def _foolbox_norm(attack: Any) -> Norm:
    try:
        p = attack.distance.p
    except (ValueError, AttributeError):  # it was made without a distance, or with one that is no norm
        raise UserError(
            f"{type(attack).__name__} does not say in which norm it keeps to its budget. Make it with one:"
            f" {type(attack).__name__}(distance=foolbox.distances.linf)."
        ) from None
    if p not in _NORM_OF_P:
        raise UserError(f"{type(attack).__name__} measures in the l{p:g} norm; known are {', '.join(NORMS)}.")
    return _NORM_OF_P[p]


def _inner(attack: Any) -> Any:
    """What foolbox's Repeated repeats, else the object itself."""
    return attack.attack if hasattr(attack, "times") and hasattr(attack, "attack") else attack


def _needs(attack: Any) -> Access:
    """What is known of its class; of several together, the most that one asks."""
    several = getattr(attack, "attacks", None)
    if isinstance(several, list):
        order: list[Access] = ["labels", "scores", "gradient"]
        return max((_needs(each) for each in several), key=order.index, default="gradient")
    names = {each.__name__ for each in type(_inner(attack)).__mro__}
    return "labels" if names & _LABELS else "scores" if names & _SCORES else "gradient"


def _budget(attack: Any) -> float | None:
    """That of an object of torchattacks, or the one of the attacks inside it; None where it has none."""
    found = getattr(attack, "eps", getattr(attack, "max_epsilon", None))
    if isinstance(found, int | float):
        return float(found)
    inside = {_budget(each) for each in attack._attacks.values()}
    if len(inside) > 1:
        said = ", ".join(sorted("none" if eps is None else f"{eps:.6g}" for eps in inside))
        raise UserError(
            f"The attacks inside {type(attack).__name__} have different budgets: {said}. Give all the same."
        )
    return next(iter(inside), None)


def _torchattacks_norm(attack: Any) -> Norm | None:
    """What its field, its docstring or the attacks inside it say; None where none does."""
    said = _SAID.search(type(attack).__doc__ or "")
    own = str(getattr(attack, "norm", said[1] if said else "")).lower()
    if found := next((norm for norm in _NORM_OF_P.values() if norm == own), None):
        return found
    inside = {_torchattacks_norm(each) for each in attack._attacks.values()} - {None}
    if len(inside) > 1:
        said_norms = ", ".join(sorted(map(str, inside)))
        raise UserError(f"The attacks inside {type(attack).__name__} keep to different norms: {said_norms}. Wrap each.")
    return next(iter(inside), None)
