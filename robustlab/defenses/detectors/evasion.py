"""The attack that knows the detector: a wrong answer first, then a score as low as it can get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.attacks.losses import margin
from robustlab.base.draws import keys, pixel_ids
from robustlab.base.errors import UserError
from robustlab.base.given import check_module, images_of, labels_of
from robustlab.base.typed import check_whole
from robustlab.defenses.detectors.base import Detector
from robustlab.oracle import NO_GRADIENT, NoGradientError, raised_by_the_model, undisturbed
from robustlab.threat.geometry import column, project, random_start, steepest
from robustlab.threat.model import BUDGET_NORMS, Norm, check_eps, parse_eps

PATIENCE = 8  # steps without a lower score, after which a row goes back to its best point with half the step
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Evaded:
    """What `Evasion` did to each of n images.

    images: the misclassified point with the smallest score, where none was found the last one. success: misclassified
    and inside the budget. score: of that point, infinite without success.
    """

    images: Tensor
    success: Tensor
    score: Tensor


@dataclass(frozen=True)
class Evasion:
    """Selective gradient descent on classifier and detector (Bryniarski et al. 2021, arXiv:2106.15023, section 4).

    Where a point is not misclassified, a step along the gradient of the classifier's margin; where it is, a step along
    that of the detector's score, downwards. The misclassified point with the smallest score is kept. norm: linf, l2 or
    l1. steps: gradient queries. step_size: to begin with, default eps / 4; halved for an image whose score has not
    fallen for 8 steps, which then goes on from its best point. One image does not depend on the others.

    >>> from robustlab.defenses.detectors import Confidence
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> found = Evasion(Confidence(), eps="8/255", steps=5).run(net, x, y)
    >>> bool(((found.images - x).abs() <= 8 / 255 + 1e-6).all())
    True
    """

    detector: Detector
    norm: Norm = "linf"
    eps: float = 8 / 255
    steps: int = 100
    step_size: float | None = None

    def __post_init__(self) -> None:
        if self.norm not in BUDGET_NORMS:
            raise UserError(f"Evasion knows the norms {', '.join(BUDGET_NORMS)}, got {self.norm!r}.")
        object.__setattr__(self, "eps", check_eps(self.norm, parse_eps(self.eps)))
        check_whole("steps", self.steps, 1)
        if self.step_size is not None:
            object.__setattr__(self, "step_size", parse_eps(self.step_size, "step_size"))

    def run(
        self,
        classifier: Model,
        images: Tensor,
        labels: Tensor,
        *,
        start: Tensor | None = None,
        ids: Tensor | None = None,
        seed: int = 0,
        batch_size: int = 128,
    ) -> Evaded:
        """The attack on n images (n, C, H, W) in [0, 1] with labels (n,).

        start: (n, C, H, W) points to begin at, such as those of an attack that does not know the detector: the score
        then ends no higher than theirs. Default: random points of the ball, keyed by seed and ids (default: a hash of
        the pixels). The classifier is put into eval mode and left as it was found.
        """
        x = images_of(images).detach().float().contiguous()
        y = labels_of(labels, len(x)).to(x.device)
        check_module(classifier, x.device)
        check_whole("batch_size", batch_size, 1)
        ids = pixel_ids(x) if ids is None else labels_of(ids, len(x), "ids").to(x.device)
        if start is None:
            start = random_start(x, self.norm, self.eps, keys(seed, ids, "evasion"))
        if start.shape != x.shape:
            raise UserError(f"start must have the shape of the images, {tuple(x.shape)}, got {tuple(start.shape)}.")
        first = project(start.to(x), x, self.norm, self.eps)
        with torch.inference_mode(False), undisturbed(classifier):
            parts = [
                self._batch(classifier, *part)
                for part in zip(x.split(batch_size), y.split(batch_size), first.split(batch_size), strict=True)
            ]
        return Evaded(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _batch(self, classifier: Model, x: Tensor, y: Tensor, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(images, success, score) of one batch; point: where it begins, inside the ball."""
        best, low = point, torch.full(y.shape, torch.inf, dtype=torch.float64, device=x.device)
        slope = torch.zeros_like(x)  # the gradient at the best point
        length = self.eps / 4 if self.step_size is None else self.step_size
        size, idle = torch.full(y.shape, length, device=x.device), torch.zeros_like(y)
        for step in range(self.steps + 1):
            found, score, gradient = self._asked(classifier, point, y, step < self.steps)
            better = found & (score < low)
            wide = column(better, x)
            best, slope = torch.where(wide, point, best), torch.where(wide, gradient, slope)
            low = torch.where(better, score, low)
            idle = torch.where(better | low.isinf(), 0, idle + 1)
            if step == self.steps:
                break
            back = idle >= PATIENCE
            size, idle = torch.where(back, size / 2, size), torch.where(back, 0, idle)
            wide = column(back, x)
            point, gradient = torch.where(wide, best, point), torch.where(wide, slope, gradient)
            point = project(point + steepest(gradient, point, self.norm, 1.0) * column(size, x), x, self.norm, self.eps)
        success = low.isfinite()
        return torch.where(column(success, x), best, point), success, low

    def _asked(self, classifier: Model, point: Tensor, y: Tensor, moves: bool) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) misclassified, (B,) score, and the gradient of what each row wants to raise (zero on the last look)."""
        with torch.enable_grad() if moves else torch.no_grad():
            leaf = point.detach().requires_grad_(moves)
            logits = self.detector.logits(classifier, leaf)
            score, lead = self.detector.score(logits), margin(logits[0], y)
            found = (logits[0].argmax(1) != y) & score.isfinite() & logits.isfinite().all(2).all(0)
            if not moves:
                return found, score, torch.zeros_like(point)
            goal = torch.where(found, -score, lead)
            with raised_by_the_model():
                gradient = torch.autograd.grad(goal.sum(), leaf, allow_unused=True)[0] if goal.requires_grad else None
        if gradient is None:
            raise NoGradientError(NO_GRADIENT)
        return found, score.detach(), gradient.contiguous().nan_to_num()
