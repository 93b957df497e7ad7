"""Preprocessing by name, with parameters, and as a card."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustlab.base.cards import card_names
from robustlab.base.errors import UserError
from robustlab.defenses import BitDepth, make_defense
from robustlab.defenses.base import Defense
from robustlab.defenses.cards import read_defense


def test_every_card_makes_one() -> None:
    names = card_names("defenses", "defense")
    assert {"jpeg", "bit-depth", "median", "random-resize"} <= set(names)
    for name in names:
        label, table = read_defense(name)
        assert label == name and type(make_defense(table)).wrap is not Defense.wrap


def test_parameters_override_the_card(tmp_path: Path) -> None:
    label, table = read_defense("bit-depth:bits=2")
    assert label == "bit-depth:bits=2" and make_defense(table) == BitDepth(bits=2)
    path = tmp_path / "mine.toml"
    path.write_text('[defense]\nmethod = "bit-depth"\nbits = 5\n')
    assert read_defense(str(path)) == ("mine", {"method": "bit-depth", "bits": 5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpg", "no defense 'jpg'. Did you mean 'jpeg'"),
        ("n-fgsm", "another command: robustlab train --recipe n-fgsm"),
        ("spectral", "another command: robustlab backdoor --filter spectral"),
        ("jpeg:", "no parameter follows the colon"),
        ("jpeg:quality", "'quality' in 'jpeg:quality' is no key=value"),
        ("jpeg:quality=1,quality=2", "says quality twice"),
        ("none.toml", "There is no card 'none.toml'"),
    ],
)
def test_what_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_defense(text)


def test_a_card_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for text, message in (
        ('[defense]\nmethod = "jpge"\n', "needs a method out of .*; got 'jpge'"),
        ("[defense]\n", "got None"),
        ("other = 1\n", "unknown key 'other'"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_defense(str(path))
    with pytest.raises(UserError, match="quality must be of the type int, got str"):
        make_defense(read_defense("jpeg:quality=high")[1])
    with pytest.raises(UserError, match="unknown key 'qualty'.*quality"):
        make_defense(read_defense("jpeg:qualty=3")[1])
