"""The target as an attack sees it: gradients, scores or labels only, counted, with a query budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.errors import UserError

Access = Literal["gradient", "scores", "labels"]
_RANK: dict[str, int] = {"labels": 0, "scores": 1, "gradient": 2}


@contextmanager
def undisturbed(model: object) -> Iterator[None]:
    """The module in eval mode and with frozen parameters; every mode and flag is put back, also after an exception.

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
        yield
    finally:
        for m, training in modes:
            m.training = training
        for p in trainable:
            p.requires_grad_(True)


class Oracle:
    """What an attack may ask of a target.

    model: a module or any callable from images (N, C, H, W) in [0, 1] to logits (N, K); with `gives="labels"` it may
    return labels (N,) instead, and then needs `classes`. queries: the most forward passes a sample may cost.
    Counts every image that went through: `forwards`, `backwards`.

    >>> Oracle(nn.Flatten(), gives="scores").logits(torch.zeros(2, 1, 1, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        gives: Access = "gradient",
        queries: int | None = None,
        classes: int | None = None,
    ) -> None:
        if gives not in _RANK:
            raise UserError(f"gives must be gradient, scores or labels, got {gives!r}.")
        if queries is not None and queries < 1:
            raise UserError(f"queries must be at least 1, got {queries}.")
        self.model, self.gives, self.queries, self.classes = model, gives, queries, classes
        self.forwards = self.backwards = 0

    def allows(self, needs: Access) -> bool:
        return _RANK[self.gives] >= _RANK[needs]

    def _call(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        out = self.model(images)
        if self.gives == "labels":
            if out.ndim == 1 and self.classes is None:
                raise UserError(
                    "A target that returns labels needs to know how many there are: Oracle(..., classes=K)."
                )
            labels = out if out.ndim == 1 else out.argmax(1)
            return F.one_hot(labels.long(), self.classes or out.shape[1]).float()
        if out.ndim != 2 or len(out) != len(images):
            raise UserError(
                f"The model must return logits of shape (N, K); for images of shape {tuple(images.shape)}"
                f" it returned {tuple(out.shape)}."
            )
        return out.float()

    def logits(self, images: Tensor) -> Tensor:
        """(N, K) float32 logits, without a gradient (with `gives="labels"`: one-hot labels)."""
        with torch.no_grad():
            return self._call(images)

    def gradient(
        self, images: Tensor, loss: Callable[[Tensor], Tensor], view: Callable[[Tensor, int], Tensor], views: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and losses of view 0, and the gradient by the image of each row's loss, averaged over the views.

        loss: logits (N, K) -> (N,), never reduced. view: (images, i) -> what the model is shown as view i.
        """
        total: Tensor | None = None
        for i in range(views):
            with torch.enable_grad():
                leaf = images.detach().requires_grad_(True)
                logits = self._call(view(leaf, i))
                losses = loss(logits)
                (g,) = torch.autograd.grad(losses.sum(), leaf)
            if total is None:
                first = logits.detach(), losses.detach()
            total = g.contiguous() if total is None else total.add_(g)
        self.backwards += views * len(images)
        assert total is not None
        return *first, total if views == 1 else total.div_(views)
