"""What nobody can mean is refused at once: before torch is imported, with one message, and nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

A = "attack road-signs/cnn"
T = "train cnn"
HUGE = "99999999999999999999"
EMPTY = "an empty value was given"
NONE = "requires at least 1 element. Got 0."
TWICE = "twice"
NOTHING = "means nothing for"

CASES = {
    # --- empty
    **{
        f"{A} --{flag} ''": EMPTY
        for flag in (
            *("data", "output", "suite", "target", "eps", "norm", "attack", "surrogate", "limit", "ids", "classes"),
            *("weights", "mean", "std", "data-root", "size", "workers", "device", "curve", "fail-under", "seed"),
        )
    },
    f"{A} --data=": EMPTY,
    "attack ''": EMPTY,
    **{f"{T} --{flag} ''": EMPTY for flag in ("data", "output", "recipe", "set", "eps", "device", "size", "data-root")},
    "train ''": EMPTY,
    "data ''": EMPTY,
    "data road-signs --output ''": EMPTY,
    "data road-signs --data-root ''": EMPTY,
    "zoo ''": EMPTY,
    "report ''": EMPTY,
    "report x --output ''": EMPTY,
    "table '' attacks": EMPTY,
    "table x attacks --output ''": EMPTY,
    "plot '' security-curve": EMPTY,
    "verify ''": EMPTY,
    "verify x --data ''": EMPTY,
    # --- a flag without a value
    **{f"{A} {flag}": NONE for flag in ("--surrogate", "--ids", "--classes", "--mean", "--std", "--curve")},
    f"{A} --curve --quiet": NONE,
    f"{T} --set": NONE,
    f"{A} --data": "requires an argument",
    # --- given twice
    f"{A} --eps 1/255 --eps 2/255": "specified multiple times",
    f"{A} --no-curve --curve 0.01": "specified multiple times",
    f"{A} --attack pgd --attack pgd": TWICE,
    f"{A} --attack pgd:steps=1,steps=2": "says steps twice",
    f"{A} --attack pgd:": "no parameter follows the colon",
    f"{A} --ids 1 1": TWICE,
    f"{A} --classes stop stop": TWICE,
    f"{A} --curve 0.01 0.01": TWICE,
    f"{A} road-signs/cnn": TWICE,
    f"{A} --surrogate road-signs/resnet20 road-signs/resnet20": TWICE,
    f"{A} --detector energy --detector energy": "is given twice",
    f"{A} --detector enrgy": "Did you mean 'energy'",
    f"{A} --detector energy:": "key=value, each once",
    f"{A} --surrogate road-signs/cnn": "no surrogate for itself",
    f"{T} --set epochs=1 epochs=2": TWICE,
    f"{T} --epochs 1 --set epochs=2": TWICE,
    "verify x --model a=b --model a=c": TWICE,
    "verify x --weights a=b --weights a=c": TWICE,
    # --- no meaning here
    f"{A} --skip-bad": NOTHING,
    f"{A} --workers 2": NOTHING,
    f"{A} --download": NOTHING,
    f"{A} --data-root x": NOTHING,
    f"{A} --data npz:x.npz --data-root x": NOTHING,
    f"{A} --data mnist --workers 2": NOTHING,
    f"{A} --data mnist --size 3": "size can be chosen for",
    f"{A} --overwrite": "--overwrite needs --output",
    f"{A} --resume --overwrite --output x": "give one of them",
    f"{A} --compile --no-search-copy": "give one of them",
    f"{A} --precision bfloat16 --no-search-copy": "give one of them",
    f"{T} --workers 2": NOTHING,
    f"{T} --skip-bad": NOTHING,
    f"{T} --resume": "--resume needs --output",
    "data mnist --seed 3": NOTHING,
    "data road-signs --skip-bad": NOTHING,
    "verify x --data npz:x.npz --data-root x": NOTHING,
    # --- devices
    **{f"{A} --device {name}": "auto, cpu, cuda or cuda:N" for name in ("gpu", "mps", "cpu:3", "cuda:", "cuda:-1")},
    f"{T} --device cpu:3": "auto, cpu, cuda or cuda:N",
    "verify x --device gpu": "auto, cpu, cuda or cuda:N",
    # --- numbers
    **{
        f"{A} --{flag} {HUGE}": "at most 18 digits"
        for flag in ("seed", "ids", "batch-size", "chunk-size", "keep", "audit", "eot", "workers")
    },
    f"{A} --limit {HUGE}": "--limit all",
    f"{A} --limit {'9' * 5000}": "--limit all",
    f"{A} --seed {'9' * 5000}": "at most 18 digits",
    f"{A} --seed -1": "seed must be at least 0",
    f"{A} --ids -1": "numbers from 0 on",
    f"{A} --limit ٣": "--limit is a number",
    f"{A} --eps 1e999": "finite",
    f"{A} --curve nan": "'nan'",
    f"{A} --fail-under nan": "finite",
    f"{A} --fail-under inf": "finite",
    f"{A} --mean nan --std 1": "finite",
    f"{A} --data folder:x --workers 5000": "from 1 to 1024",
    f"{A} --data folder:x --size {HUGE}": "--size is a side in pixels",
    f"{T} --seed -1": "seed must be at least 0",
    f"{T} --seed {HUGE}": "at most 18 digits",
    f"{T} --epochs {HUGE}": "at most 18 digits",
    f"{T} --set epochs={HUGE}": "at most 2^63 - 1",
    f"{T} --set lr=inf": "and finite",
    "data road-signs --count 0": "at least 1",
    f"data road-signs --count {HUGE}": "at most 18 digits",
    "data road-signs --seed -1": "at least 0",
    "verify x --batch-size 0": "at least 1",
    # --- names
    f"{A} --output {'x' * 256}": "file systems take 255",
    f"{A} --output out/{'é' * 128}/run": "file systems take 255",
    "attack .": "without a model.toml",
}
RUN = """
import json, shlex, sys, time, io, contextlib
from robustlab.cli import main
found = {}
for typed in json.load(sys.stdin):
    out, err, start = io.StringIO(), io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(shlex.split(typed))
    found[typed] = code, out.getvalue(), err.getvalue(), time.perf_counter() - start, "torch" in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str, float, bool]]:
    place = tmp_path_factory.mktemp("empty")
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(list(CASES)), capture_output=True, text=True, cwd=place
    )
    assert done.returncode == 0, done.stderr
    assert list(place.iterdir()) == []
    answers: dict[str, tuple[int, str, str, float, bool]] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("typed", CASES, ids=lambda typed: typed[:80])
def test_refused_at_once(typed: str, found: dict[str, tuple[int, str, str, float, bool]]) -> None:
    code, out, err, seconds, torch = found[typed]
    assert code == 2 and out == "" and CASES[typed] in err
    assert err.startswith("robustlab: ") and err.count("\n") == 1
    assert not torch and seconds < 1


def test_bytes_that_are_no_text_are_one_message(tmp_path: Path) -> None:
    for words in ([b"attack", b"caf\xe9.toml"], [b"report", b"caf\xe9"], [b"data", b"folder:caf\xe9"]):
        done = subprocess.run([sys.executable, "-m", "robustlab", *words], capture_output=True, cwd=tmp_path)
        assert done.returncode == 2 and done.stdout == b""
        assert rb"caf\xe9" in done.stderr and b"is not UTF-8" in done.stderr and b"Traceback" not in done.stderr
