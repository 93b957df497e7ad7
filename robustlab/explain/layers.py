"""Which layer a heatmap is drawn from, and how its output becomes a map of the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError, did_you_mean
from robustlab.models.classifier import Classifier
from robustlab.oracle import ask, undisturbed

Map = tuple[tuple[int, int], int | None]  # grid and outside, see `Layer`
_PROBED = 8  # images on which layers are looked at


@dataclass(frozen=True)
class Layer:
    """A layer whose output is a map of the image.

    name: dotted, as in the module's `named_modules()` (of the module inside a `Classifier`). grid: rows and columns
    of the map. outside: the leading tokens that are no patch (1 for a class token) of an output (N, T, C); None for
    an output (N, C, h, w). classes: K, how many logits the model has.
    """

    name: str
    module: nn.Module = field(repr=False)
    grid: tuple[int, int]
    outside: int | None
    classes: int

    @contextmanager
    def watched(self) -> Iterator[nn.Module]:
        """A module through which the layer's output passes as a map (N, C, h, w), as long as the context is open.

        captum attributes to the output of a module, and pools whatever it finds there over all dimensions after the
        second; of tokens (N, T, C) that would be the channels.
        """
        probe = nn.Identity()
        with self.module.register_forward_hook(lambda module, given, out: self._through(probe, out)):
            yield probe

    def _through(self, probe: nn.Module, out: Tensor) -> Tensor:
        if self.outside is None:
            return probe(out)  # type: ignore[no-any-return]
        patches = probe(out[:, self.outside :].mT.unflatten(2, self.grid))
        return torch.cat([out[:, : self.outside], patches.flatten(2).mT], 1)


def find_layer(model: nn.Module, images: Tensor, name: str | None = None) -> Layer:
    """The layer to draw heatmaps of `images` (N, C, H, W) from.

    By default the last one, in the order of the forward pass, whose output is a map (N, C, h, w) of more than one
    place in about the image's proportions, or patch tokens (N, T, C) with or without a class token before them, and
    whose places matter to the logits. (After the last attention of a network with a class token the patches do not.)
    Of a module that is called several times, the last call counts. name: a layer that is asked for. UserError: there
    is none, or it has no such output.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> layer = find_layer(net, torch.rand(2, 3, 8, 8))
    >>> layer.name, layer.grid
    ('1', (6, 6))
    """
    modules = _modules(model)
    if name is not None and name not in modules:
        raise UserError(
            f"The model has no layer {name!r}.{did_you_mean(name, modules)}"
            f" It has {len(modules)} layers; the last: {', '.join(list(modules)[-5:]) or 'none'}."
        )
    with torch.inference_mode(False), torch.enable_grad(), undisturbed(model):
        logits, outputs = _outputs(model, modules, images[:_PROBED].detach().clone().requires_grad_(True))
        size = int(images.shape[2]), int(images.shape[3])
        maps = _maps(outputs, size)
        found = _last_that_matters(logits, outputs, maps, size) if name is None else name
    if found is None:
        raise UserError(
            "No layer of the model gives a map of the image: an output (N, C, h, w) of more than one place, or patch"
            " tokens (N, T, C). Heatmaps need one. A network of linear layers has none, and the layers of an exported"
            " or scripted program cannot be watched."
        )
    if found not in outputs:
        raise UserError(f"The layer {found!r} is not called in the forward pass, so it has no output to draw.")
    if found not in maps:
        out = outputs[found]
        what = f"of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise UserError(
            f"The output of the layer {found!r} is {what}. A heatmap needs (N, C, h, w) of more than one place, or"
            " patch tokens (N, T, C) that fill a grid in the image's proportions."
        )
    return Layer(found, modules[found], *maps[found], classes=int(logits.shape[1]))


def layers_with_maps(model: nn.Module, images: Tensor) -> list[Layer]:
    """Every layer that heatmaps of `images` (N, C, H, W) can be drawn from, in the order of the forward pass.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> [layer.name for layer in layers_with_maps(net, torch.rand(2, 3, 8, 8))]
    ['0', '1']
    """
    modules = _modules(model)
    with torch.inference_mode(False), torch.enable_grad(), undisturbed(model):
        logits, outputs = _outputs(model, modules, images[:_PROBED].detach().clone().requires_grad_(True))
        maps = _maps(outputs, (int(images.shape[2]), int(images.shape[3])))
    return [Layer(name, modules[name], *maps[name], classes=int(logits.shape[1])) for name in outputs if name in maps]


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of the user's own by their names."""
    owner = model.module if isinstance(model, Classifier) else model
    return {key: module for key, module in owner.named_modules() if key}


def _outputs(model: nn.Module, modules: dict[str, nn.Module], images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """The logits, and what each module returned when it was last called, in the order of these calls."""
    outputs: dict[str, Any] = {}

    def keep(key: str, out: Any) -> None:
        outputs.pop(key, None)
        outputs[key] = out

    with ExitStack() as hooks:
        for key, module in modules.items():
            hooks.enter_context(module.register_forward_hook(lambda module, given, out, key=key: keep(key, out)))
        logits = ask(model, images)
    return logits, outputs


def _maps(outputs: dict[str, Any], size: tuple[int, int]) -> dict[str, Map]:
    """Which outputs are maps of an image of this size."""
    shapes = {key: tuple(out.shape) for key, out in outputs.items() if isinstance(out, Tensor) and out.requires_grad}
    grids = sorted({shape[2:] for shape in shapes.values() if len(shape) == 4})
    maps: dict[str, Map] = {}
    for key, shape in shapes.items():
        if len(shape) == 4 and shape[2] * shape[3] > 1:
            maps[key] = (shape[2], shape[3]), None
        elif len(shape) == 3:
            for outside in (1, 0):  # without a class token, where both are possible
                if grid := _grid(shape[1] - outside, size, grids):
                    maps[key] = grid, outside
    return maps


def _grid(places: int, size: tuple[int, int], grids: list[Any]) -> tuple[int, int] | None:
    """Rows and columns of so many patches: as of a map elsewhere in the model, or in just the image's proportions."""
    rows = round((places * size[0] / size[1]) ** 0.5)
    if rows and rows * size[1] % size[0] == 0:
        grids = [*grids, (rows, rows * size[1] // size[0])]
    return next((grid for grid in grids if grid[0] * grid[1] == places > 1), None)


def _alike(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Has the grid the image's proportions, but for the row or column that strides round away?"""
    return abs(grid[0] * size[1] - grid[1] * size[0]) <= max(size)


def _last_that_matters(
    logits: Tensor, outputs: dict[str, Any], maps: dict[str, Map], size: tuple[int, int]
) -> str | None:
    """The last map, of tokens or in the image's proportions, of which a place changes the largest logit.

    Where none does (every gradient is zero), the last that is used at all.
    """
    tokens = {(out.shape[1], out.shape[1]) for key, out in outputs.items() if key in maps and out.ndim == 3}
    names = [  # (N, heads, T, T) is what tokens attend to, not a map of the image
        key for key, (grid, outside) in maps.items() if outside is not None or _alike(grid, size) and grid not in tokens
    ]
    score = logits.amax(1).sum()
    if not names or not score.requires_grad:
        return None
    gradients = torch.autograd.grad(score, [outputs[key] for key in names], allow_unused=True)
    used = [(key, g) for key, g in zip(names, gradients, strict=True) if g is not None]
    matter = [key for key, g in used if bool((g if g.ndim == 4 else g[:, maps[key][1] :]).any())]
    last = matter or [key for key, _ in used]
    return last[-1] if last else None
