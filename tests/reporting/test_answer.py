"""The first screen: what is said at the top, and which failure is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.reporting import report
from robustlab.reporting.answer import cards, failure, lead
from robustlab.reporting.source import PageRun

Json = dict[str, Any]
STRONG = (0.97, 1e9)  # no attack breaks it


def test_the_failure_is_the_first_by_sample_number_then_by_attack(run_folder: Path) -> None:
    run = PageRun.read(run_folder)
    model = run.models[0]
    fallen = [image for image in run.info["images"] if image["model"] == model["name"] and image["success"]]
    least = min(image["id"] for image in fallen)
    shown = failure(run, model)
    assert (
        shown
        and shown["id"] == least
        and shown["pictures"]
        == tuple(
            run.picture(next(image for image in fallen if image["id"] == least)[kind]) for kind in ("clean", "adv")
        )
    )
    assert shown["before"] == run.class_name(shown["label"]) != shown["after"] == run.class_name(shown["prediction"])

    again = [image | {"attack": "pgd"} for image in fallen] + fallen
    both = PageRun(run.stored, run.info | {"images": again})
    assert (found := failure(both, model)) and (found["id"], found["attack"]) == (least, shown["attack"])

    strange = [image | {"attack": "of another suite"} for image in fallen]
    assert (found := failure(PageRun(run.stored, run.info | {"images": strange}), model)) and found["id"] == least

    gone = [image | ({"adv": "images/gone.png"} if image["id"] == least else {}) for image in fallen]
    other = failure(PageRun(run.stored, run.info | {"images": gone}), model)
    assert other and other["id"] == min(image["id"] for image in fallen if image["id"] != least)


def test_no_failure_is_said(run_folder: Path, write_run: Callable[..., Path], tmp_path: Path) -> None:
    run = PageRun.read(run_folder)
    bare = PageRun(run.stored, {key: value for key, value in run.info.items() if key != "images"})
    assert {card["why"] for card in cards(bare)} == {"No picture: the run kept no image of a failure."}
    assert all(card["failure"] is None for card in cards(bare))
    page = report([write_run(tmp_path / "run", n=40, models={"m": STRONG})], tmp_path / "page.html").read_text()
    assert page.count("No picture: no attack of the ") == 1
    assert "not chosen by eye: of the kept examples on which" not in page


def test_many_models_have_one_sentence_and_two_cards(run_folder: Path) -> None:
    run = PageRun.read(run_folder)
    first, second = run.models
    few, many = [first, second], [first, *[second | {"name": f"m{at}"} for at in range(6)]]
    assert lead(run, ["a.", "b."], ["a and b."]) == (["a and b."], ["a.", "b."])
    assert lead(run, ["a."], []) == (["a."], [])

    def with_models(models: list[Json]) -> PageRun:
        return PageRun(run.stored, run.info | {"aggregates": run.numbers | {"models": models}})

    said, folded = lead(with_models(many), ["a."] * 7, ["b."] * 21)
    best, worst = (model["robust_accuracy"]["value"] for model in (second, first))
    assert len(said) == 1 and len(folded) == 28 and best > worst
    assert said[0].startswith(f"Of 7 models m0 keeps the most images right under attack, {100 * best:.1f}\u00a0% (")
    assert f"and {first['name']} the fewest, {100 * worst:.1f}" in said[0]
    assert [card["model"]["name"] for card in cards(with_models(many))] == ["m0", first["name"]]
    assert len(cards(with_models(few))) == 2
    bare = [model | {"robust_accuracy": None, "attacks": []} for model in many]
    assert {card["why"] for card in cards(with_models(bare))} == {"No picture: the model was not attacked."}


@pytest.mark.browser
@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize(("width", "height"), [(1200, 800), (390, 844)])
def test_it_is_all_on_the_first_screen(
    browser: Any, write_run: Callable[..., Path], tmp_path: Path, models: int, width: int, height: int
) -> None:
    weak = {f"road-signs/cnn-{at}": (0.97, 1.2) for at in range(models)}
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(report([write_run(tmp_path / "run", n=40, models=weak)], tmp_path / "report.html").as_uri())
    for part, count in ((".lead li", 1), (".answers dd b", 2 * models), (".fall img", 2 * models)):
        boxes = [one.bounding_box() for one in page.locator(f"#verdict {part}").all()]
        assert len(boxes) == count, part
        assert all(box["y"] + box["height"] <= height and box["x"] + box["width"] <= width for box in boxes), part
    assert all(box["width"] >= 56 for box in boxes)
    page.close()
