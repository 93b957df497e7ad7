"""Kept examples: the same however the samples are cut into units, and files that never collide."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from robustlab.base.files import slug
from robustlab.runs.aggregates import Line
from robustlab.runs.examples import MOST, chosen_images, image_name, keep_candidates


@given(st.text(max_size=80), st.text(max_size=80))
def test_slugs_are_safe_file_names_and_tell_names_apart(a: str, b: str) -> None:
    assert (slug(a) == slug(b)) == (a == b)
    assert len(image_name("delta", 2**63, a, b).encode()) <= 255
    assert "/" not in slug(a) and not slug(a).startswith(".")


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=60), st.integers(1, 4), st.integers(1, 20))
def test_candidates_of_chunks_contain_those_of_the_whole(ids: list[int], k: int, size: int) -> None:
    labels = [i % 3 for i in ids]
    hits = [i % 2 == 0 for i in ids]
    whole = keep_candidates(0, k, ids, labels, hits)
    chunks = [slice(at, at + size) for at in range(0, len(ids), size)]
    of_chunks = {i for cut in chunks for i in keep_candidates(0, k, ids[cut], labels[cut], hits[cut])}
    assert set(whole) <= of_chunks
    for label in range(3):
        for hit in (True, False):
            stratum = [i for i in ids if i % 3 == label and (i % 2 == 0) == hit]
            assert len(set(whole) & set(stratum)) == min(k, len(stratum))


def test_the_seed_decides_who_is_kept() -> None:
    ids = list(range(200))
    kept = [tuple(keep_candidates(seed, 5, ids, [0] * 200, [True] * 200)) for seed in range(4)]
    assert len(set(kept)) == 4


@given(
    st.lists(st.integers(0, 10**6), unique=True, min_size=100, max_size=400),
    st.integers(1, 3),
    st.integers(1, 200),
    st.integers(20, 300),
)
def test_with_many_classes_few_are_kept_and_units_lose_none(ids: list[int], k: int, size: int, classes: int) -> None:
    labels, hits = [i % classes for i in ids], [i % 7 < 4 for i in ids]
    whole = keep_candidates(0, k, ids, labels, hits)
    for outcome in (True, False):
        assert sum(hits[ids.index(i)] == outcome for i in whole) <= MOST
    chunks = [slice(at, at + size) for at in range(0, len(ids), size)]
    kept = sorted(i for cut in chunks for i in keep_candidates(0, k, ids[cut], labels[cut], hits[cut]))
    at = [ids.index(i) for i in kept]
    assert keep_candidates(0, k, kept, [labels[i] for i in at], [hits[i] for i in at]) == whole


def test_only_what_all_of_the_suite_tried_and_left_is_robust() -> None:
    config = {"models": [{"name": "m"}], "attacks": [{"name": "a"}, {"name": "b"}], "seed": 0, "keep": 9}
    lines = [Line(model="m", attack="clean", eps=0.0, id=i, label=0, clean=0) for i in range(4)]
    lines += [Line(model="m", attack="a", eps=0.1, id=i, label=0, clean=0, adv=0) for i in range(4)]
    lines += [
        Line(model="m", attack="b", eps=0.1, id=0, label=0, clean=0, adv=0),
        Line(model="m", attack="b", eps=0.1, id=1, label=0, clean=0, adv=1, success=True, verified=True),
        Line(model="m", attack="b", eps=0.1, id=2, label=0, clean=0, error="died"),  # and 3 is not tried
    ]
    images = chosen_images(config | {"threat": {"norm": "linf", "eps": 0.1}}, lines)
    assert {(image["id"], image["robust"]) for image in images} == {(0, True), (1, False), (2, False), (3, False)}
