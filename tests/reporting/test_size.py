"""A large run still makes a light page, quickly: 10,000 samples, 8 attacks that all ran on everything, 2 models."""

from __future__ import annotations

import io
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from robustlab.reporting import report
from robustlab.runs import Run
from robustlab.runs.examples import image_name, keep_candidates

Json = dict[str, Any]
SAMPLES, CLASSES, EPS = 10_000, 1_000, 8 / 255
ATTACKS = [f"attack-{at}" for at in range(8)]
MODELS = ["one", "two"]


@pytest.fixture(scope="module")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "run"
    config = {
        "models": [{"name": name, "hash": name} for name in MODELS],
        "data": {"name": "made-up", "split": "test", "hash": "0", "n": SAMPLES},
        "threat": {"norm": "linf", "eps": EPS},
        "attacks": [{"name": name, "method": "pgd", "parameters": {}} for name in ATTACKS],
        "seed": 0,
        "full": True,
        "keep": 1,
    }
    classes = [f"a class with a name of some length, number {label}" for label in range(CLASSES)]
    about = {"perturbation_scale": EPS, "data": {**config["data"], "shape": [3, 224, 224], "classes": classes}}  # type: ignore[dict-item]
    data = [{"id": id, "label": id % CLASSES, "factors": {"size": id % 97}} for id in range(SAMPLES)]
    with Run.create(folder, config, data, about=about) as run:
        for model in MODELS:
            for attack in ("clean", *ATTACKS):
                eps = 0.0 if attack == "clean" else EPS
                lines = [_line(model, attack, eps, id) for id in range(SAMPLES)]
                run.write_unit(model, attack, eps, 0, lines)
                if attack == ATTACKS[0]:
                    _write_images(run, model, lines)
        run.finish()
    return folder


def _line(model: str, attack: str, eps: float, id: int) -> Json:
    dice = random.Random(f"{model} {attack} {id}")
    hit = attack != "clean" and dice.random() < 0.3
    label = id % CLASSES
    line: Json = {"model": model, "attack": attack, "eps": eps, "id": id, "label": label, "clean": label}
    line |= {"adv": dice.randrange(CLASSES) if hit else label, "confidence": dice.random(), "success": hit}
    return line | {"verified": hit or None, "success_8bit": hit or None, "linf": eps, "forwards": 20, "backwards": 20}


def _write_images(run: Run, model: str, lines: list[Json]) -> None:
    """Noise for 30 of the examples to keep: nothing takes more bytes."""
    ids, labels, hits = ([line[key] for line in lines] for key in ("id", "label", "success"))
    for id in sorted(keep_candidates(0, 1, ids, labels, hits))[:30]:
        for at, kind in enumerate(("clean", "adv", "delta")):
            name = image_name(kind, id) if kind == "clean" else image_name(kind, id, model, ATTACKS[0])  # type: ignore[arg-type]
            pixels = np.random.default_rng([id, at]).integers(0, 256, (224, 224, 3), dtype=np.uint8)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, format="PNG")
            run.write_image(name, stream.getvalue())


@pytest.mark.slow
def test_the_page_of_a_large_run_is_light_and_quick(large_run: Path, tmp_path: Path) -> None:
    start = time.perf_counter()
    page = report([large_run], tmp_path / "report.html")
    seconds = time.perf_counter() - start
    size = page.stat().st_size
    print(f"{size / 1e6:.1f} MB in {seconds:.1f} s")
    assert size < 10_000_000
    assert seconds < 30  # what the page promises, on one core
    html = page.read_text(encoding="utf-8")
    assert html.count('id="samples-1"') == 1
    first, second = (html.count(f'id="adv-{at}-') for at in (0, 1))
    assert first >= 4 and first - second in (0, 1)  # in turns: no model takes the other's room
    assert "; more would make the page too large." in html
    assert msgspec.json.decode(html.split('id="run-1">')[1].split("</script>")[0])["config"]["full"] is True
