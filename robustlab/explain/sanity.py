"""Does a heatmap say anything about the model? Randomised layers, and deletion and insertion against a random order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.draws import keys, uniform
from robustlab.base.errors import RunError
from robustlab.base.intervals import Mean, mean_interval
from robustlab.explain.shifts import means, spearman
from robustlab.oracle import ask, forked, undisturbed

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, images, classes) -> maps (N, H, W)
ALIKE = 0.5  # a rank correlation with the maps of a random model that is too much
STEPS = 16  # of a deletion or insertion curve
_CELLS = 16  # along the longer side


@dataclass(frozen=True)
class Check:
    """What a check found. passed: None where there are too few maps to judge. curve: for a chart, name and value."""

    name: str
    passed: bool | None
    value: Mean
    says: str
    zero: int = 0
    curve: Sequence[tuple[str, float | None]] = field(default=())


def randomisation(
    explain: Explain, model: nn.Module, images: Tensor, classes: Tensor, *, seed: int = 0, stages: int = 6
) -> Check:
    """Do the maps change when the model's layers are replaced by random ones, from the last to the first?

    Adebayo et al. (2018), "Sanity checks for saliency maps", https://arxiv.org/abs/1810.03292: the cascading
    randomisation, in at most `stages` steps. Value: the rank correlation of the maps with those of the wholly random
    model, with or without absolute values, as the paper has both: whichever is larger. (Where the signs of a map become
    random and its outline stays, the plain correlation is 0.) It passes where the upper end of the interval is below
    `ALIKE`: a map that stays the same says nothing of what the model has learned. `curve` has each step, for a method
    that changes late has to do with the lower layers alone. Zero maps are counted and left out.
    """
    before = explain(model, images, classes)
    curve: list[tuple[str, float | None]] = []
    found, zero = mean_interval([]), 0
    for name, other in _cascade(model, seed, stages):
        try:
            after = explain(other, images, classes)
        except RunError:  # NaN: nothing to compare
            after = torch.zeros_like(before)
        both = [spearman(before, after), spearman(before.abs(), after.abs())]
        each = max(both, key=lambda values: float(values.nanmean().nan_to_num(-1)))
        found = means({"spearman": each[each.isfinite()].tolist()})["spearman"]
        zero = int((~each.isfinite()).sum())
        curve.append((name, found["mean"]))
    passed = None if found["high"] is None else found["high"] < ALIKE
    says = (
        "It changes with the model's weights."
        if passed
        else "Too few maps to judge."
        if passed is None
        else "It is much the same for a model with random weights, or that cannot be excluded: it shows the image"
        " rather than the model."
    )
    return Check("randomised layers", passed, found, says, zero, curve)


def _cascade(model: nn.Module, seed: int, stages: int) -> Iterator[tuple[str, nn.Module]]:
    """A copy of the model, of which ever more layers are random; the name of the layer that was reached."""
    other = copy.deepcopy(model)
    own = [(name, m) for name, m in other.named_modules() if any(p is not None for p in m._parameters.values())][::-1]
    size = -(-len(own) // stages)
    for start in range(0, len(own), size):
        for name, module in own[start : start + size]:
            _randomise(name, module, seed)
        yield own[min(start + size, len(own)) - 1][0] or "the model's own parameters", other


def randomised(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy of the model with random numbers in all layers: the last step of `randomisation`.

    >>> net = nn.Linear(4, 2)
    >>> bool((randomised(net).weight == net.weight).any())
    False
    """
    ((_, other),) = _cascade(model, seed, 1)
    return other


def _randomise(name: str, module: nn.Module, seed: int) -> None:
    """As the layer's class begins; a layer that does not say how gets its own numbers in a random order."""
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    own = [p for p in module._parameters.values() if p is not None]
    with torch.no_grad():
        if callable(reset):
            with forked(own[0].device, seed, name):
                reset()
            return
        for at, p in enumerate(own):
            order = uniform(keys(seed, torch.tensor([at]), name), (p.numel(),))[0].argsort().to(p.device)
            p.copy_(p.flatten()[order].view_as(p))


def deletion(model: nn.Module, images: Tensor, classes: Tensor, maps: Tensor, *, seed: int = 0) -> Check:
    """Does the class's probability fall faster when the hottest places are covered first than in a random order?

    Petsiuk et al. (2018), "RISE", https://arxiv.org/abs/1806.07421, with cells of the image instead of pixels. They are
    covered by the image's mean colour. Value: the mean probability over the steps in the random order, less that in
    the map's order. It passes where the whole interval lies above 0.
    """
    return _judged("deletion", model, images, classes, maps, images.mean((2, 3), keepdim=True), images, seed)


def insertion(model: nn.Module, images: Tensor, classes: Tensor, maps: Tensor, *, seed: int = 0) -> Check:
    """Does the probability rise faster when the hottest places of a blurred image are made sharp first?

    As `deletion`, the other way round: value is the map's order less the random one.
    """
    side = max(3, min(images.shape[2:]) // 4) | 1
    blurred = images
    for _ in range(2):
        blurred = F.avg_pool2d(blurred, side, 1, side // 2, count_include_pad=False)
    return _judged("insertion", model, images, classes, maps, images, blurred, seed)


def _judged(
    name: str, model: nn.Module, images: Tensor, classes: Tensor, maps: Tensor, new: Tensor, old: Tensor, seed: int
) -> Check:
    there = maps.flatten(1).abs().amax(1) > 0
    heat = _cells(maps)
    random = uniform(keys(seed, torch.arange(len(maps)), "order"), heat.shape[1:]).to(heat.device)
    own, other = (
        _curve(model, new.expand_as(images)[there], old[there], classes[there], order[there])
        for order in (heat, random)
    )
    sign = 1.0 if name == "insertion" else -1.0
    gain = mean_interval((sign * (own - other).mean(1)).tolist())
    passed = None if gain["low"] is None else gain["low"] > 0
    what = {
        True: "It finds what the model needs faster than a random order does.",
        False: "It is not shown to be better than a random order.",
        None: "Too few maps to judge.",
    }
    points = own.mean(0).tolist() if len(own) else []
    return Check(
        name,
        passed,
        gain,
        what[passed],
        int((~there).sum()),
        [(f"{at / STEPS:.0%}", value) for at, value in enumerate(points)],
    )


def _cells(maps: Tensor) -> Tensor:
    """(N, a, b) mean heat in each cell."""
    side = -(-max(maps.shape[1:]) // _CELLS)
    return F.avg_pool2d(maps[:, None].float(), side, ceil_mode=True, count_include_pad=False)[:, 0]


def _curve(model: nn.Module, new: Tensor, old: Tensor, classes: Tensor, order: Tensor) -> Tensor:
    """(N, STEPS + 1) the class's probability, while the cells with the largest values change from old to new."""
    place = order.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(1).view_as(order)
    count = order[0].numel() if len(order) else 0
    side = -(-max(new.shape[2:]) // _CELLS)
    large = place.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None, : new.shape[2], : new.shape[3]]
    found = []
    with torch.no_grad(), undisturbed(model):
        for step in range(STEPS + 1):
            if not len(new):
                break
            shown = torch.where(large < round(step * count / STEPS), new, old)
            logits = torch.cat([ask(model, x) for x in shown.split(64)])
            found.append(logits.float().softmax(1).gather(1, classes[:, None].to(logits.device))[:, 0].cpu())
    return torch.stack(found, 1) if found else torch.zeros(0, STEPS + 1)


def checks(explain: Explain, model: nn.Module, images: Tensor, classes: Tensor, *, seed: int = 0) -> list[Check]:
    """All three; a method is worth trusting on these images where each has passed.

    explain: as `lambda model, x, k: draw("grad-cam", model, x, k).maps`.
    """
    maps = explain(model, images, classes)
    return [
        randomisation(explain, model, images, classes, seed=seed),
        deletion(model, images, classes, maps, seed=seed),
        insertion(model, images, classes, maps, seed=seed),
    ]


def drawn_by(name: str, **more: Any) -> Explain:
    """A method by its name as the checks take it.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> drawn_by("saliency")(net, torch.rand(1, 1, 2, 2), torch.tensor([0])).shape
    torch.Size([1, 2, 2])
    """
    from robustlab.explain.methods import draw

    return lambda model, x, k: draw(name, model, x, k, **more).maps
