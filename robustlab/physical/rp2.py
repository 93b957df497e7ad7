"""RP2: stickers that survive distance, angle and light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.oracle import ask, undisturbed
from robustlab.physical.fitted import State, Watch, adam, unwatched
from robustlab.physical.masks import SEARCH, SOLID, best_blocks, mask_of
from robustlab.physical.palette import PRINTABLE, hard, mixed, non_printability, total_variation
from robustlab.physical.sticker import Sticker, stuck
from robustlab.worlds.road_signs import CLASSES, Ranges, Scenes, draw, faces, prepare, render

SHARP = 10.0  # how much sharper the mixtures are in the end
CHOOSE = 256  # scenes in which the mask is chosen


@dataclass(frozen=True)
class RP2:
    """Robust physical perturbations (Eykholt et al. 2018, arXiv:1707.08945), in printable colours by construction.

    The mean of the loss over sampled scenes is minimised through the renderer (expectation over transformation, Athalye
    et al. 2018, arXiv:1707.07397). Each texel is a mixture of printable colours that grows sharper with the steps, and
    is one of them in the end, so that what is printed is what was judged.

    mask: see `masks.MASKS`, the path of a picture, or `search`: the whole face is fitted under an L1 penalty on the
    change (half of `steps`), the blocks that changed most are kept, up to `share` of the face and `pieces` stickers,
    and fitted for a fifth of the steps. Of `tries` such searches the mask with the least loss is fitted with all steps.
    printable: False fits free colours, for comparison; `non_printability` then weighs their distance to the printable
    ones (Sharif et al. 2016). expectation: False fits one scene only, to show what the expectation is for.
    """

    source: str = "stop"
    target: str = "speed limit 45"  # empty: any other class
    mask: str = SEARCH
    share: float = 0.20
    pieces: int = 6
    blocks: int = 16  # of a side, in the search
    tries: int = 3  # searches
    steps: int = 300
    scenes: int = 32  # rendered in each step
    lr: float = 0.3
    variation: float = 0.02  # weight of the total variation
    sparse: float = 0.5  # weight of the L1 penalty, in the search
    texels: int = 64
    printable: bool = True
    non_printability: float = 0.0
    expectation: bool = True
    ranges: Ranges = Ranges()

    def __post_init__(self) -> None:
        for name in (self.source, *filter(None, [self.target])):
            if name not in CLASSES:
                raise UserError(f"There is no sign {name!r}. Known: {', '.join(CLASSES)}.")
        for whole in ("pieces", "blocks", "tries", "steps", "scenes", "texels"):
            check_whole(whole, getattr(self, whole), 1)
        if self.non_printability and self.printable:
            raise UserError("non_printability is for free colours: say printable = false, too, or leave it out.")
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
        fit = _Fit(self, classifier, face, size, seed, watch)
        with undisturbed(classifier), torch.enable_grad():
            if self.mask == SEARCH:
                mask, state = self._search(fit, state)
            else:
                mask = mask_of(self.mask, face)
            return fit.sticker(fit.run(mask, self.steps, state, first=self.all_steps - self.steps), mask)

    def _search(self, fit: _Fit, state: State | None) -> tuple[Tensor, State | None]:
        """The best mask, and the state of a stopped fit where that was already in it."""
        whole, state = fit.face[3] > SOLID, dict(state or {})
        masks, losses = list(state.pop("masks", torch.zeros(0))), state.pop("losses", torch.zeros(0)).tolist()
        moving: State | None = state or None
        while len(losses) < self.tries:
            first = len(losses) * (self.search_steps + self.trial_steps)
            kept = {"losses": torch.tensor(losses)} | ({"masks": torch.stack(masks)} if masks else {})
            if len(masks) == len(losses):
                z = fit.run(whole, self.search_steps, moving, first, self.sparse, kept)
                change = (fit.sticker(z, whole).on(fit.face) - fit.face).abs().sum(0)
                masks.append(best_blocks(change, fit.face, self.share, self.blocks, self.pieces))
            else:
                z = fit.run(masks[-1], self.trial_steps, moving, first + self.search_steps, kept=kept)
                losses.append(fit.loss(fit.sticker(z, masks[-1])))
            moving = None
        fit.kept = {"losses": torch.tensor(losses), "masks": torch.stack(masks)}
        return masks[int(torch.tensor(losses).argmin())], moving

    @property
    def search_steps(self) -> int:
        """Of each search, on the whole face."""
        return max(1, self.steps // 2)

    @property
    def trial_steps(self) -> int:
        """Of each mask that was found, before the best is chosen."""
        return max(1, self.steps // 5)

    @property
    def all_steps(self) -> int:
        """Of the searches, the trials and the fit."""
        return self.steps + (self.tries * (self.search_steps + self.trial_steps) if self.mask == SEARCH else 0)

    def without_expectation(
        self, classifier: Callable[[Tensor], Tensor], mask: Tensor, size: int = 32, seed: int = 0
    ) -> Sticker:
        """The same fit in a given mask (P, P), to one scene only."""
        fit = _Fit(
            replace(self, expectation=False), classifier, faces()[CLASSES.index(self.source)], size, seed, unwatched
        )
        with undisturbed(classifier), torch.enable_grad():
            return fit.sticker(fit.run(mask, self.steps, None), mask)


@dataclass
class _Fit:
    """A fit on the bare face (4, P, P). kept: what the state says of the searches before."""

    attack: RP2
    classifier: Callable[[Tensor], Tensor]
    face: Tensor
    size: int
    seed: int
    watch: Watch
    kept: State = field(default_factory=dict)

    def run(
        self,
        mask: Tensor,
        steps: int,
        state: State | None,
        first: int = 0,
        sparse: float = 0.0,
        kept: State | None = None,
    ) -> Tensor:
        """(K, t, t) logits over the palette, or (3, t, t) of free colours. first: the number of the first step."""
        attack = self.attack
        weight = F.adaptive_avg_pool2d(mask[None].float(), attack.texels)[0]
        small = F.adaptive_avg_pool2d(self.face[None, :3], attack.texels)[0]
        z = self._start(small, 1.0 if sparse else 0.2)
        moving = {"z": z, "m": torch.zeros_like(z), "v": torch.zeros_like(z), "step": torch.tensor(0)}
        if state is not None:
            moving = {key: value.clone() for key, value in state.items()}
        for step in range(int(moving["step"]), steps):
            z = moving["z"].requires_grad_(True)
            texture = mixed(z, PRINTABLE, SHARP ** (step / steps)) if attack.printable else z.sigmoid()
            scenes = self.scenes(first + step)
            x = render(prepare(stuck(texture, mask, self.face)[None], self.size), scenes)
            loss = self._loss(ask(self.classifier, x)) + attack.variation * total_variation(texture, weight)
            if attack.non_printability:
                loss = loss + attack.non_printability * non_printability(texture, weight, PRINTABLE)
            if sparse:
                loss = loss + sparse * ((texture - small).abs().sum(0) * weight).sum() / weight.sum()
            (gradient,) = torch.autograd.grad(loss, z)
            moving = adam(moving, gradient, attack.lr)
            self.watch(first + step, float(loss.detach()), moving | (self.kept if kept is None else kept))
        return moving["z"].detach()

    def sticker(self, z: Tensor, mask: Tensor) -> Sticker:
        texture = hard(z, PRINTABLE) if self.attack.printable else (z.sigmoid() * 255).round() / 255
        return Sticker(texture, mask, self.attack.source, self.attack.target)

    def loss(self, sticker: Sticker) -> float:
        """Of a finished sticker, in scenes of its own."""
        scenes = draw(self.seed, "sticker, choose", torch.arange(CHOOSE), self._label, self.attack.ranges)
        with torch.no_grad():
            return float(self._loss(ask(self.classifier, sticker.render(scenes, self.size))))

    def _start(self, small: Tensor, sure: float) -> Tensor:
        """The face itself (3, t, t), as logits."""
        t = small.shape[-1]
        if not self.attack.printable:
            return small.clamp(0.02, 0.98).logit() * sure
        return -10 * sure * torch.cdist(small.permute(1, 2, 0).reshape(-1, 3), PRINTABLE).T.reshape(-1, t, t)

    @property
    def _label(self) -> int:
        return CLASSES.index(self.attack.source)

    def scenes(self, step: int) -> Scenes:
        """Those of a step; no two steps share one, unless the fit is to one scene."""
        attack = self.attack
        if attack.expectation:
            index = torch.arange(step * attack.scenes, (step + 1) * attack.scenes)
            return draw(self.seed, "sticker, fit", index, self._label, attack.ranges)
        one = draw(self.seed, "sticker, fit", torch.zeros(4, dtype=torch.long), self._label, attack.ranges)
        return one.override(
            distance=8.0, yaw=0.0, pitch=0.0, roll=0.0, light=0.6, occlusion=0.0, shadow=0.0, haze=0.0, motion=0.0
        )

    def _loss(self, logits: Tensor) -> Tensor:
        if self.attack.target:
            return F.cross_entropy(logits, torch.full((len(logits),), CLASSES.index(self.attack.target)))
        return -F.cross_entropy(logits, torch.full((len(logits),), self._label)).clamp(max=10)
