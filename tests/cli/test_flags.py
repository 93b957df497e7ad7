"""Flags as values, and parameters that errors name as the caller types them."""

from __future__ import annotations

import pytest

from robustlab.base.environment import resolve_device
from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.cli.flags import parse_size
from robustlab.evaluation.options import Options


@pytest.mark.parametrize("text", ["", "x", "12x", "3x4x5", "-3", "1.5", "٣"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--size is a side in pixels"):
        parse_size(text)


@pytest.mark.parametrize(
    ("values", "flags", "said"),
    [
        ({"batch_size": 0}, "--batch-size 0", "batch_size must be at least 1|--batch-size must be at least 1"),
        ({"device": "gpu"}, "--device gpu", "device is one of|--device is one of"),
        (
            {"precision": "bfloat16", "search_copy": False},
            "--precision bfloat16 --no-search-copy",
            "precision='bfloat16' is about the search copy, which search_copy=False"
            "|--precision bfloat16 is about the search copy, which --no-search-copy",
        ),
        ({"curve": ["x"]}, "--curve x", "curve must be a number|--curve must be a number"),
    ],
)
def test_a_parameter_is_named_as_it_was_typed(
    values: dict[str, object], flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the command leaves the library as it was
        with pytest.raises(UserError) as error:
            Options(**values)  # type: ignore[arg-type]
        assert str(error.value).startswith(said.split("|")[0])
        assert main(["attack", *flags.split()]) == 2
        assert capsys.readouterr().err.startswith(f"robustlab: {said.split('|')[1]}")


def test_choices_are_those_of_the_types() -> None:
    for name, value in (("labels", "mine"), ("outputs", "odds"), ("precision", "float16"), ("full", 1)):
        with pytest.raises(UserError, match=f"{name} must be one of"):
            Options(**{name: value})  # type: ignore[arg-type]


def test_a_device_that_is_not_here() -> None:
    with pytest.raises(UserError, match="Use device='cpu', or leave it out"):
        resolve_device("cuda:99")
