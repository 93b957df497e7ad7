"""A sticker on photographs as a run: fit it on some, judge it on others, and write all of it into a run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustlab.base.environment import describe_device, resolve_device
from robustlab.base.errors import UserError
from robustlab.base.pictures import png, sheet
from robustlab.base.typed import check_whole
from robustlab.evaluation.inputs import classifiers_of
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.running import rows_of, run_studies, table
from robustlab.evaluation.studies.base import Study
from robustlab.models.classifier import Classifier
from robustlab.physical.checkpoints import Checkpoints
from robustlab.physical.folder import StickerRun
from robustlab.physical.photo import PhotoAttack
from robustlab.physical.photo_input import Photographs
from robustlab.physical.photo_measure import measure_view
from robustlab.physical.photo_view import STILL, Camera, keyed, light_of, viewed
from robustlab.physical.running import aim_of, config_of
from robustlab.physical.sticker import stuck
from robustlab.runs import StoredRun

Json = dict[str, Any]
STICKER, SUITE = "sticker", "photo"
SHEET = 8  # photographs on the sheet


@dataclass(frozen=True)
class PhotoJob:
    """A run that goes on, as its studies see it. models: the first is the one that the sticker is fitted on.

    label: the class of the thing. views: how many, of the judged photographs in turn, each under a camera of its own.
    """

    run: StickerRun
    attack: PhotoAttack
    models: Sequence[Classifier]
    fitted: Photographs
    judged: Photographs
    label: int
    classes: Sequence[str]
    views: int
    seed: int
    listener: Listener
    finished: Callable[[Hashable, str], None]

    def turns(self, n: int) -> Tensor:
        """(n,) positions of judged photographs, in turn."""
        return torch.arange(n) % len(self.judged.images)

    @property
    def aim(self) -> str:
        return aim_of(self.attack.number(self.classes), self.classes)


class Fit(Study[PhotoJob]):
    """The sticker, fitted on the first model."""

    name = "fit"

    def parts(self) -> Sequence[str]:
        return [STICKER]

    def work(self, part: str) -> Json:
        job, attack, photos = self.job, self.job.attack, self.job.fitted
        kept = Checkpoints(job.run, part, job.listener)
        job.listener.say(f"{job.models[0].name}: fitting a sticker on {len(photos.images)} photographs.")
        sticker = attack.fit(
            job.models[0],
            photos.images,
            photos.corners,
            torch.full((len(photos.images),), job.label),
            torch.arange(len(photos.images)),
            job.classes,
            job.seed,
            kept.state,
            kept.watch,
        )
        job.run.write_photo_sticker(part, sticker)
        at = job.turns(SHEET)
        images, corners = job.judged.images[at].cpu(), job.judged.corners[at].cpu()
        light = light_of(images, corners, sticker.face)
        key = keyed(job.seed, torch.arange(SHEET), "judge")
        worn = (sticker.texture, sticker.weight, light)
        rows = [viewed(images, corners, attack.camera, key), viewed(images, corners, attack.camera, key, worn)]
        job.run.write_image("face-bare.png", png(sticker.face))
        job.run.write_image("face-sticker.png", png(stuck(sticker.texture, sticker.mask, sticker.face)))
        job.run.write_image("sheet.png", png(sheet(rows)))
        return {
            "mask": attack.mask,
            "share": float(sticker.mask.float().mean()),
            "steps": attack.steps * attack.fits,
            "fitted": len(photos.images),
            "judged": len(job.judged.images),
        }

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("mask", "Mask", ""),
            ("share", "Share of the face", ""),
            ("steps", "Steps", ""),
            ("fitted", "Photographs of the fit", ""),
            ("judged", "Photographs of the judging", ""),
        ]
        files = ["images/face-bare.png", "images/face-sticker.png", "images/sheet.png"]
        note = "The face, as the mean of the photographs, without and with the sticker; below, views of the judging."
        return table(columns, list(done.values()), note=note, images=files)


class Success(Study[PhotoJob]):
    """How often the sticker succeeds, on every model, beside the controls in the same mask."""

    name = "success"

    def parts(self) -> Sequence[str]:
        return [str(at) for at in range(len(self.job.models))]

    def work(self, part: str) -> Json:
        job, model = self.job, self.job.models[int(part)]
        sticker = job.run.photo_sticker(STICKER)

        def found(n: int, camera: Camera) -> Json:
            at = job.turns(n)
            images, corners, labels = job.judged.images[at], job.judged.corners[at], torch.full((n,), job.label)
            return measure_view(model, sticker, images, corners, labels, camera, torch.arange(n), job.seed)

        still, views = found(len(job.judged.images), STILL), found(job.views, job.attack.camera)
        return {
            "rows": [
                {
                    "model": model.name,
                    "sticker": name,
                    "clean": views["clean"],
                    **row,
                    "still_success": still["found"][name]["success"],
                }
                for name, row in views["found"].items()
            ]
        }

    def section(self, done: Mapping[str, Json]) -> Json:
        job = self.job
        columns = [
            ("model", "Model", ""),
            ("sticker", "Sticker", ""),
            ("clean", "Bare views read right", ""),
            ("success", job.aim, ""),
            ("misread", "Read wrong", ""),
            ("still_success", f"{job.aim}, photographs as they are", ""),
        ]
        same = " The fit has seen the same photograph, under other cameras." * (job.fitted.names == job.judged.names)
        note = (
            f"Shares of {job.views} views in which the bare thing is read right: the judged photographs in turn, each"
            " turned, moved, lit, blurred and with noise by draws that no fit has seen. Intervals are of the views:"
            f" they say nothing about other things than the photographed one.{same}"
        )
        return table(columns, rows_of(done), n=job.views, note=note)


STUDIES: tuple[type[Study[PhotoJob]], ...] = (Fit, Success)


def evaluate_photo(
    models: Any,
    photos: Photographs,
    source: str | int,
    attack: PhotoAttack | None = None,
    *,
    n: int = 500,
    seed: int = 0,
    device: str = "auto",
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    listener: Listener | None = None,
) -> StoredRun:
    """Fit a sticker on every second photograph, and judge it on the others, on all models; of one, on itself.

    source: the class of the thing in the photographs, by name or number. n: views that it is judged on. Raises
    UserError for bad input.

    >>> import tempfile
    >>> corners = torch.tensor([[8.0, 8], [24, 8], [24, 24], [8, 24]]).expand(3, 4, 2)
    >>> photos = Photographs(torch.rand(3, 3, 32, 32), corners, ["a", "b", "c"])
    >>> quick, quiet = PhotoAttack(target="yield", mask="bars", steps=1, batch=2), Listener(say=lambda text: None)
    >>> where = tempfile.mkdtemp() + "/run"
    >>> run = evaluate_photo("road-signs/cnn", photos, "stop", quick, n=6, output=where, listener=quiet)
    >>> [section["name"] for section in run.info["sections"]]
    ['fit', 'success']
    """
    attack = attack or PhotoAttack()
    check_whole("n", n, 1)
    check_whole("seed", seed, 0)
    where = resolve_device(device)
    networks = classifiers_of(models, where)
    classes = networks[0].classes or ()
    label = replace(attack, target=source).number(classes)
    target = attack.number(classes)
    if label is None:
        raise UserError("The class of the thing in the photographs is missing: give its name or number.")
    if label == target:
        raise UserError(f"The target is what the photographs show, {source!r}. Give another target.")
    total = len(photos.images)
    every = torch.arange(total)
    first, second = (every[::2], every[1::2]) if total > 1 else (every, every)
    pixels = hashlib.sha256(photos.images.numpy().tobytes() + photos.corners.numpy().tobytes()).hexdigest()[:16]
    config: Json = {
        **config_of(networks, STICKER, SUITE, attack, seed),
        "data": {"name": "photographs", "split": "every second", "hash": pixels, "n": n, "label": label},
    }
    about: Json = {
        "command": command,
        "suite": SUITE,
        "device": describe_device(where),
        "data": {**config["data"], "shape": list(photos.images.shape[1:]), "classes": list(classes)},
    }

    def of(index: Tensor) -> Photographs:
        names = [photos.names[at] for at in index.tolist()]
        return Photographs(photos.images[index].to(where), photos.corners[index].to(where), names)

    return run_studies(
        STUDIES,
        StickerRun,
        lambda run, heard, finished: PhotoJob(
            run, attack, networks, of(first), of(second), label, classes, n, seed, heard, finished
        ),
        config,
        about,
        output=output,
        name="photographs",
        resume=resume,
        overwrite=overwrite,
        listener=listener or Listener(),
    )
