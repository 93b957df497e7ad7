"""Heatmaps of a run's kept examples, drawn when all attacks are done and stored beside them as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from robustlab.base.errors import RunError, UserError
from robustlab.base.memory import Batches
from robustlab.base.pictures import heat_png
from robustlab.data import Data
from robustlab.explain.heatmaps import grad_cam
from robustlab.explain.layers import Layer, find_layer
from robustlab.models.classifier import Classifier
from robustlab.runs import Run
from robustlab.runs.examples import HEATMAPS, image_name

Json = dict[str, Any]
_TOGETHER = 64  # examples whose images and maps are held at a time


def explain_kept(
    run: Run,
    models: Sequence[tuple[Classifier, Batches]],
    data: Data,
    device: torch.device,
    told: Callable[[str], None],
    images: Sequence[Json],
) -> Json:
    """Draw Grad-CAM of the kept examples and add the files to `images`; returns run.json's `heatmaps`, by model.

    Each example gets three maps in one scale of colours: `heat_clean` and `heat_adv`, of the clean and the adversarial
    image for the class predicted there, and `heat_same`, of the adversarial image for the class of `heat_clean`: most
    of what seems to move between the first two is the change of the class that is explained. `heat_scale` is the value
    in full colour, `heat_zero` lists the maps that are zero everywhere. Where a model has no heatmaps, `reason` says
    why; whatever a model or captum raises here, the run goes on.
    """
    heatmaps: Json = {}
    for model, batches in models:
        name = model.name
        own = [image for image in images if image["model"] == name]
        if not own:
            continue
        told(f"{name}: drawing Grad-CAM heatmaps of the kept examples ({len(own)}).")
        layer: Layer | None = None
        reason: str | None = None
        found: list[Json] = []
        for start in range(0, len(own), _TOGETHER):
            batch = own[start : start + _TOGETHER]
            try:
                clean, adv = (each.to(device) for each in _images(run, data, batch))
                layer = layer or batches.fit(partial(_found, model, clean))
                maps = batches.fit(partial(_maps, model, layer, clean, adv, batch))
            except Exception as error:  # captum and a model may raise anything, and none of it concerns the numbers
                reason = _reason(error)
                told(f"{name}: no heatmaps. {reason}")
                break
            found += [_stored(run, image, each) for image, each in zip(batch, maps, strict=True)]
        if reason is None:
            for image, heat in zip(own, found, strict=True):
                image.update(heat)
        heatmaps[name] = {
            "method": "Grad-CAM",
            "layer": layer.name if layer else None,
            "maps": 0 if reason else len(HEATMAPS) * len(own),
            "zero": 0 if reason else sum(len(heat["heat_zero"]) for heat in found),
            "reason": reason,
        }
    return heatmaps


def _reason(error: Exception) -> str:
    what = str(error).partition("\n")[0]
    return what if isinstance(error, UserError | RunError) else f"{type(error).__name__}: {what or 'no message'}"


def _images(run: Run, data: Data, batch: Sequence[Json]) -> tuple[Tensor, Tensor]:
    """The clean and the adversarial images (B, C, H, W) of the examples, as they were attacked: not in 8 bits."""
    place = {id: i for i, id in enumerate(data.ids.tolist())}
    eps = float(run.info["config"]["threat"]["eps"])
    stored: dict[tuple[str, int], Tensor] = {}
    for attack in {image["attack"] for image in batch}:
        wanted = {image["id"] for image in batch if image["attack"] == attack}
        for content in run.kept(batch[0]["model"], attack, eps):
            tensors = load(content)
            for row, id in enumerate(tensors["ids"].tolist()):
                if id in wanted:
                    stored[attack, id] = tensors["images"][row].clone()
    adv = torch.stack([stored[image["attack"], image["id"]] for image in batch])
    return data.images[torch.tensor([place[image["id"]] for image in batch])], adv


def _found(model: nn.Module, images: Tensor, batch_size: int) -> Layer:
    return find_layer(model, images[:batch_size])


def _maps(model: nn.Module, layer: Layer, clean: Tensor, adv: Tensor, batch: Sequence[Json], batch_size: int) -> Tensor:
    """(B, 3, H, W) the maps of each example, in the order of `HEATMAPS`, on the CPU."""
    before = torch.tensor([image["clean_prediction"] for image in batch], device=clean.device)
    after = torch.tensor([image["prediction"] for image in batch], device=clean.device)
    # a module may draw random numbers: the same each time, and the caller's are not moved on
    with torch.random.fork_rng([clean.device] if clean.is_cuda else []):
        torch.manual_seed(0)
        asked = ((clean, before), (adv, after), (adv, before))
        found = [grad_cam(model, x, classes, layer=layer, batch_size=batch_size).maps for x, classes in asked]
    return torch.stack(found, 1).cpu()


def _stored(run: Run, image: Json, maps: Tensor) -> Json:
    """Write the pictures of one example's maps (3, H, W); returns what its entry in run.json gets more."""
    scale = float(maps.max())
    heat: Json = {"heat_scale": scale, "heat_zero": []}
    for kind, each in zip(HEATMAPS, maps, strict=True):
        name = image_name(kind, image["id"], image["model"], image["attack"])
        run.write_image(name, heat_png(each, scale))
        heat[kind] = f"images/{name}"
        if float(each.max()) == 0:
            heat["heat_zero"].append(kind)
    return heat
