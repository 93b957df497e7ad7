"""The programs in examples/ run as they are."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_stickers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLES / "stickers.py"))["main"]
    main(["--output", str(tmp_path), "--steps", "2", "--scenes", "10"])
    said = capsys.readouterr().out
    assert "black and white" in said and said.count(", n = ") == 4
    assert (tmp_path / "stop.safetensors").exists()
    with pytest.raises(SystemExit):  # it replaces nothing
        main(["--output", str(tmp_path)])
