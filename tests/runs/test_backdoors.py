"""The summary of a backdoor's run: means over seeds, and what is compared with what."""

from __future__ import annotations

from typing import Any

import pytest

from robustlab.base.intervals import share
from robustlab.runs.backdoors import best, by_layer, control, no_better, summary, within

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
    assert within(info(rows), "c")["clean"] is None  # two such controls, and neither is its own
    alone = control(found, "random, as many as ", "b")
    assert alone and alone["row"] == "random, as many as a"


@pytest.mark.parametrize(("asr", "said"), [(95, True), (85, True), (84, False), (None, None)])
def test_no_better_than_random(asr: int | None, said: bool | None) -> None:
    rows = [result(0, "random, as many as spectral", "control", 95)]
    rows += [result(0, "spectral", "filter", asr)] if asr is not None else []
    assert no_better(summary(info(rows))) is said
