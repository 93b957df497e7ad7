"""How often a patch succeeds, beside controls of the same shape in the same places.

A success counts only where the clean image is read right and is not of the target class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.draws import keys, pixel_ids, uniform
from robustlab.base.errors import UserError
from robustlab.base.given import check_classes, labels_of
from robustlab.base.intervals import share
from robustlab.oracle import ask, undisturbed
from robustlab.physical.patch import Patch

Json = dict[str, Any]
BLOCKS = 8  # of a side, in the random controls: finer ones would be grey from afar


def measure_patch(
    classifier: Callable[[Tensor], Tensor],
    patch: Patch,
    images: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    seed: int = 0,
    controls: Mapping[str, Patch] | None = None,
    batch_size: int = 250,
) -> Json:
    """Clean accuracy, and for the patch and each control success and wrong answers, with n and 95 % Wilson intervals.

    images: (N, C, H, W), of a split that no fit has seen. controls: default `patch_controls` without a picture.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2))
    >>> patch = Patch(torch.rand(1, 8, 8), target=1)
    >>> found = measure_patch(net, patch, torch.rand(9, 1, 28, 28), torch.zeros(9))
    >>> found["clean"]["n"], list(found["found"])
    (9, ['patch', 'grey', 'random', 'black and white'])
    """
    labels = labels_of(labels, len(images)).cpu()
    ids = pixel_ids(images) if ids is None else ids.to(images.device)
    with torch.no_grad(), undisturbed(classifier):
        clean = _answers(classifier, images, labels, batch_size)
        counted = (clean == labels) & (labels != patch.target if patch.target is not None else True)
        found = {}
        for name, each in {"patch": patch, **(patch_controls(patch, seed) if controls is None else controls)}.items():
            answers = _answers(classifier, each.on(images, ids, seed), labels, batch_size)
            reached = answers != labels if patch.target is None else answers == patch.target
            n = int(counted.sum())
            success, misread = (int((counted & these).sum()) for these in (reached, answers != labels))
            found[name] = {"success": share(success, n), "misread": share(misread, n)}
    return {"clean": share(int((clean == labels).sum()), len(labels)), "found": found}


def _answers(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    logits = torch.cat([ask(classifier, part).cpu() for part in images.split(batch_size)])
    check_classes(int(labels.min()), int(labels.max()), logits.shape[1])
    return logits.argmax(1)


def patch_controls(
    patch: Patch, seed: int = 0, images: Tensor | None = None, labels: Tensor | None = None, ids: Tensor | None = None
) -> dict[str, Patch]:
    """Patches that nobody fitted, placed alike: grey, random colours, random black and white, and a real picture.

    images, labels, ids: training images, of which one of the target class, chosen by key, is the picture; its id is in
    the name. Without them, or without a target, there is none. UserError: the target class has no image.
    """
    channels, t = patch.texture.shape[:2]
    blocks = uniform(keys(seed, torch.arange(1), "patch, control"), (channels + 1, BLOCKS, BLOCKS))
    large = F.interpolate(blocks, (t, t), mode="nearest")[0]
    textures = {
        "grey": torch.full((channels, t, t), 0.5),
        "random": large[:channels].contiguous(),
        "black and white": (large[channels:] < 0.5).float().expand(channels, t, t).contiguous(),
    }
    if images is not None and labels is not None and patch.target is not None:
        index = (labels.cpu() == patch.target).nonzero()[:, 0]
        if not len(index):
            raise UserError(f"No image is of the target class {patch.target}: there is no picture for the control.")
        known = pixel_ids(images).cpu() if ids is None else ids.cpu()
        one = int(index[uniform(keys(seed, known[index], "patch, picture"), (1,))[:, 0].argmin()])
        picture = F.interpolate(images[one, None].float().cpu(), (t, t), mode="bilinear", antialias=True)[0]
        textures[f"picture of the target, id {int(known[one])}"] = picture.clamp(0, 1)
    return {name: replace(patch, texture=texture) for name, texture in textures.items()}
