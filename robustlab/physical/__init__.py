"""Physical attacks: printable stickers on the signs of a rendered world, patches on any images; fitted once.

>>> from robustlab import load_model
>>> from robustlab.physical import RP2, answers, judged
>>> model = load_model("road-signs/cnn")
>>> sticker = RP2("stop", "speed limit 45", mask="bars", steps=2, scenes=4).fit(model)
>>> answers(model, sticker, judged(sticker, 50, seed=0)).summary()["clean"]["n"]
50
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustlab.base.lazy import exports

if TYPE_CHECKING:
    from robustlab.physical.measure import answers, controls, drive_by, grid, judged
    from robustlab.physical.patch import Patch, PatchAttack
    from robustlab.physical.patch_measure import measure_patch, patch_controls
    from robustlab.physical.photo import PhotoAttack, PhotoSticker
    from robustlab.physical.photo_input import Photographs, photographs
    from robustlab.physical.photo_measure import fit_and_judge, measure_photo, photo_controls
    from robustlab.physical.photo_view import STILL, Camera
    from robustlab.physical.rp2 import RP2
    from robustlab.physical.sticker import Sticker

__all__ = [
    "RP2",
    "STILL",
    "Camera",
    "Patch",
    "PatchAttack",
    "PhotoAttack",
    "PhotoSticker",
    "Photographs",
    "Sticker",
    "answers",
    "controls",
    "drive_by",
    "fit_and_judge",
    "grid",
    "judged",
    "measure_patch",
    "measure_photo",
    "patch_controls",
    "photo_controls",
    "photographs",
]

__getattr__ = exports(
    __name__,
    [
        "robustlab.physical.rp2:RP2",
        "robustlab.physical.patch:Patch",
        "robustlab.physical.patch:PatchAttack",
        "robustlab.physical.patch_measure:measure_patch",
        "robustlab.physical.patch_measure:patch_controls",
        "robustlab.physical.photo:PhotoAttack",
        "robustlab.physical.photo:PhotoSticker",
        "robustlab.physical.photo_input:Photographs",
        "robustlab.physical.photo_input:photographs",
        *(f"robustlab.physical.photo_measure:{name}" for name in ("fit_and_judge", "measure_photo", "photo_controls")),
        "robustlab.physical.photo_view:Camera",
        "robustlab.physical.photo_view:STILL",
        "robustlab.physical.sticker:Sticker",
        *(f"robustlab.physical.measure:{name}" for name in ("answers", "controls", "drive_by", "grid", "judged")),
    ],
)
