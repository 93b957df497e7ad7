"""Aggregates against numbers counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from robustlab.runs.aggregates import Line, aggregate

CONFIG: dict[str, Any] = {
    "models": [{"name": "m"}],
    "attacks": [{"name": "a"}, {"name": "b"}],
    "threat": {"norm": "linf", "eps": 0.2},
    "curve": {"attack": "a", "eps": [0.1, 0.2, 0.4]},
    "seed": 0,
}


def clean(wrong: tuple[int, ...] = (), n: int = 10, model: str = "m") -> list[Line]:
    return [Line(model=model, attack="clean", eps=0.0, id=i, label=i % 2, clean=i % 2 + (i in wrong)) for i in range(n)]


def tried(attack: str, ids: Any, hits: Any, eps: float = 0.2, model: str = "m", **fields: Any) -> list[Line]:
    return [
        Line(
            model=model,
            attack=attack,
            eps=eps,
            id=i,
            label=i % 2,
            clean=i % 2,
            success=i in hits,
            verified=True if i in hits else None,
            **({"success_8bit": True if i in hits else None, "linf": eps, "forwards": 2} | fields),
        )  # fmt: skip
        for i in ids
    ]


def of(lines: list[Line], **config: Any) -> dict[str, Any]:
    return aggregate(CONFIG | config, lines)["models"][0]  # type: ignore[no-any-return]


def test_cascade() -> None:
    lines = clean(wrong=(0,)) + tried("a", range(1, 10), {1, 2, 3}) + tried("b", range(4, 10), {4})
    model = of(lines)
    a, b = model["attacks"]
    assert model["clean_accuracy"]["value"] == 0.9
    assert (a["left"]["value"], a["broken"], a["attempted"], a["success_rate"]["n"]) == (0.6, 3, 9, 9)
    assert (b["left"]["value"], b["broken"], b["attempted"], b["success_rate"]["value"]) == (0.5, 1, 6, 1 / 6)
    assert model["robust_accuracy"]["value"] == model["robust_accuracy_8bit"]["value"] == 0.5
    assert model["robust_accuracy"]["n"] == 10
    assert (a["median_distance"], a["forwards"]) == (0.2, 2)


def test_full_counts_the_worst_case_of_each_sample() -> None:
    lines = clean() + tried("a", range(10), {1, 2}) + tried("b", range(10), {2, 3, 4})
    model = of(lines)
    assert [attack["left"]["value"] for attack in model["attacks"]] == [0.8, 0.6]
    assert [attack["attempted"] for attack in model["attacks"]] == [10, 10]
    assert [attack["broken"] for attack in model["attacks"]] == [2, 3]


@pytest.mark.parametrize(
    ("fields", "robust"),
    [
        ({"success": True, "verified": True}, 0.9),
        ({"success": True, "verified": False}, 1.0),
        ({"success": True, "verified": None}, 1.0),
        ({"error": "CUDA error"}, 0.9),
        ({"success": True, "verified": True, "error": "late"}, 0.9),
    ],
)
def test_only_verified_successes_break_and_errors_are_never_robust(fields: dict[str, Any], robust: float) -> None:
    lines = clean() + tried("a", range(10), ()) + tried("b", range(10), ())
    for name, value in fields.items():
        setattr(lines[10], name, value)
    assert of(lines)["robust_accuracy"]["value"] == robust


def test_a_standing_sample_without_a_line_is_not_robust() -> None:
    model = of(clean() + tried("a", range(10), ()) + tried("b", range(8), ()))
    assert model["robust_accuracy"]["value"] == 0.8
    assert [attack["missing"] for attack in model["attacks"]] == [0, 2]


def test_what_rounding_undoes_is_robust_in_8_bits_unless_another_attack_holds() -> None:
    undone = tried("a", range(10), {1, 2}, success_8bit=False)
    model = of(clean() + undone + tried("b", range(10), {2}))
    assert model["robust_accuracy"]["value"] == 0.8
    assert model["robust_accuracy_8bit"]["value"] == 0.9
    assert model["attacks"][0]["success_8bit"] == 0


def test_curve_carries_what_fell_and_uses_the_suite_at_the_headline() -> None:
    lines = clean(wrong=(0,)) + tried("a", range(1, 10), {2, 3}) + tried("b", range(4, 10), {9})
    lines += tried("a", range(1, 10), {1}, eps=0.1)  # id 1 falls at 0.1 but stands at 0.2 in the cascade
    lines += tried("a", range(4, 10), {4}, eps=0.4)
    curve = of(lines)["curve"]
    assert [point["eps"] for point in curve] == [0.0, 0.1, 0.2, 0.4]
    assert [point["share"]["value"] for point in curve] == [0.9, 0.8, 0.5, 0.4]


def test_curve_at_the_headline_counts_the_whole_suite() -> None:
    lines = clean() + tried("a", range(10), {1}) + tried("b", [0, *range(2, 10)], {2})
    assert of(lines, curve={"attack": "b", "eps": [0.2]})["curve"][-1]["share"]["value"] == 0.8
    assert of(lines, curve={"attack": "a", "eps": [0.2]})["curve"][-1]["share"]["value"] == 0.8


def test_what_withstood_a_budget_counts_as_robust_below_it() -> None:
    lines = clean() + tried("a", range(10), {1, 2}) + tried("b", [0, *range(3, 10)], ()) + tried("a", [1, 2], {2}, 0.1)
    assert [(p["eps"], p["share"]["value"]) for p in of(lines)["curve"]] == [(0.0, 1.0), (0.1, 0.9), (0.2, 0.8)]


def test_a_point_that_was_not_run_is_left_out() -> None:
    lines = clean() + tried("a", range(10), {1}) + tried("b", range(10), ()) + tried("a", range(2, 6), (), eps=0.4)
    assert [point["eps"] for point in of(lines)["curve"]] == [0.0, 0.2]


def test_worst_class_is_named() -> None:
    lines = clean() + tried("a", range(10), {1, 3, 4}) + tried("b", range(10), ())
    worst = aggregate(CONFIG, lines, classes=["cat", "dog"])["models"][0]["worst_class"]
    assert (worst["name"], worst["robust_accuracy"]["value"], worst["robust_accuracy"]["n"]) == ("dog", 0.6, 5)


def test_classes_as_bad_as_the_worst_are_counted() -> None:
    lines = [Line(model="m", attack="clean", eps=0.0, id=i, label=i % 4, clean=i % 4) for i in range(10)]
    lines += [
        Line(model="m", attack="a", eps=0.2, id=i, label=i % 4, clean=i % 4, success=hit, verified=hit)
        for i in range(10)
        for hit in [i in (0, 1, 6)]  # 2 of 3, 2 of 3, 1 of 2 and 2 of 2 images stay
    ]
    worst = of(lines, attacks=[{"name": "a"}])["worst_class"]
    assert (worst["label"], worst["robust_accuracy"]["value"], worst["ties"]) == (2, 0.5, 0)
    lines[13].success = lines[13].verified = True  # id 3, of the last class
    worst = of(lines, attacks=[{"name": "a"}])["worst_class"]
    assert (worst["label"], worst["robust_accuracy"]["value"], worst["ties"]) == (2, 0.5, 1)


def test_pair_is_second_minus_first_on_the_same_samples() -> None:
    lines = clean() + tried("a", range(10), range(6)) + tried("b", range(6, 10), ())
    lines += clean((0,), model="n") + tried("a", range(1, 10), {9}, model="n") + tried("b", range(1, 9), (), model="n")
    (pair,) = aggregate(CONFIG | {"models": [{"name": "m"}, {"name": "n"}]}, lines)["pairs"]
    assert pair["clean"]["value"] == pytest.approx(-0.1)
    assert pair["robust"]["value"] == pytest.approx(0.4)
    assert (pair["robust"]["only_first"], pair["robust"]["only_second"]) == (1, 5)


def test_no_attack_means_not_run() -> None:
    model = of(clean(), attacks=[], curve=None)
    assert model["robust_accuracy"] is None and model["attacks"] == [] and model["curve"] == []
