"""Kept examples: the same however the samples are cut into units, and files that never collide."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from robustlab.runs.kept import image_name, keep_candidates, slug


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
