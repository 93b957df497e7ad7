"""How often a sticker on photographs succeeds, beside controls in the same mask, as they are and under other cameras.

A success counts only where the same image without a sticker is read right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from robustlab.base.draws import pixel_ids
from robustlab.base.errors import UserError
from robustlab.base.given import check_classes, labels_of
from robustlab.base.intervals import share
from robustlab.oracle import ask, undisturbed
from robustlab.physical.palette import control_textures
from robustlab.physical.photo import PhotoAttack, PhotoSticker
from robustlab.physical.photo_view import STILL, Camera, corners_of, keyed, light_of, viewed

Json = dict[str, Any]
BLOCKS = 8  # of a side, in the random controls: finer ones would be grey from afar


def measure_photo(
    classifier: Callable[[Tensor], Tensor],
    sticker: PhotoSticker,
    images: Tensor,
    corners: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    seed: int = 0,
    controls: Mapping[str, PhotoSticker] | None = None,
    camera: Camera | None = None,
    batch_size: int = 250,
) -> Json:
    """Under `still` and `camera`: clean accuracy, and for each sticker success and wrong answers, with n and intervals.

    images: (N, 3, H, W), that no fit has seen; rounded to 8 bits with their sticker. corners: (4, 2) or (N, 4, 2).
    controls: default `photo_controls`. camera: of the second part, one draw an image, whose keys no fit has. Intervals
    are 95 % (Wilson), and only as honest as the images are independent.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
    >>> black = PhotoSticker(torch.zeros(3, 8, 8), torch.ones(64, 64, dtype=torch.bool), torch.ones(3, 64, 64), 1)
    >>> corners = torch.tensor([[4, 4], [12, 4], [12, 12], [4, 12]])
    >>> found = measure_photo(net, black, torch.rand(9, 3, 16, 16), corners, torch.zeros(9))
    >>> found["still"]["clean"]["n"], list(found["camera"]["found"])
    (9, ['sticker', 'grey', 'random', 'black and white'])
    """
    views = {"still": STILL, "camera": Camera() if camera is None else camera}
    return {
        name: measure_view(classifier, sticker, images, corners, labels, view, ids, seed, controls, batch_size)
        for name, view in views.items()
    }


def measure_view(
    classifier: Callable[[Tensor], Tensor],
    sticker: PhotoSticker,
    images: Tensor,
    corners: Tensor,
    labels: Tensor,
    view: Camera,
    ids: Tensor | None = None,
    seed: int = 0,
    controls: Mapping[str, PhotoSticker] | None = None,
    batch_size: int = 250,
) -> Json:
    """One of the two parts of `measure_photo`, under a camera of one's choice."""
    labels = labels_of(labels, len(images)).cpu()
    ids = pixel_ids(images) if ids is None else ids.to(images.device)
    places = corners_of(corners, images)
    stickers = {"sticker": sticker, **(photo_controls(sticker, seed) if controls is None else controls)}
    key = keyed(seed, ids, "judge")

    def answers(each: PhotoSticker | None = None) -> Tensor:
        found = []
        for part in torch.arange(len(images), device=images.device).split(batch_size):
            own = None if each is None else (each.texture.to(images), each.weight.to(images), light[part])
            x = viewed(images[part], places[part], view, key[part], own)
            rounded = (x * 255).round() / 255
            logits = ask(classifier, rounded).cpu()
            check_classes(int(labels.min()), int(labels.max()), logits.shape[1])
            found.append(logits.argmax(1))
        return torch.cat(found)

    with torch.no_grad(), undisturbed(classifier):
        light = light_of(images, places, sticker.face.to(images))
        right, found = answers() == labels, {}
        counted = right & (labels != sticker.target if sticker.target is not None else True)
        n = int(counted.sum())
        for name, each in stickers.items():
            said = answers(each)
            reached = said != labels if sticker.target is None else said == sticker.target
            success, misread = (int((counted & these).sum()) for these in (reached, said != labels))
            found[name] = {"success": share(success, n), "misread": share(misread, n)}
    return {"clean": share(int(right.sum()), len(labels)), "found": found}


def photo_controls(sticker: PhotoSticker, seed: int = 0) -> dict[str, PhotoSticker]:
    """Stickers in the same mask that nobody fitted: grey, random printable colours, random black and white blocks."""
    textures = control_textures(sticker.texture.shape[-1], BLOCKS, seed, "photo, control")
    return {name: replace(sticker, texture=texture) for name, texture in textures.items()}


def fit_and_judge(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    corners: Tensor,
    labels: Tensor,
    attack: PhotoAttack,
    ids: Tensor | None = None,
    seed: int = 0,
) -> tuple[PhotoSticker, Json]:
    """A sticker fitted on every second photograph, and `measure_photo` of the others; of a single one, on itself.

    The result also holds the attack, how many photographs were fitted, and whether the judged ones are others. Frames
    of one video are much alike: they show that the sticker works here, not on another sign.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
    >>> corners = torch.tensor([[4, 4], [12, 4], [12, 12], [4, 12]])
    >>> attack = PhotoAttack(target=1, mask="bars", steps=2, batch=4)
    >>> sticker, found = fit_and_judge(net, torch.rand(5, 3, 16, 16), corners, torch.zeros(5), attack)
    >>> found["fitted"], found["held_out"], found["still"]["clean"]["n"]
    (3, True, 2)
    """
    n = len(images)
    if not n:
        raise UserError("There is no photograph to fit a sticker on.")
    places, labels = corners_of(corners, images), labels_of(labels, n)
    ids = torch.arange(n) if ids is None else ids
    fitted, judged = torch.arange(0, n, 2), torch.arange(1, n, 2) if n > 1 else torch.arange(1)
    sticker = attack.fit(classifier, images[fitted], places[fitted], labels[fitted], ids[fitted], seed=seed)
    found = measure_photo(
        classifier, sticker, images[judged], places[judged], labels[judged], ids[judged], seed, camera=attack.camera
    )
    return sticker, {"attack": asdict(attack), "fitted": len(fitted), "held_out": n > 1, **found}
