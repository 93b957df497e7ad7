"""The target as an attack sees it: gradients, scores or labels only, counted, with a query budget."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.errors import RunError, UserError
from robustlab.base.given import check_classes
from robustlab.base.memory import of_the_machine
from robustlab.base.module_state import kept_state
from robustlab.base.outputs import rows, unpacked

Access = Literal["gradient", "scores", "labels"]
_RANK: dict[str, int] = {"labels": 0, "scores": 1, "gradient": 2}
_NOTE = "(raised by the model that is attacked)"
NO_GRADIENT = (
    "The model gives no gradient: its outputs do not depend on the image by operations that torch can differentiate"
    " (quantised layers, detach(), no_grad(), NumPy). Use attacks that need scores only, such as square."
)
EVALUATIONS = 10  # of an image by a randomised model, of which the majority is its answer


class NoGradientError(UserError):
    """A model without a gradient was asked for one."""


@contextmanager
def forked(device: torch.device, *key: object) -> Iterator[None]:
    """torch's own generators seeded by the key, and put back afterwards: for the random numbers drawn inside a model.

    Such draws depend on the batch in which an image is seen, unlike those of `robustlab.base.draws`.

    >>> with forked(torch.device("cpu"), 0, "pgd"):
    ...     first = torch.rand(2)
    >>> with forked(torch.device("cpu"), 0, "pgd"):
    ...     bool((torch.rand(2) == first).all())
    True
    """
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "big")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions and matrix products in float32, not in TF32, which GPUs round to by default; put back afterwards."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def most(votes: Tensor, share: float = 0.5) -> Tensor:
    """(n,) bool: more than half of the evaluations say so, or than another share. votes: (evaluations, n) bool.

    >>> most(torch.tensor([[True, True], [True, False]])).tolist()
    [True, False]
    """
    return votes.sum(0) > share * len(votes)


@contextmanager
def raised_by_the_model() -> Iterator[None]:
    """Mark what a model raises, to tell it from errors of the attack itself."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError | RunError) and not of_the_model(error):
            error.add_note(_NOTE)
        raise


def of_the_model(error: BaseException) -> bool:
    """Did the model raise it, forwards or backwards?

    >>> try:
    ...     ask(lambda images: images.no_such_thing, torch.zeros(1, 1, 1, 1))
    ... except AttributeError as error:
    ...     of_the_model(error), of_the_model(AttributeError())
    (True, False)
    """
    return _NOTE in getattr(error, "__notes__", ())


def ask(model: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    """(N, K), what the model says of the images. Every call of a model goes through here.

    The model gets a tensor of its own, which it may write into (many normalise or clamp in place), and what it returns
    is the caller's own, whatever the model does to it in its next call. Gradients pass through. Which forms the model
    may return, `robustlab.base.outputs.rows` says; others are a UserError.

    >>> x = torch.ones(1, 1, 1, 2)
    >>> ask(lambda images: images.mul_(2).flatten(1), x).tolist(), x.flatten().tolist()
    ([[2.0, 2.0]], [1.0, 1.0])
    """
    return rows(_said(model, images), images)


def _said(model: Callable[[Tensor], Any], images: Tensor) -> Any:
    with raised_by_the_model():
        out = unpacked(model(images.clone()))
    return out.clone() if isinstance(out, Tensor) else out


@contextmanager
def undisturbed(model: object) -> Iterator[None]:
    """The module in eval mode, with frozen parameters; modes, flags and buffers are put back, also after an exception.

    A frozen parameter keeps no activation for its own gradient and collects none. A callable that is no module is
    left alone.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(m, m.training) for m in model.modules()]
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        model.eval()
        for p in trainable:
            p.requires_grad_(False)
        with kept_state(model):
            yield
    finally:
        for m, training in modes:
            m.training = training
        for p in trainable:
            p.requires_grad_(True)


def answers(model: nn.Module, images: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """(n,) the classes that a model on this device names, on the CPU."""
    with torch.no_grad(), undisturbed(model):
        return torch.cat([ask(model, x.to(device)).argmax(1).cpu() for x in images.split(512)])


class Oracle:
    """What an attack may ask of a target.

    model: a module or any callable from images (N, C, H, W) in [0, 1] to logits (N, K); with `gives="labels"` it may
    return labels (N,) instead, and then needs `classes`. query_budget: the most forward passes a sample may cost.
    evaluations: how often a finished image is looked at; more than once where the model is randomised.
    Counts every image that went through: `forwards`, `backwards`.

    >>> Oracle(nn.Flatten(), gives="scores").logits(torch.zeros(2, 1, 1, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        gives: Access = "gradient",
        query_budget: int | None = None,
        classes: int | None = None,
        evaluations: int = 1,
    ) -> None:
        if gives not in _RANK:
            raise UserError(f"gives must be gradient, scores or labels, got {gives!r}.")
        if query_budget is not None and query_budget < 1:
            raise UserError(f"query_budget must be at least 1, got {query_budget}.")
        if evaluations < 1:
            raise UserError(f"evaluations must be at least 1, got {evaluations}.")
        self.evaluations = evaluations
        self.model, self.gives, self.query_budget, self.classes = model, gives, query_budget, classes
        self.forwards = self.backwards = 0
        # lowest and highest of the labels and targets to come, in case the model turns out to have fewer classes
        self.expected: dict[str, tuple[int, int]] = {}

    def allows(self, needs: Access) -> bool:
        return _RANK[self.gives] >= _RANK[needs]

    def differentiable(self, images: Tensor) -> Tensor:
        """(N, K) float32 logits, with a gradient where the images ask for one."""
        self.forwards += len(images)
        out = _said(self.model, images)
        if self.gives == "labels":
            if out.ndim == 1 and self.classes is None:
                raise UserError(
                    "A target that returns labels needs to know how many there are: Oracle(..., classes=K)."
                )
            labels = out if out.ndim == 1 else out.argmax(1)
            self._check_expected(self.classes or out.shape[1])
            return F.one_hot(labels.long(), self.classes or out.shape[1]).float()
        logits = rows(out, images).float()
        self._check_expected(logits.shape[1])
        return logits

    def _check_expected(self, outputs: int) -> None:
        for what, (lowest, highest) in self.expected.items():
            check_classes(lowest, highest, outputs, what)

    def logits(self, images: Tensor) -> Tensor:
        """(N, K) float32 logits, without a gradient (with `gives="labels"`: one-hot labels)."""
        with torch.no_grad():
            return self.differentiable(images)

    def looks(self, images: Tensor) -> Tensor:
        """(evaluations, N, K) float32 logits: what a verdict on the images rests on."""
        return torch.stack([self.logits(images) for _ in range(self.evaluations)])

    def gradient(
        self,
        images: Tensor,
        loss: Callable[[Tensor], Tensor],
        view: Callable[[Tensor, int], Tensor],
        views: int = 1,
        eot: int = 1,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (eot, N, K) and mean losses (N,) of view 0, and the gradient (N, C, H, W) by the image of each row's
        loss, averaged over all evaluations.

        loss: logits (N, K) -> (N,), never reduced. view: (images, i) -> what the model is shown as view i. eot: how
        often each view is shown, for the expectation over a randomised model (EOT, Athalye et al. 2018).
        """
        logits, losses, total = [], [], None
        for i in range(eot * views):
            with torch.enable_grad():
                leaf = images.detach().requires_grad_(True)
                z = self.differentiable(view(leaf, i % views))
                each = loss(z)
                with raised_by_the_model():
                    g = torch.autograd.grad(each.sum(), leaf, allow_unused=True)[0] if each.requires_grad else None
                if g is None:
                    raise NoGradientError(NO_GRADIENT)
            if i % views == 0:
                logits.append(z.detach())
                losses.append(each.detach())
            total = g.contiguous() if total is None else total.add_(g)
        self.backwards += eot * views * len(images)
        assert total is not None
        mean = total if eot * views == 1 else total.div_(eot * views)
        return torch.stack(logits), torch.stack(losses).mean(0), mean


def check_gradient(model: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """A `NoGradientError` for a model that gives none. Other errors of its backward pass are left to the attack."""
    with undisturbed(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on operations that have no gradient
        try:
            Oracle(model).gradient(images, lambda logits: logits.sum(1), lambda x, i: x)
        except NoGradientError:
            raise
        except Exception as error:
            if of_the_machine(error):
                raise
