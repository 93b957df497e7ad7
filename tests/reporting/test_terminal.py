"""The command's table fits its terminal: columns are left out and names cut, numbers never."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from robustlab.reporting import terminal_table, terminal_width
from robustlab.reporting.terminal import SPARED


def share(value: float) -> dict[str, Any]:
    return {"value": value, "low": value / 2, "high": (1 + value) / 2, "n": 1234}


def found(name: str = "pgd-margin", models: int = 3) -> dict[str, Any]:
    attack = {"left": share(0.123), "broken": 1111, "attempted": 1234, "median_distance": 0.0314, "forwards": 12345.6}
    attack |= {"backwards": 12345.6, "seconds": 12345.6, "name": name}
    result = {"model": "road-signs/cnn", "norm": "linf", "eps": 8 / 255, "clean_accuracy": share(0.987)}
    result |= {"attacks": [attack | {"name": "fgsm"}, attack], "robust_accuracy": share(0.123)}
    result |= {"robust_accuracy_8bit": share(0.125), "audit": None}
    pairs = [(f"model-{i}", f"model-{j}") for i in range(models) for j in range(models)]
    rows = [{"source": a, "target": b, "turned": share(0.456)} for a, b in pairs]
    return {"results": [result], "transfer": {"attack": "mi-fgsm", "rows": rows}}


@pytest.mark.parametrize("name", ["pgd-margin", "a-name-of-an-attack-" * 5])
@pytest.mark.parametrize("width", [200, 100, 80, 60, 40, 35])
def test_the_table_fits_and_no_number_is_cut(width: int, name: str) -> None:
    text = terminal_table(found(name), width)
    assert max(map(len, text.splitlines())) <= width
    assert len(re.findall(r"12\.3\u00a0%", text)) == 3  # both attacks, and the worst case
    assert not re.search(r"\d…", text) and len(re.findall(r"45\.6", text)) == 9
    kept = [heading for heading in SPARED if heading in text]
    assert kept == list(SPARED[len(SPARED) - len(kept) :])  # left out in their order
    assert bool(kept) == (width >= 60) and (len(kept) == len(SPARED)) == (
        width >= 100 and len(name) < 20 or width > 100
    )


def test_what_is_wider_than_any_terminal_is_whole_all_the_same() -> None:
    text = terminal_table(found(models=9), 30)
    assert len(re.findall(r"45\.6", text)) == 81


def test_the_width_is_that_of_the_terminal_or_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_width(io.StringIO()) == terminal_width(None) == 100
    for said, width in (("60", 60), ("132", 132), ("", 100), ("0", 100), ("wide", 100), ("-5", 100), ("99999999", 100)):
        monkeypatch.setenv("COLUMNS", said)
        assert terminal_width(io.StringIO()) == width
