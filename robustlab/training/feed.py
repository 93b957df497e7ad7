"""What each step of a training is given: this process's share of a batch, augmented and mixed."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.base.draws import keys
from robustlab.base.processes import World
from robustlab.data import Data
from robustlab.defenses.batch import Batch
from robustlab.threat.geometry import column
from robustlab.training.batches import augmented, cut_out, own_shares, partners
from robustlab.training.recipe import Recipe


class Feed:
    """The batches of a training. Every process knows the whole batch, and makes the images of its share only.

    All draws are keyed by image and epoch: an image is the same whatever process makes it. data: labels and ids on the
    device. strides: of the images; own: for a module of one's own, which may be picky about them.
    """

    def __init__(
        self, data: Data, recipe: Recipe, seed: int, strides: torch.memory_format, own: bool, world: World
    ) -> None:
        self.data, self.recipe, self.seed = data, recipe, seed
        self.strides, self.own, self.world = strides, own, world
        self._mixed: tuple[int, Tensor] = 0, torch.empty(0)

    def batch(self, index: Tensor, epoch: int, progress: float) -> Batch:
        """This process's share of the batch at `index`, positions in the data. progress: in epochs."""
        recipe, data, world = self.recipe, self.data, self.world
        mine = index[world.rank :: world.size]
        x, y, ids = self._images(mine, epoch), data.labels[mine], data.ids[mine]
        other = share = None
        if recipe.mixup:
            partner = partners(data.ids[index], self.seed, epoch)  # anywhere in the whole batch
            second = index[partner[world.rank :: world.size]]
            near = x[partner] if world.size == 1 else self._images(second, epoch)
            share, other = self._shares(epoch)[mine], data.labels[second]
            x = x + column(1 - share, x) * (near - x)
        # a copy: strides of grey images count as contiguous in either order, and convolutions hand them on
        x = x.clone(memory_format=self.strides) if self.own else x.contiguous(memory_format=self.strides)
        return Batch(x, y, keys(self.seed, ids, "defense", epoch), progress, recipe.smoothing, other, share)

    def _images(self, index: Tensor, epoch: int) -> Tensor:
        recipe, ids = self.recipe, self.data.ids[index]
        x = self.data.images[index].to(ids.device)
        x = augmented(x, ids, self.seed, epoch, recipe.shift, recipe.flip)
        return cut_out(x, ids, self.seed, epoch, recipe.cutout)

    def _shares(self, epoch: int) -> Tensor:
        """Of all images, once an epoch: they are drawn on the CPU."""
        if self._mixed[0] != epoch:
            self._mixed = epoch, own_shares(self.data.ids, self.seed, epoch, self.recipe.mixup)
        return self._mixed[1]
