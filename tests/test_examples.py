"""The programs in examples/ run as they are."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

from robustlab.worlds.road_signs import draw, faces, prepare, render

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_stickers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLES / "stickers.py"))["main"]
    main(["--output", str(tmp_path), "--steps", "2", "--scenes", "10"])
    said = capsys.readouterr().out
    assert "black and white" in said and said.count(", n = ") == 4
    assert (tmp_path / "stop.safetensors").exists()
    with pytest.raises(SystemExit):  # it replaces nothing
        main(["--output", str(tmp_path)])


def test_photographed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames of a rendered stop sign stand for a video."""
    main = runpy.run_path(str(EXAMPLES / "photographed.py"))["main"]
    scenes = draw(0, "example", torch.arange(4), 0).override(distance=8.0, yaw=0.0, occlusion=0.0)
    for at, frame in enumerate(render(prepare(faces()[:1], 64), scenes)):
        Image.fromarray((frame * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / f"frame{at}.png")
    main([str(tmp_path), "16,16 48,16 48,48 16,48", "--output", str(tmp_path / "out"), "--steps", "2"])
    said = capsys.readouterr().out
    assert "that no fit saw" in said and said.count(", n = 2") == 8
    assert (tmp_path / "out" / "sticker.safetensors").exists() and (tmp_path / "out" / "paper" / "sticker.pdf").exists()
    with pytest.raises(SystemExit):
        main([str(tmp_path), "16,16 48,16 48,48 16,48", "--label", "stpo", "--output", str(tmp_path / "other")])
