"""The summary of a backdoor's run: means over seeds, and what is compared with what."""

from __future__ import annotations

from typing import Any

import pytest

from robustlab.base.intervals import share
from robustlab.reporting.backdoor_words import in_words
from robustlab.runs.backdoors import RANDOM, best, by_layer, control, no_better, summary, takes, within

Json = dict[str, Any]


def result(seed: int, name: str, kind: str, asr: int, clean: int = 90, trained: int = 100) -> Json:
    row = {"seed": seed, "row": name, "kind": kind, "trained": trained, "seconds": 2.0 + seed}
    return {**row, "clean": share(clean, 100), "asr": share(asr, 100), "right": share(0, 0)}


def info(rows: list[Json], filters: list[Json] | None = None) -> Json:
    models = [{"seed": 0, "n": 100, "poisons": 10}]
    named = {"results": rows, "filters": filters or [], "models": models}
    return {"sections": [{"name": name, "rows": found} for name, found in named.items()]}


def test_order_means_and_what_is_missing() -> None:
    rows = [result(seed, "spectral", "filter", 40 + 20 * seed, trained=85) for seed in (0, 1)]
    rows += [result(0, "pruned", "repair", 5), result(0, "perfect", "control", 1, trained=90)]
    rows += [result(seed, "undefended", "undefended", 100) for seed in (0, 1)]
    filters = [
        {"seed": seed, "filter": "spectral", "knew": "eps", "auroc": area, "removed": 15, "left": 4 - seed}
        for seed, area in ((0, 0.5), (1, None))
    ]
    found = summary(info(rows, filters))
    assert [row["row"] for row in found] == ["undefended", "perfect", "spectral", "pruned"]
    first, perfect, spectral, pruned = found
    assert spectral["asr"] == {"value": 0.5, "low": 0.4, "high": pytest.approx(0.6), "n": 2}
    assert spectral["auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 1} and spectral["right"] is None
    assert (spectral["knew"], spectral["removed"], spectral["left"], spectral["seconds"]) == ("eps", 15.0, 3.5, 2.5)
    assert (first["removed"], first["left"], perfect["removed"], pruned["removed"]) == (0.0, 10.0, 10.0, None)
    assert first["auroc"] is None and perfect["tpr"] is None and (first["seeds"], pruned["seeds"]) == (2, 1)


def test_nothing_to_sum_up() -> None:
    assert summary({}) == [] and summary({"sections": []}) == [] and best([]) is None and no_better([]) is None
    assert by_layer({}) == ([], []) and within({}, "spectral") == {"asr": None, "clean": None, "beside": None}


def test_the_best_filter_beside_its_own_controls() -> None:
    rows = [result(0, "a", "filter", 10, 80), result(0, "b", "filter", 10, 85), result(0, "c", "filter", 50, 99)]
    rows += [result(0, "perfect", "control", 2, 95), result(0, "random, as many as a", "control", 97)]
    rows += [result(0, "perfect, as few as a", "control", 2, 90), result(0, "perfect, as few as b", "control", 2, 88)]
    found = summary(info(rows))
    first = best(found)
    assert first and first["row"] == "b"
    far = within(info(rows), "b")
    assert far["asr"] == pytest.approx(0.08) and far["clean"] == pytest.approx(-0.03)
    assert far["beside"] == "perfect, as few as b"
    assert within(info(rows), "c")["beside"] == "perfect, as few as a"  # neither is its own, and as large as the other
    alone = control(found, "random, as many as ", "b")
    assert alone and alone["row"] == "random, as many as a"


def test_of_controls_that_are_not_its_own_the_nearest_in_size() -> None:
    rows = [
        result(0, f"random, as many as {name}", "control", 9, trained=left) for name, left in (("a", 95), ("b", 80))
    ]
    rows += [result(0, "undefended", "undefended", 9), result(0, "c", "filter", 9)]
    for removed, nearest in ((18, "b"), (7, "a")):
        found = control(summary(info(rows, [{"seed": 0, "filter": "c", "removed": removed}])), RANDOM, "c")
        assert found and found["row"] == f"random, as many as {nearest}"


def test_filters_after_which_nothing_was_trained() -> None:
    filters = [{"seed": 0, "filter": "a", "auroc": 0.75, "seconds": 2.0}]
    first, row = summary(info([result(0, "undefended", "undefended", 99)], filters))
    assert (row["row"], row["kind"], row["asr"], row["seconds"], row["seeds"]) == ("a", "filter", None, 2.0, 1)
    assert best([first, row]) is None and in_words(info([], filters))[1].split()[:5] == ["a", "–", "–", "–", "0.750"]


def test_the_least_and_the_most_are_printed_of_several_seeds() -> None:
    lines = in_words(info([result(seed, "undefended", "undefended", 90 + seed, 80) for seed in (0, 1)]))
    assert "80.0 (80.0–80.0)" in lines[1] and "90.5 (90.0–91.0)" in lines[1] and "2 seeds" in lines[2]


@pytest.mark.parametrize(("asr", "said"), [(11, False), (12, True), (90, True)])
def test_a_backdoor_takes_where_it_is_above_the_perfect_filter(asr: int, said: bool) -> None:
    rows = [result(0, "undefended", "undefended", asr), result(0, "perfect", "control", 1)]
    assert takes(summary(info(rows))) is said and takes([]) is None


def test_the_printed_table_is_aligned_and_shows_what_is_hidden() -> None:
    rows = [result(0, "undefended", "undefended", 100), result(0, "b\u202e", "filter", 7)]
    lines = in_words(info(rows, [{"seed": 0, "filter": "b\u202e", "auroc": 0.5, "removed": 1500, "left": 3}]))
    assert len({len(line) for line in lines[:-1]}) == 1 and "\u202e" not in lines[2]
    assert lines[2].split()[1:4] == ["90.0", "7.0", "–"] and "0.500" in lines[2] and "1,500" in lines[2]


@pytest.mark.parametrize(("asr", "said"), [(95, True), (85, True), (84, False), (None, None)])
def test_no_better_than_random(asr: int | None, said: bool | None) -> None:
    rows = [result(0, "random, as many as spectral", "control", 95)]
    rows += [result(0, "spectral", "filter", asr)] if asr is not None else []
    assert no_better(summary(info(rows))) is said


def test_only_the_same_seeds_and_sizes_are_compared() -> None:
    """A filter that failed for a seed, and a random one that removed far fewer, are no match."""
    rows = [result(seed, "undefended", "undefended", 90) for seed in (0, 1)]
    rows += [result(seed, "perfect", "control", 1 + 8 * seed, trained=90) for seed in (0, 1)]
    rows += [result(0, "spectral", "filter", 1, trained=60), result(0, RANDOM + "a", "control", 80, trained=99)]
    filters = [{"seed": 0, "filter": "spectral", "removed": 40}]
    rows += [result(seed, "a", "filter", 50, trained=99) for seed in (0, 1)]
    found = summary(info(rows, filters))
    assert within(info(rows, filters), "spectral")["asr"] is None
    assert (best(found) or {})["row"] == "a" and no_better(found) is None
    assert any("spectral (1 of 2 seeds)" in line for line in in_words(info(rows, filters)))
