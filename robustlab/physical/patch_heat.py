"""Where a model looks: how much of Grad-CAM's heat lies inside a patch, beside the bare image and a control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from robustlab.evaluation.heat import heat_rows, heat_section
from robustlab.evaluation.studies.base import Study
from robustlab.oracle import answers
from robustlab.physical.patch_measure import patch_controls
from robustlab.physical.patch_studies import PATCH, Json, PatchJob

IMAGES = 100  # at most
SHOWN = 6  # images on the sheet
BARE, CONTROL = "bare image", "random"


class Heat(Study[PatchJob]):
    """Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the model's own answer, inside the patch and outside.

    On the model that the patch was fitted on, for images that it reads right without the patch.
    """

    name = "heat"

    def parts(self) -> Sequence[str]:
        return ["0"]

    def work(self, part: str) -> Json:
        job = self.job
        model, patch, data = job.models[int(part)], job.run.patch(PATCH), job.judged
        right = answers(model, data.images, data.images.device) == data.labels.cpu()
        data = data.take(right.nonzero()[:IMAGES, 0]).loaded()
        if not len(data):
            return {"rows": [], "reason": "no image is read right without the patch"}
        white = replace(patch, texture=torch.ones_like(patch.texture))
        inside = white.on(torch.zeros_like(data.images), data.ids, job.seed)[:, 0]
        laid = {PATCH: patch, CONTROL: patch_controls(patch, job.seed)[CONTROL]}
        versions = {
            BARE: data.images,
            **{name: each.on(data.images, data.ids, job.seed) for name, each in laid.items()},
        }
        more = {"model": model.name}
        return heat_rows(job, model, versions, inside, shown=SHOWN, column="patch", more=more)

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("model", "Model", ""),
            ("patch", "Patch", ""),
            ("heat", "Heat inside the patch", ""),
            ("area", "Area of the patch in the image", ""),
        ]
        note = (
            "Grad-CAM of the model's own answer. The heat where the patch lies, as a share of the image's heat; heat"
            " that is spread evenly has the share of the area. Means over the images that are read right without the"
            " patch, with 95 % t intervals; n leaves out maps that are zero. The map is coarser than the patch, so some"
            " heat of a patch always lies beside it. Pictures: bare, with the patch, with random colours in the same"
            " place; each above its heat, on its own scale."
        )
        return heat_section(done, columns, note)
