"""Classes of the data and outputs of the model: which stands for which."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.data.matching import matched
from robustlab.data.selection import class_index
from robustlab.threat.model import ThreatModel


def made(classes: Sequence[str], labels: Sequence[int] | None = None) -> Data:
    labels = list(range(len(classes))) if labels is None else labels
    n = len(labels)
    return Data(
        "mine",
        "test",
        torch.rand(n, 1, 2, 2),
        torch.tensor(labels),
        torch.arange(n),
        tuple(classes),
        "0",
        ThreatModel(),
    )


def labels(data: Data, names: Sequence[str] | None, outputs: int) -> list[int]:
    return matched(data, [("net", names, outputs)]).labels.tolist()


ANIMALS = ["cat", "great white shark", "dog", "emu"]


def test_as_many_classes_by_name_whatever_their_order() -> None:
    found = matched(made(["Dog", "EMU", "cat", "great_white-shark"]), [("net", ANIMALS, 4)])
    assert found.labels.tolist() == [2, 3, 0, 1] and found.classes == tuple(ANIMALS) and found.relabelled


def test_as_many_classes_without_names_in_common_in_order() -> None:
    data = made(["n01", "n02", "n03", "n04"])
    assert matched(data, [("net", ANIMALS, 4)]) is data
    assert matched(data, [("net", None, 4)]) is data
    assert labels(made([str(k) for k in (1, 2, 3)]), None, 3) == [0, 1, 2]
    assert labels(made([str(k) for k in (1, 2, 3)]), ["0", "1", "2"], 3) == [0, 1, 2]


def test_as_many_classes_some_of_them_at_another_place() -> None:
    with pytest.raises(UserError, match="in another order: 'dog' is class 1 of the data and output 2 .* no 'shark'"):
        labels(made(["cat", "dog", "emu", "shark"]), ANIMALS, 4)


def test_numbers_that_are_names_are_not_places() -> None:
    """Speed limits: "30" is no output 30, and not in order just because it is a number."""
    with pytest.raises(UserError, match="in another order: '30' is class 0 of the data and output 1"):
        labels(made(["30", "50", "70"]), ["20", "30", "50"], 3)
    limits = [str(10 * k) for k in range(40)]
    assert labels(made(["30", "50"]), limits, 40) == [3, 5]
    with pytest.raises(UserError, match="'31' does not"):
        labels(made(["30", "31"]), limits, 40)


@pytest.mark.parametrize(
    ("classes", "names", "wanted"),
    [
        (["emu", "cat"], ANIMALS, [3, 0]),
        (["3", "1"], ANIMALS, [3, 1]),
        (["3", "1"], None, [3, 1]),
        (["dog", "3"], ANIMALS, [2, 3]),
        (["1"], ["1", "0"], [0]),
    ],
)
def test_fewer_classes_by_name_or_number(classes: list[str], names: list[str] | None, wanted: list[int]) -> None:
    assert labels(made(classes), names, len(names or ANIMALS)) == wanted


def test_only_the_classes_that_occur_need_an_output() -> None:
    assert labels(made(["cat", "cache", "emu"], [0, 2, 2]), ANIMALS, 4) == [0, 3, 3]
    many = made(["ant", *ANIMALS, "fox"], [1, 4])
    assert labels(many, ANIMALS, 4) == [0, 3]
    with pytest.raises(UserError, match="has 6 classes and net has 4.*'ant' does not"):
        labels(made(["ant", *ANIMALS, "fox"], [0, 4]), ANIMALS, 4)


def test_fewer_classes_with_other_names() -> None:
    with pytest.raises(
        UserError,
        match=r"has 2 classes and net has 4.*\('cat', .*\) or number of an output, 0 to 3.*'lion', '7' do not",
    ):
        labels(made(["lion", "7"]), ANIMALS, 4)
    with pytest.raises(UserError, match="number of an output, 0 to 8 .they have no names.*labels='predicted'"):
        labels(made(["lion"]), None, 9)


def test_a_name_of_two_outputs_must_be_numbered() -> None:
    """ImageNet has two kinds of crane."""
    names = ["crane", "emu", "crane"]
    with pytest.raises(UserError, match="'crane' does not"):
        labels(made(["crane"]), names, 3)
    assert labels(made(["2", "emu"]), names, 3) == [2, 1]
    assert labels(made(names), names, 3) == [0, 1, 2]
    with pytest.raises(UserError, match="'1', 'emu' all stand for output 1"):
        labels(made(["1", "emu"]), names, 3)


def test_models_must_see_the_classes_alike() -> None:
    data = made(["cat", "dog"])
    both = [("a", ("dog", "cat"), 2), ("b", ("dog", "cat", "emu"), 3)]
    assert matched(data, both).labels.tolist() == [1, 0]
    with pytest.raises(
        UserError, match="a and c do not have the same outputs.*'cat' is output 1 of one and 0 of the other"
    ):
        matched(data, [both[0], ("c", ("cat", "dog"), 2)])


def test_labels_that_no_class_has() -> None:
    with pytest.raises(UserError, match="from 0 to 1, since it names 2 classes; got 0 to 5"):
        labels(made(["cat", "dog"], [0, 5]), None, 2)
    assert labels(made([], [0, 5]), None, 6) == [0, 5]  # no names at all: numbers


APART, TOGETHER = "zu\u0308rich", "z\u00fcrich"  # a Mac writes folder names with letters and their dots apart


def test_names_in_another_unicode_form_are_the_same() -> None:
    assert labels(made([APART, "A\u0308gypten"]), ["\u00e4gypten", TOGETHER], 2) == [1, 0]
    assert labels(made([APART, "ulm"]), ["ulm", TOGETHER, "bonn"], 3) == [1, 0]
    assert class_index(TOGETHER, ["ulm", APART]) == class_index(APART, ["ulm", TOGETHER]) == 1
    assert class_index(APART, [TOGETHER, APART]) == 1  # where both occur, the one that is typed


def test_a_name_of_two_classes_means_none_of_them() -> None:
    with pytest.raises(UserError, match="2 classes are called 'crane': give the number of one, 0 or 2"):
        class_index("crane", ["crane", "goose", "crane"])
    assert class_index("2", ["crane", "goose", "crane"]) == 2


def test_names_that_only_look_alike_are_not() -> None:
    """Form K would merge these: x squared and x2, a ligature and its letters."""
    assert labels(made(["x\u00b2", "y"]), ["x2", "y"], 2) == [0, 1]  # in order
    with pytest.raises(UserError, match="There is no class 'x\u00b2'"):
        class_index("x\u00b2", ["x2", "y"])
