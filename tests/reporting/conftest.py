"""A finished run written through robustlab.runs: two models, a cascade of three attacks, five budgets, images."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from robustlab.runs import Run
from robustlab.runs.examples import image_name, keep_candidates

Json = dict[str, Any]
EPS = 8 / 255
CURVE = [k / 255 for k in (2, 4, 8, 12, 16)]
ATTACKS = ("fgsm", "pgd", "pgd-margin")
CLASSES = ["stop", "yield", "no entry", "speed limit 30", "speed limit 50", "priority road", "turn right", "roundabout"]
# model -> (share right, the budget at which half of the samples fall, in 1/255)
MODELS = {"road-signs/cnn": (0.97, 1.2), "road-signs/cnn-robust": (0.93, 12.0)}


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """A function that writes such a run: write_run(folder, n=..., classes=..., models=..., **about) -> folder."""
    return _write_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_run(tmp_path_factory.mktemp("runs") / "road-signs-demo")


def _write_run(
    folder: Path,
    n: int = 300,
    classes: list[str] = CLASSES,
    models: dict[str, tuple[float, float]] = MODELS,
    **about: Any,
) -> Path:
    config = {
        "models": [{"name": name, "hash": f"{at:016x}"} for at, name in enumerate(models)],
        "data": {"name": "road-signs", "split": "test", "hash": "8f3a52c1d09be477", "n": n},
        "suite": "linf-standard",
        "threat": {"norm": "linf", "eps": EPS},
        "attacks": [{"name": name, "method": "pgd", "parameters": {}} for name in ATTACKS],
        "curve": {"attack": "pgd", "eps": CURVE},
        "seed": 0,
        "chunk_size": 128,
        "keep": 1,
    }
    header = {
        "kind": "attack",
        "command": "robustlab attack --limit 300",
        "suite": "linf-standard",
        "eps_typed": "8/255",
        "perturbation_scale": EPS,
        "operational": {"device": "cpu", "batch_size": 128, "processes": 1},
        "versions": {"python": "3.11.7", "robustlab": "0.1.0", "torch": "2.6.0"},
        "device": {"type": "cpu", "name": "A processor", "threads": 2},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "data": {**config["data"], "shape": [3, 32, 32], "classes": classes, "factors": FACTORS},  # type: ignore[dict-item]
        "models": [
            {
                "name": name,
                "hash": f"{at:016x}",
                "parameters": 241_840,
                "search_copy": {
                    "used": at == 0,
                    "reason": "logits differ by 0.2",
                    "folded": True,
                    "precision": "float32",
                },
            }
            for at, name in enumerate(models)
        ],
        **about,
    }
    labels = [i % len(classes) for i in range(n)]
    data = [{"id": i, "label": y, "factors": _factors(i)} for i, y in enumerate(labels)]
    with Run.create(folder, config, data, about=header) as run:
        for name, (right, half) in models.items():
            for chunk in range(math.ceil(n / 128)):
                _write_chunk(run, name, chunk, range(chunk * 128, min(n, chunk * 128 + 128)), labels, right, half)
        run.finish()
    _explain(folder)
    return folder


FACTORS = {
    "distance": {"label": "distance", "unit": "metres", "kind": "number", "categories": []},
    "yaw": {"label": "yaw", "unit": "degrees", "kind": "angle", "categories": []},
    "light": {"label": "light", "unit": "exposure, 1 is bright", "kind": "number", "categories": []},
    "ground": {"label": "the ground", "unit": "", "kind": "category", "categories": ["grass", "sand", "snow"]},
}


def _factors(id: int) -> dict[str, float]:
    dice = random.Random(f"factors:{id}")
    return {
        "distance": dice.uniform(4, 40),
        "yaw": dice.uniform(-45, 45),
        "light": dice.uniform(0.3, 1.2),
    }


def _explain(folder: Path) -> None:
    """Heatmaps for the examples of the first model; the second one has a layer that cannot be explained."""
    info = msgspec.json.decode((folder / "run.json").read_bytes())
    names = [model["name"] for model in info["config"]["models"]]
    made = 0
    for image in info["images"]:
        if image["model"] != names[0]:
            continue
        for at, kind in enumerate(("heat_clean", "heat_adv", "heat_same")):
            y, x = np.mgrid[-1:1:32j, -1:1:32j]
            heat = np.exp(-4 * ((x - 0.3 * at) ** 2 + y**2))[..., None] * [1.0, 0.6, 0.2]
            image[kind] = image["adv"].replace("adv.png", f"{kind}.png")
            (folder / image[kind]).write_bytes(_png(heat))
            made += 1
        image |= {"heat_scale": 1.5, "heat_zero": ["heat_same"] if image["id"] % 5 == 0 else []}
    info["heatmaps"] = {
        name: {"method": "Grad-CAM", "layer": "body.6", "maps": made, "zero": made // 15, "reason": None}
        if name == names[0]
        else {"method": "Grad-CAM", "layer": None, "maps": 0, "zero": 0, "reason": "no layer has a spatial output."}
        for name in names
    }
    (folder / "run.json").write_bytes(msgspec.json.encode(info))


def _write_chunk(run: Run, model: str, chunk: int, ids: range, labels: list[int], right: float, half: float) -> None:
    lines: list[Json] = []
    falls_at = {}  # the budget, in 1/255, at which the best attack turns the sample
    for i in ids:
        dice = random.Random(f"{model}:{i}")
        ok = random.Random(i).random() < right
        falls_at[i] = half * math.exp(dice.gauss(0, 0.6)) if ok else 0.0
        seen = labels[i] if ok else (labels[i] + 1) % len(run.info["data"]["classes"])
        lines.append({"id": i, "label": labels[i], "clean": seen, "adv": seen, "confidence": 0.6 + 0.4 * dice.random()})
    common = {"model": model, "attack": "clean", "eps": 0.0}
    run.write_unit(model, "clean", 0.0, chunk, [{**line, **common} for line in lines], {"seconds": 0.2})
    standing = [line for line in lines if line["clean"] == line["label"]]
    for strength, attack in ((0.7, "fgsm"), (0.97, "pgd"), (1.0, "pgd-margin")):
        standing = _write_attack(
            run, model, attack, EPS, chunk, standing, {i: f / strength for i, f in falls_at.items()}
        )
    standing = [line for line in lines if line["clean"] == line["label"]]
    for eps in CURVE:
        fallen = {i: f / 0.97 for i, f in falls_at.items()}
        if eps == EPS:
            standing = [line for line in standing if fallen[line["id"]] > 255 * eps]
        else:
            standing = _write_attack(run, model, "pgd", eps, chunk, standing, fallen)


def _write_attack(
    run: Run, model: str, attack: str, eps: float, chunk: int, standing: list[Json], falls_at: dict[int, float]
) -> list[Json]:
    """Writes the unit and, at the headline budget, its images; returns the lines of what still stands."""
    classes = len(run.info["data"]["classes"])
    written = []
    for line in standing:
        hit = falls_at[line["id"]] <= 255 * eps
        written.append(
            {
                **line,
                "model": model,
                "attack": attack,
                "eps": eps,
                "adv": (line["label"] + 3) % classes if hit else line["label"],
                "confidence": 0.5 + 0.4 * random.Random(line["id"]).random(),
                "success": hit,
                "verified": hit or None,
                "success_8bit": (line["id"] % 37 != 0) if hit else None,
                "linf": eps,
                "l2": eps * 40,
                "forwards": 4 if hit else 21,
                "backwards": 3 if hit else 20,
            }
        )
    if eps == EPS:
        _write_images(run, model, attack, written)
    run.write_unit(
        model, attack, eps, chunk, written, {"seconds": 0.01 * len(written), "unverified": len(written) // 90}
    )
    return [line for line, after in zip(standing, written, strict=True) if not after["success"]]


def _write_images(run: Run, model: str, attack: str, lines: list[Json]) -> None:
    ids, labels, hits = ([line[key] for line in lines] for key in ("id", "label", "success"))
    for id in keep_candidates(0, 1, ids, labels, hits):
        clean = _sign(id, labels[ids.index(id)])
        noise = np.random.default_rng([id, len(model), len(attack)]).choice([-1.0, 1.0], size=(8, 8, 3))
        delta = EPS * noise.repeat(4, 0).repeat(4, 1)
        run.write_image(image_name("clean", id), _png(clean))
        run.write_image(image_name("adv", id, model, attack), _png(clean + delta))
        run.write_image(image_name("delta", id, model, attack), _png(0.5 + delta / (2 * EPS)))


def _sign(id: int, label: int) -> np.ndarray[Any, Any]:
    """A disc with a bar whose colours and angle follow the label, on a ground that follows the id."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    ground = np.random.default_rng(id).uniform(0.2, 0.7, 3)
    image = np.broadcast_to(ground, (32, 32, 3)).copy()
    image[x**2 + y**2 < 0.75] = [0.8, 0.1 + 0.08 * label, 0.12]
    angle = label * math.pi / 8
    bar = (abs(x * math.sin(angle) + y * math.cos(angle)) < 0.18) & (x**2 + y**2 < 0.5)
    image[bar] = [0.95, 0.95, 0.93]
    return image


def _png(image: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()
