"""Confusion, confidence, factors and verification against numbers counted by hand."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.evaluation import judging
from robustlab.runs import breakdowns
from robustlab.runs.aggregates import Line, ModelLines, aggregate, by_unit
from robustlab.runs.breakdowns import Answer, answers, confidence, confusion, verification
from robustlab.runs.factors import Bin, bins, by_factor

EPS = 0.2


def clean(id: int, label: int, predicted: int, sure: float = 0.9, **fields: Any) -> Line:
    return Line(
        **{"model": "m", "attack": "clean", "eps": 0.0, "id": id, "label": label}
        | {"clean": predicted, "adv": predicted, "confidence": sure}
        | fields
    )


def tried(attack: str, id: int, label: int, adv: int, sure: float = 0.6, **fields: Any) -> Line:
    hit = adv != label
    known = {"success": hit, "verified": True if hit else None, "success_8bit": True if hit else None, "linf": EPS}
    return Line(
        **{"model": "m", "attack": attack, "eps": EPS, "id": id, "label": label, "clean": label}
        | {"adv": adv, "confidence": sure}
        | known
        | fields
    )


def of(*lines: Line, suite: tuple[str, ...] = ("a", "b")) -> list[Answer]:
    return answers(ModelLines(by_unit(lines)["m"], suite, EPS))


# sample 0 is broken by a; 1 by b; 2 withstands both; 3 is wrong from the start
LINES = (
    clean(0, 0, 0, 0.95),
    clean(1, 0, 0, 0.85),
    clean(2, 1, 1, 0.75),
    clean(3, 1, 2, 0.55),
    tried("a", 0, 0, 2, 0.65),
    tried("a", 1, 0, 0, 0.45),
    tried("a", 2, 1, 1, 0.7),
    tried("b", 1, 0, 1, 0.5),
    tried("b", 2, 1, 1, 0.72),
)


def test_the_worst_case_of_each_sample() -> None:
    broken, later, robust, wrong = of(*LINES)
    assert (broken.attacked, broken.attacked_confidence, broken.attack) == (2, 0.65, "a")
    assert (later.attacked, later.attacked_confidence, later.attack) == (1, 0.5, "b")
    assert (robust.attacked, robust.attacked_confidence, robust.attack, robust.robust) == (1, 0.72, None, True)
    assert (wrong.attacked, wrong.attacked_confidence, wrong.right) == (2, 0.55, False)


def test_the_first_attack_of_the_suite_decides_when_several_broke_it() -> None:
    (answer,) = of(clean(0, 0, 0), tried("b", 0, 0, 1, 0.99), tried("a", 0, 0, 2, 0.51))
    assert (answer.attack, answer.attacked, answer.attacked_confidence) == ("a", 2, 0.51)


def test_an_unverified_success_is_no_answer_of_the_model() -> None:
    (answer,) = of(clean(0, 0, 0, 0.8), tried("a", 0, 0, 1, 0.99, verified=False), suite=("a",))
    assert answer.robust and (answer.attacked, answer.attacked_confidence) == (0, 0.8)


@pytest.mark.parametrize(
    "lines", [(), (tried("a", 0, 0, 0),), (tried("a", 0, 0, 0, error="died"), tried("b", 0, 0, 0))]
)
def test_where_an_attack_is_missing_or_failed_the_worst_case_is_not_known(lines: tuple[Line, ...]) -> None:
    (answer,) = of(clean(0, 0, 0), *lines)
    assert answer.attacked is answer.attacked_confidence is None and not answer.robust
    assert confusion([answer])["unknown"] == 1 and confidence([answer])["attacked"]["n"] == 0


def test_an_error_on_the_clean_image_is_no_answer() -> None:
    (answer,) = of(clean(0, 0, 0, error="NaN"), suite=())
    assert answer.clean is None and not answer.right and confusion([answer])["cells"] == []


def test_without_attacks_nothing_is_robust() -> None:
    assert [(a.attacked, a.robust) for a in of(*LINES, suite=())] == [(None, False)] * 4


def test_confusion() -> None:
    counts = confusion(of(*LINES))
    cells = {(c["true"], c["predicted"]): (c["clean"], c["attacked"], c["difference"]) for c in counts["cells"]}
    assert cells == {
        (0, 0): (2, 0, -2),
        (0, 1): (0, 1, 1),
        (0, 2): (0, 1, 1),
        (1, 1): (1, 1, 0),
        (1, 2): (1, 1, 0),
    }
    assert [(f["true"], f["predicted"], f["count"], f["share"]["value"]) for f in counts["flows"]] == [
        (0, 1, 1, 0.5),
        (0, 2, 1, 0.5),
    ]
    assert (counts["members"], counts["unknown"], counts["n"]) == ({0: 2, 1: 2}, 0, 4)


def test_the_difference_is_of_the_same_samples() -> None:
    counts = confusion(of(clean(0, 0, 0), clean(1, 0, 0), tried("a", 0, 0, 0), suite=("a",)))
    assert counts["cells"] == [{"true": 0, "predicted": 0, "clean": 2, "attacked": 1, "difference": 0}]


def test_agrees_with_the_aggregates() -> None:
    config = {"models": [{"name": "m"}], "attacks": [{"name": "a"}, {"name": "b"}], "seed": 0}
    (model,) = aggregate(config | {"threat": {"norm": "linf", "eps": EPS}}, LINES)["models"]
    counts, sure = confusion(of(*LINES)), confidence(of(*LINES))
    diagonal = [c for c in counts["cells"] if c["true"] == c["predicted"]]
    for kind, share in (("clean", model["clean_accuracy"]), ("attacked", model["robust_accuracy"])):
        assert sum(c[kind] for c in diagonal) == share["value"] * 4
        assert sure[kind]["accuracy"] == share


def test_confidence() -> None:
    found = confidence(of(*LINES))["attacked"]  # wrong: 0.65, 0.5, 0.55; right: 0.72
    assert found["when_wrong"] == pytest.approx(fmean([0.65, 0.5, 0.55])) and found["when_right"] == 0.72
    assert [(b["low"], b["accuracy"]["n"], b["accuracy"]["value"]) for b in found["bins"]] == [
        (0.5, 2, 0.0),
        (0.6, 1, 0.0),
        (0.7, 1, 1.0),
    ]
    assert found["ece"] == pytest.approx((2 * 0.525 + 0.65 + 0.28) / 4)
    assert found["wrong_sure"]["value"] == 0 and found["wrong_sure"]["n"] == 3


def test_full_confidence_belongs_to_the_last_bin() -> None:
    found = confidence(of(clean(0, 0, 1, 1.0), clean(1, 0, 0, 0.95), clean(2, 0, 0, 0.9), suite=()))["clean"]
    (last,) = found["bins"]
    assert (last["low"], last["high"], last["accuracy"]["n"]) == (0.9, 1.0, 3)
    assert found["wrong_sure"]["value"] == 1


def test_a_calibrated_model_has_no_error_and_a_sure_wrong_one_has_all() -> None:
    half = [clean(i, 0, i % 2, 0.5) for i in range(10)]
    assert confidence(of(*half, suite=()))["clean"]["ece"] == 0
    wrong = confidence(of(*(clean(i, 0, 1, 1.0) for i in range(5)), suite=()))["clean"]
    assert wrong["ece"] == 1 and wrong["when_right"] is None


def verified(*lines: Line, norm: str = "linf", passes: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    config = {"models": [{"name": "m"}], "attacks": [{"name": "a"}], "seed": 0, "threat": {"norm": norm, "eps": EPS}}
    (model,) = aggregate(config, lines, passes=passes)["models"]
    return verification(model, by_unit(lines)["m"], norm, EPS)


def test_verification() -> None:
    lines = [clean(i, 0, 0) for i in range(6)]
    lines += [tried("a", 0, 0, 1), tried("a", 1, 0, 1, success_8bit=False), tried("a", 2, 0, 1, verified=False)]
    lines += [tried("a", 3, 0, 0), tried("a", 4, 0, 0, error="died")]  # 5 is missing
    info = {"model": "m", "attack": "a", "eps": EPS, "refused": 3, "unverified": 1, "leaves_8bit": 1}
    (row,) = verified(*lines, passes=(info,))["attacks"]
    assert row == {
        "name": "a",
        "attempted": 5,
        "claimed": 6,
        "unverified": 4,
        "confirmed": 2,
        "undone_8bit": 1,
        "leaves_8bit": 1,
        "outside": 0,
        "errors": 1,
        "missing": 1,
    }


@pytest.mark.parametrize(("size", "outside"), [(EPS, 0), (EPS + 9e-7, 0), (EPS + 2e-6, 1), (None, 1), (math.nan, 1)])
def test_successes_outside_the_budget_are_found_whatever_the_run_said(size: float | None, outside: int) -> None:
    assert verified(clean(0, 0, 0), tried("a", 0, 0, 1, linf=size))["attacks"][0]["outside"] == outside
    elsewhere = verified(clean(0, 0, 0), tried("a", 0, 0, 0), tried("a", 0, 0, 1, eps=0.1, linf=size))["elsewhere"]
    assert elsewhere == {"confirmed": 1, "outside": 1}  # at 0.1, 0.2 is outside, too


def test_the_size_is_that_in_the_norm_of_the_run() -> None:
    line = tried("a", 0, 0, 1, linf=9.0, l2=EPS)
    assert verified(clean(0, 0, 0), line, norm="l2")["attacks"][0]["outside"] == 0
    assert breakdowns.allowed is judging.allowed  # the run's own judge lets the same pass


def test_by_factor() -> None:
    data = [{"id": i, "label": 0, "factors": {"size": i, "same": 1.0, "odd": None if i else 5.0}} for i in range(4)]
    rows = by_factor(of(*LINES), data, attacked=True)
    assert list(rows) == ["size"]  # the others do not vary
    assert [(r["low"], r["high"], r["clean"]["value"], r["robust"]["value"]) for r in rows["size"]] == [
        (0.0, 0.0, 1.0, 0.0),
        (1.0, 1.0, 1.0, 0.0),
        (2.0, 2.0, 1.0, 1.0),
        (3.0, 3.0, 0.0, 0.0),
    ]
    assert all(r["robust"] is None for r in by_factor(of(*LINES, suite=()), data, attacked=False)["size"])
    assert by_factor(of(*LINES), [{"id": 0, "label": 0}], attacked=True) == {}


def test_where_every_attack_failed_nothing_is_robust_by_any_factor() -> None:
    lines = [clean(i, 0, 0) for i in range(2)] + [tried("a", i, 0, 0, error="died") for i in range(2)]
    rows = by_factor(of(*lines), [{"id": i, "factors": {"size": i}} for i in range(2)], attacked=True)["size"]
    assert [(row["clean"]["value"], row["robust"]["value"]) for row in rows] == [(1.0, 0.0)] * 2


def test_bins_of_a_ladder_have_round_edges_and_about_the_same_members() -> None:
    data = [{"id": i, "factors": {"distance": 3 * (35 / 3) ** (i / 499)}} for i in range(500)]  # as drawn: log-uniform
    found = of(*(clean(i, 0, 0) for i in range(500)), suite=())
    rows = by_factor(found, data, attacked=False)["distance"]
    assert [r["high"] for r in rows] == [5, 8, 14, 22, None] and rows[0]["low"] is None
    assert all(75 <= r["clean"]["n"] <= 125 for r in rows) and sum(r["clean"]["n"] for r in rows) == 500


def test_many_samples_without_something_are_a_bin_of_their_own() -> None:
    first, second, third, *_ = bins([0.0] * 700 + [0.253 + 0.4 * i / 300 for i in range(300)])
    assert (first, second, third.low) == (Bin(0, 0), Bin(0.24, 0.34), 0.34)


@given(st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=1, max_size=200))
def test_bins_hold_every_value_once(values: list[float]) -> None:
    edges = bins(values)
    assert 1 <= len(edges) <= 6
    for value in values:
        assert sum(value == b.low if b.low == b.high else b.low <= value < b.high for b in edges) == 1
    data = [{"id": i, "factors": {"f": value}} for i, value in enumerate(values)]
    found = of(*(clean(i, 0, 0) for i in range(len(values))), suite=())
    rows = by_factor(found, data, attacked=False).get("f", [])
    assert sum(r["clean"]["n"] for r in rows) == (len(values) if len(set(values)) > 1 else 0)
    assert len(rows) != 1
