"""RP2: stickers that survive distance, angle and light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.oracle import ask, undisturbed
from robustlab.physical.fitted import State, Watch, adam, unwatched
from robustlab.physical.masks import SEARCH, best_blocks, mask_of
from robustlab.physical.palette import PRINTABLE, hard, mixed, total_variation
from robustlab.physical.sticker import Sticker, stuck
from robustlab.worlds.road_signs import CLASSES, Ranges, Scenes, draw, faces, prepare, render

SHARP = 10.0  # how much sharper the mixtures are in the end


@dataclass(frozen=True)
class RP2:
    """Robust physical perturbations (Eykholt et al. 2018, arXiv:1707.08945), in printable colours by construction.

    The mean of the loss over sampled scenes is minimised through the renderer (expectation over transformation, Athalye
    et al. 2018, arXiv:1707.07397). Each texel is a mixture of printable colours that grows sharper with the steps, and
    is one of them in the end, so that what is printed is what was judged.

    mask: see `masks.MASKS`, the path of a picture, or `search`: the whole face is fitted under an L1 penalty on the
    change, the blocks that changed most are kept, up to `share` of the face and `pieces` stickers, and fitted again.
    expectation: False fits one scene only, to show what the expectation is for.
    """

    source: str = "stop"
    target: str = "speed limit 45"  # empty: any other class
    mask: str = SEARCH
    share: float = 0.20
    pieces: int = 6
    blocks: int = 16  # of a side, in the search
    steps: int = 300
    scenes: int = 32  # rendered in each step
    lr: float = 0.3
    variation: float = 0.02  # weight of the total variation
    sparse: float = 0.5  # weight of the L1 penalty, in the search
    texels: int = 64
    expectation: bool = True
    ranges: Ranges = Ranges()

    def __post_init__(self) -> None:
        for name in (self.source, *filter(None, [self.target])):
            if name not in CLASSES:
                raise UserError(f"There is no sign {name!r}. Known: {', '.join(CLASSES)}.")
        if self.source == self.target:
            raise UserError(f"The target is the sign itself, {self.source!r}. Give another target.")

    def fit(
        self,
        classifier: Callable[[Tensor], Tensor],
        size: int = 32,
        seed: int = 0,
        state: State | None = None,
        watch: Watch | None = None,
    ) -> Sticker:
        """The fitted sticker. classifier: images (B, 3, size, size) -> logits, one output for each of `CLASSES`.

        state: of a fit that was stopped, as `watch` got it; the result is the same as of one that was not. watch: is
        told each step, its loss and the state after it.
        """
        face, watch = faces()[CLASSES.index(self.source)], watch or unwatched
        with undisturbed(classifier), torch.enable_grad():
            if self.mask != SEARCH:
                mask = mask_of(self.mask, face)
                logits = self._fitted(classifier, face, mask, size, seed, state, watch, sparse=0.0, first=0)
            else:
                if state is None or "mask" not in state:
                    whole = face[3] > 0.99
                    logits = self._fitted(classifier, face, whole, size, seed, state, watch, self.sparse, first=0)
                    change = (stuck(hard(logits, PRINTABLE), whole, face) - face).abs().sum(0)
                    mask, state = best_blocks(change, face, self.share, self.blocks, self.pieces), None
                else:
                    mask = state["mask"]
                logits = self._fitted(classifier, face, mask, size, seed, state, watch, sparse=0.0, first=self.steps)
        return Sticker(hard(logits, PRINTABLE), mask, self.source, self.target)

    @property
    def fits(self) -> int:
        """How often all steps are taken: a search fits the whole face first."""
        return 2 if self.mask == SEARCH else 1

    def without_expectation(
        self, classifier: Callable[[Tensor], Tensor], mask: Tensor, size: int = 32, seed: int = 0
    ) -> Sticker:
        """The same fit in a given mask (P, P), to one scene only."""
        face = faces()[CLASSES.index(self.source)]
        attack = replace(self, expectation=False)
        with undisturbed(classifier), torch.enable_grad():
            logits = attack._fitted(classifier, face, mask, size, seed, None, unwatched, sparse=0.0, first=0)
        return Sticker(hard(logits, PRINTABLE), mask, self.source, self.target)

    def _fitted(
        self,
        classifier: Callable[[Tensor], Tensor],
        face: Tensor,
        mask: Tensor,
        size: int,
        seed: int,
        state: State | None,
        watch: Watch,
        sparse: float,
        first: int,
    ) -> Tensor:
        """(K, t, t) logits over the palette."""
        t = self.texels
        weight = F.adaptive_avg_pool2d(mask[None].float(), t)[0]
        small = F.adaptive_avg_pool2d(face[None, :3], t)[0]
        z = -10 * torch.cdist(small.permute(1, 2, 0).reshape(-1, 3), PRINTABLE).T.reshape(-1, t, t)
        z = z * 0.2 if not sparse else z
        moving = {"z": z, "m": torch.zeros_like(z), "v": torch.zeros_like(z), "step": torch.tensor(0)}
        if state is not None:
            moving = {key: value.clone() for key, value in state.items() if key != "mask"}
        for step in range(int(moving["step"]), self.steps):
            done = step / self.steps
            z = moving["z"].requires_grad_(True)
            texture = mixed(z, PRINTABLE, SHARP**done)
            x = render(prepare(stuck(texture, mask, face)[None], size), self._scenes(seed, first + step))
            loss = self._loss(ask(classifier, x)) + self.variation * total_variation(texture, weight)
            if sparse:
                loss = loss + sparse * ((texture - small).abs().sum(0) * weight).sum() / weight.sum()
            (gradient,) = torch.autograd.grad(loss, z)
            moving = adam(moving, gradient, self.lr)
            watch(first + step, float(loss.detach()), moving | ({"mask": mask} if first else {}))
        return moving["z"].detach()

    def _scenes(self, seed: int, step: int) -> Scenes:
        label = CLASSES.index(self.source)
        if self.expectation:
            index = torch.arange(step * self.scenes, (step + 1) * self.scenes)
            return draw(seed, "sticker, fit", index, label, self.ranges)
        one = draw(seed, "sticker, fit", torch.zeros(4, dtype=torch.long), label, self.ranges)
        return one.override(
            distance=8.0, yaw=0.0, pitch=0.0, roll=0.0, light=0.6, occlusion=0.0, shadow=0.0, haze=0.0, motion=0.0
        )

    def _loss(self, logits: Tensor) -> Tensor:
        if self.target:
            return F.cross_entropy(logits, torch.full((len(logits),), CLASSES.index(self.target)))
        return -F.cross_entropy(logits, torch.full((len(logits),), CLASSES.index(self.source))).clamp(max=10)
