"""Cards go to the command that takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustlab.base.cards import COMMANDS, card_folder, card_names, find_card, read_toml
from robustlab.base.errors import UserError
from robustlab.cli import main


@pytest.mark.parametrize("kind", ["attacks", "defenses"])
def test_every_card_is_for_one_command_and_says_where_it_is_from(kind: str) -> None:
    for name in card_names(kind):
        card = read_toml(card_folder(kind) / f"{name}.toml")
        assert len({COMMANDS[table] for table in card if table in COMMANDS}) == 1, name
        assert card["source"] and (card.get("description") or card["summary"]), name
        assert f"({name}.toml)" in (card_folder(kind) / "README.md").read_text(), name


def test_names_by_table() -> None:
    assert "badnets" in card_names("attacks", "backdoor") and "badnets" not in card_names("attacks", "attack", "patch")
    assert set(card_names("attacks")) == set(card_names("attacks", "attack", "sticker", "patch", "backdoor"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attack", "--suite", "badnets"], "robustlab backdoor --card badnets."),
        (["attack", "--suite", "badnet"], "Known: autoattack-l1"),
        (["train", "cnn", "--recipe", "spectral"], "robustlab backdoor --filter spectral."),
        (["train", "cnn", "--recipe", "plane"], "Did you mean 'plain'? Known: distillation, fast-at,"),
    ],
)
def test_a_card_for_another_command(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_card_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[filter]\nmethod = "spectral"\n')
    assert find_card("defenses", str(path)) == find_card("defenses", str(path), "filter") == path
    with pytest.raises(UserError, match="--filter .*mine.toml"):
        find_card("defenses", str(path), "recipe")
    path.write_text("nothing = 1\n")
    assert find_card("defenses", str(path), "recipe") == path  # the reader says what is missing


@pytest.mark.parametrize("command", ["attack", "train"])
def test_help_lists_only_what_the_command_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert "tran-2018-5" not in said and "spectral" not in said
