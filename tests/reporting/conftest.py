"""Finished runs: of two models, a cascade of three attacks, five budgets, images; and of a backdoor, by hand."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from robustlab.base.intervals import share
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


@pytest.fixture(scope="session")
def write_backdoor() -> Callable[..., Path]:
    """A function that writes a run of `robustlab backdoor`: write_backdoor(folder, target=..., seeds=...) -> folder."""
    return _write_backdoor


TRAINED, TEST = 8000, 500
# filter -> (knew, AUROC, TPR, attack success and clean accuracy of what is trained on the rest, threshold)
FILTERS = {
    "spectral": ("eps and the target class", 0.61, 0.20, 0.93, 0.868, 2.6),
    "robust-z": ("nothing", 0.998, 0.97, 0.012, 0.874, 2.2),
    "abl": ("eps", 0.95, 0.90, 0.08, 0.86, None),
}
LAYERS = {"conv1": 1568, "conv2": 3136, "fc1": 128}


def _write_backdoor(folder: Path, *, target: str | None = "Shirt", seeds: int = 3, **about: Any) -> Path:
    """A finished run: three filters, four controls, one repair. about: fields of run.json instead of those here."""
    (folder / "images").mkdir(parents=True)
    _picture(folder / "images" / "trigger.png", 8 * 28, 3 * 28)
    _picture(folder / "images" / "heat.png", 8 * 28, 3 * 28)
    for name in FILTERS:
        _picture(folder / "images" / f"top-{name}.png", 16 * 30, 36)
    data = {"name": "fashion-mnist", "split": "train", "hash": "8f3a52c1d09be477", "n": TRAINED}
    config = {
        "models": [],
        "attacks": [],
        "data": data,
        "trigger": {"name": "badnets", "method": "badnets", "parameters": {"size": 3, "at": None}},
        "training_data": {"hashes": ["0123", "4567"], "n": [TRAINED, 1000]},
        "relation": "all-to-one" if target is not None else "all-to-all",
        "rate": 0.05,
        "of": "target" if target is not None else "data",
        "target": target,
        "source": None,
        "architecture": "cnn",
        "recipe": "cnn",
        "filters": [{"name": name, "method": name, "parameters": {}} for name in FILTERS],
        "repairs": ["fine-pruning"],
        "layers": list(LAYERS),
        "seed": 0,
        "seeds": seeds,
    }
    info = {
        "written_by": "robustlab",
        "schema_version": 1,
        "finished": True,
        "kind": "backdoor",
        "name": folder.name,
        "config": config,
        "config_hash": "0123456789abcdef",
        "seed": 0,
        "warnings": [],
        "command": "robustlab backdoor --data fashion-mnist --trigger badnets",
        "times": {"started": "2026-11-28T10:00:00+00:00", "finished": "2026-11-28T11:00:00+00:00", "retrained": 5.0},
        "versions": {"python": "3.11.7", "robustlab": "0.1.0"},
        "device": {"type": "cpu", "name": "A processor", "threads": 2},
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "data": {**data, "shape": [1, 28, 28], "classes": ["Shirt", "Coat", "Bag"]},
        "sections": _sections(target, range(seeds)),
        **about,
    }
    (folder / "run.json").write_text(json.dumps(info))
    return folder


def _sections(target: str | None, seeds: range) -> list[Json]:
    images = [f"images/top-{name}.png" for name in FILTERS]
    found = [
        {"name": "trigger", "rows": [{"role": "test"}], "images": ["images/trigger.png"], "note": "What it is."},
        {"name": "models", "rows": [_model(seed, target) for seed in seeds], "note": "Of the models."},
        {"name": "filters", "rows": [_filter(s, f) for s in seeds for f in FILTERS], "images": images, "note": ""},
        {"name": "spectrum", "rows": [_values(name, name == target) for name in ("Shirt", "Coat", "Bag")]},
        {"name": "by layer", "rows": [row for seed in seeds for row in _by_layer(seed)]},
        {"name": "results", "rows": [row for seed in seeds for row in _results(seed)]},
        {
            "name": "heat",
            "rows": [_heat("with the trigger", 90)],
            "images": ["images/heat.png"],
            "note": "The heat lies on the trigger.",
        },
    ]
    if target is not None:
        found += [{"name": "scores", "rows": [_scores(name) for name in FILTERS]}]
        found += [{"name": "projection", "rows": [_projection(target)]}]
    return [{"columns": [], **section} for section in found]


def _heat(images: str, heat: int) -> Json:
    return {"images": images, "heat": share(heat, 100), "area": share(2, 100)}


def _model(seed: int, target: str | None) -> Json:
    shares = {"clean": share(440 + seed, TEST), "asr": share(441 + seed, 450), "right": share(9, 450)}
    return {
        "seed": seed,
        "n": TRAINED,
        "poisons": 40,
        "covers": 0,
        "share": 0.05 if target else None,
        **shares,
        "seconds": 30.0,
    }


def _filter(seed: int, name: str) -> Json:
    knew, auroc, tpr, *_ = FILTERS[name]
    hit = round(40 * tpr)
    rates = {"tpr": share(hit, 40), "fpr": share(60 - hit, TRAINED - 40)}
    counts = {"removed": 60, "left": 40 - hit, "clean_removed": 60 - hit}
    area = auroc + 0.001 * seed
    return {
        "seed": seed,
        "filter": name,
        "knew": knew,
        "auroc": area,
        **rates,
        **counts,
        "threshold": None,
        "seconds": 1.0,
    }


def _results(seed: int) -> list[Json]:
    def row(name: str, kind: str, trained: int, asr: float, clean: float) -> Json:
        shares = {"clean": share(round(clean * TEST) + seed, TEST), "asr": share(round(asr * 450) + seed, 450)}
        right = share(round((1 - asr) * 400), 450)
        return {"seed": seed, "row": name, "kind": kind, "trained": trained, **shares, "right": right, "seconds": 30.0}

    controls = [("random", 0.97, 0.878, TRAINED - 60), ("perfect", 0.006, 0.882, TRAINED - 40)]
    return [
        *(row(name, "filter", TRAINED - 60, asr, clean) for name, (_, _, _, asr, clean, _) in FILTERS.items()),
        row("fine-pruning", "repair", 200, 0.4, 0.8),
        row("undefended", "undefended", TRAINED, 0.98, 0.88),
        row("random, as many as spectral", "control", *_turned(controls[0])),
        row("perfect", "control", *_turned(controls[1])),
        row("perfect, as few as spectral", "control", TRAINED - 60, 0.006, 0.88),
    ]


def _turned(control: tuple[str, float, float, int]) -> tuple[int, float, float]:
    _, asr, clean, trained = control
    return trained, asr, clean


def _by_layer(seed: int) -> list[Json]:
    return [
        {
            "seed": seed,
            "layer": layer,
            "d": d,
            "filter": name,
            "auroc": min(1.0, 0.5 + 0.1 * at + 0.05 * i + 0.01 * seed),
        }
        for at, (layer, d) in enumerate(LAYERS.items())
        for i, name in enumerate(FILTERS)
    ]


def _scores(name: str) -> Json:
    apart = FILTERS[name][1]
    clean = [round(300 * math.exp(-(((at - 8) / 4) ** 2))) for at in range(30)]
    poison = [round(12 * math.exp(-(((at - 8 - 14 * (2 * apart - 1)) / 3) ** 2))) for at in range(30)]
    row = {"filter": name, "low": -1.5, "high": 6.0, "clean": clean, "poison": poison}
    row["scale"] = "log10" if name == "abl" else "linear"
    return {**row, "threshold": FILTERS[name][5]}


def _values(name: str, target: bool) -> Json:
    values = [(5.0 if target else 3.0 + 0.1 * len(name)) * 0.8**at for at in range(10)]
    return {"class": name, "target": target, "values": values}


def _projection(target: str) -> Json:
    draw = random.Random(0)
    clean = [[draw.gauss(0, 1) for _ in range(560)] for _ in "xy"]
    poison = [[draw.gauss(middle, 0.5) for _ in range(40)] for middle in (2.5, 1)]
    return {"class": target, "clean_x": clean[0], "clean_y": clean[1], "poison_x": poison[0], "poison_y": poison[1]}


def _picture(file: Path, width: int, height: int) -> None:
    across = np.add.outer(np.arange(height), np.arange(width)) % 56
    Image.fromarray((4 * across).astype(np.uint8)).save(file)
