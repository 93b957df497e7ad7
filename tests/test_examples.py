"""The programs in examples/ run as they are."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
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


@pytest.mark.slow
def test_the_workflow_is_yaml_and_its_commands_run(tmp_path: Path) -> None:
    """All that can be checked without GitHub: the file's keys, and each `run` in a shell, in its folder."""
    yaml = pytest.importorskip("yaml")
    flow = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text())
    assert set(flow) == {"name", True, "permissions", "env", "jobs"}  # YAML 1.1 reads `on` as true
    steps = flow["jobs"]["compare"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert flow["permissions"]["security-events"] == "write"  # upload-sarif needs it
    (tmp_path / "base").mkdir()
    dice = np.random.default_rng(0)
    images, labels = dice.integers(0, 256, (40, 4, 4), dtype=np.uint8), dice.integers(0, 2, 40)
    net = "import torch\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))\n"
    for place in (tmp_path, tmp_path / "base"):
        (place / "model.py").write_text(net.replace("return", "torch.manual_seed(0)\n    return"))
        np.savez(place / "data.npz", test_images=images, test_labels=labels)
    (tmp_path / "robustlab").write_text(f'#!/bin/sh\nexec {sys.executable} -m robustlab "$@"\n')
    (tmp_path / "robustlab").chmod(0o755)
    env = os.environ | flow["env"] | {"DATA": "npz:data.npz", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    env |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(EXAMPLES.parent)}
    for step in steps:
        if "run" in step and "pip install" not in step["run"]:
            place = tmp_path / step.get("working-directory", ".")
            done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=place, env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    (upload,) = [step for step in steps if "codeql" in step.get("uses", "")]
    assert (tmp_path / upload["with"]["sarif_file"]).is_file() and (tmp_path / "junit.xml").is_file()
    assert (tmp_path / "summary.md").read_text().startswith("### robustlab: Passed")
    assert (tmp_path / "runs" / "compare.html").is_file()
