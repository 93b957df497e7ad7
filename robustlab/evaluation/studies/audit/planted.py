"""A model in which an adversarial example of each of some images is known to exist.

The binarisation test of Zimmermann et al. 2022 (arXiv:2206.13991) gives each image a classifier of its own: a linear
head on features of the model, which tells points well inside the budget from a random point at its edge. Here the head
takes the place of one output of the model's last linear layer, the runner-up's (targeted: the target's). Its scale and
its offset leave the clean image the model's own outputs; the other outputs stay as they are there. So all that lies
before and behind that layer still acts: noise and rounding of the image, a temperature, a saturation.

Where the answers do not come from one last linear layer alone, the features are the model's outputs, and the head
stands behind them. A mask behind the logits is then part of the features, and few examples can be planted, or none.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustlab.base.draws import keys
from robustlab.evaluation.studies.audit.noise import at_edge
from robustlab.oracle import ask, undisturbed
from robustlab.threat.geometry import distance
from robustlab.threat.model import ThreatModel, allowed

INNER = 24  # points well inside the budget
RADIUS = 0.9  # of the budget: the farthest of them
EDGE = 4  # points at the edge, of which the one that differs most from the inner points is planted
RIDGE = 0.1  # of the mean square length of the inner features
CLOSE = 0.95  # of the way from the highest score of an inner point to that of the planted one lies the threshold
APART = 0.5  # the highest score of an inner point has to be less than this share of the planted one's


class Images(NamedTuple):
    """n images (n, C, H, W), their labels and ids, and the targets of a targeted threat."""

    x: Tensor
    y: Tensor
    ids: Tensor
    targets: Tensor | None

    def take(self, index: Tensor) -> Images:
        return Images(*(None if each is None else each[index] for each in self))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Heads:
    """The head of each of n images: the score of features f is `weight * (f - origin)`, summed, over `threshold`.

    weight, origin: (n, d). threshold: (n,). outputs: (n, K), of the last linear layer on the clean images. column:
    (n,), which of them the head moves. At a score of 0 it has its clean value, at 1 that of the largest.
    """

    weight: Tensor
    origin: Tensor
    threshold: Tensor
    outputs: Tensor
    column: Tensor

    def take(self, index: Tensor) -> Heads:
        return Heads(*(each[index] for each in vars(self).values()))

    def __call__(self, features: Tensor, which: Tensor) -> Tensor:
        """(N, K) outputs for features (N, d) of points near the images `which` (N,)."""
        here = self.take(which)
        score = ((features.float() - here.origin) * here.weight).sum(1) / here.threshold
        clean = here.outputs.gather(1, here.column[:, None])[:, 0]
        moved = clean + (here.outputs.amax(1) - clean) * score
        at = torch.arange(here.outputs.shape[1], device=features.device) == here.column[:, None]
        return torch.where(at, moved[:, None], here.outputs).to(features.dtype)


class Planted(nn.Module):
    """The model with a head for each of n images x (n, C, H, W); a query is taken to belong to the nearest of them."""

    def __init__(self, model: nn.Module, layer: nn.Module | None, x: Tensor, norm: str, heads: Heads) -> None:
        super().__init__()
        self.model, self.layer, self.x, self.norm, self.heads = model, layer, x, norm, heads
        self.p = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}[norm]

    def take(self, index: Tensor) -> Planted:
        return Planted(self.model, self.layer, self.x[index], self.norm, self.heads.take(index))

    def forward(self, x: Tensor) -> Tensor:
        which = torch.cdist(x.detach().flatten(1), self.x.flatten(1), p=self.p).argmin(1)
        if self.layer is None:
            return self.heads(ask(self.model, x), which)
        with self.layer.register_forward_hook(lambda module, given, out: self.heads(given[0], which)):
            return ask(self.model, x)


def plant(
    model: nn.Module, images: Images, threat: ThreatModel, seed: int, size: int
) -> tuple[Planted, Tensor, Tensor]:
    """The model with heads, the planted points (n, C, H, W), and (n,) bool: does the head tell them from inner points?

    images: n that the model answers right. size: of a batch. What the model with heads says of clean images and of
    planted points is for the caller to ask.
    """
    x, _, ids, targets = images
    layer = last_linear(model, x[: max(2, min(size, 8))])
    origin, outputs = features_of(model, layer, x, size)

    def seen(purpose: str, number: int, radius: float) -> tuple[Tensor, Tensor]:
        points = at_edge(x, threat.norm, radius * threat.eps, keys(seed, ids, purpose, number))
        return points, features_of(model, layer, points, size)[0] - origin

    inner = torch.stack([seen("planted, inner", j, RADIUS * (j + 1) / INNER)[1] for j in range(INNER)], 1)
    drawn = [seen("planted, edge", j, 1.0) for j in range(EDGE)]
    points, edge = (torch.stack(each, 1) for each in zip(*drawn, strict=True))
    weight = ridge(inner, edge)
    scores = (weight * edge).sum(2)  # (n, EDGE)
    below = (weight @ inner.mT).amax(2).clamp_min(0)  # the clean image has the score 0
    here, best = torch.arange(len(x), device=x.device), (below / scores.clamp_min(1e-30)).argmin(1)
    scores, below, weight, points = (each[here, best] for each in (scores, below, weight, points))
    top = outputs.argmax(1)
    column = outputs.scatter(1, top[:, None], -torch.inf).argmax(1) if targets is None else targets
    heads = Heads(weight, origin, below + CLOSE * (scores - below), outputs, column)
    apart = (below < APART * scores) & (column != top) & (distance(points - x, threat.norm) <= allowed(threat.eps))
    return Planted(model, layer, x, threat.norm, heads), points, apart


def ridge(inner: Tensor, edge: Tensor) -> Tensor:
    """(n, e, d) unit vectors along which the edge points (n, e, d) are far out and the inner ones (n, m, d) are not.

    Ridge regression: (inner' inner + r)^-1 edge, from m x m systems (Woodbury).

    >>> inner, edge = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]), torch.tensor([[[1.0, 1.0]]])
    >>> [round(value, 2) for value in ridge(inner, edge).flatten().tolist()]
    [0.05, 1.0]
    """
    gram = (inner @ inner.mT).double()
    size = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)
    gram = gram + size[:, None, None] * torch.eye(inner.shape[1], dtype=gram.dtype, device=gram.device)
    share = torch.linalg.solve(gram, (inner @ edge.mT).double()).to(inner.dtype)
    weight: Tensor = edge - (inner.mT @ share).mT
    length: Tensor = weight.norm(dim=2, keepdim=True).clamp_min(1e-30)
    return weight / length


def last_linear(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The last linear layer that is called for images x, if their answers follow from its outputs alone."""
    called: list[tuple[nn.Module, Any]] = []
    found: list[tuple[Tensor, Tensor]] = []

    def same(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        """The first image's outputs for all."""
        found.append((given[0], out))
        return out[:1].expand_as(out).clone()

    with torch.no_grad(), undisturbed(model):
        with ExitStack() as hooks:
            for module in model.modules():
                if isinstance(module, nn.Linear):
                    hooks.enter_context(module.register_forward_hook(lambda m, given, out: called.append((m, given))))
            classes = ask(model, x).shape[1]
        if len(x) < 2 or not called or not called[-1][1] or sum(m is called[-1][0] for m, _ in called) > 1:
            return None  # one image shows nothing; given by name, its input is not seen
        last = called[-1][0]
        with last.register_forward_hook(same):
            answers = ask(model, x).float()
    features, out = found[0]
    if features.ndim != 2 or out.shape != (len(x), classes):
        return None
    alone = (answers - answers[:1]).abs().amax() <= 1e-5 * (1 + answers.abs().amax())
    return last if bool(alone) else None


def features_of(model: nn.Module, layer: nn.Module | None, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(n, d) what goes into the layer and (n, K) what comes out, float32; without a layer twice the model's outputs."""
    found: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad(), undisturbed(model), ExitStack() as hooks:
        if layer is not None:
            hooks.enter_context(layer.register_forward_hook(lambda m, given, out: found.append((given[0], out))))
        for part in x.split(size):
            out = ask(model, part)
            if layer is None:
                found.append((out, out))
    features, outputs = zip(*found, strict=True)
    return torch.cat(features).float(), torch.cat(outputs).float()
