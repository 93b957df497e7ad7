"""run.json, data.jsonl and samples.jsonl with anything in them: each command works or says what is wrong.

Every leaf of a real run.json becomes each of MUTATIONS, and every key is taken away, before the page, the tables, the
figure and the verification are made of it. All of them together are slow; a sample that changes nothing is drawn here.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.reporting.comparison import one_group, read_runs
from robustlab.reporting.page import page
from robustlab.reporting.plots import draw
from robustlab.reporting.tables import FORMATS, TABLES, written
from robustlab.runs import read_run
from robustlab.verification import verify

Json = Any
At = tuple[str | int, ...]
DEEP: Json = 0
for _ in range(20):
    DEEP = [DEEP]
MUTATIONS: list[Json] = [None, "", "x", -1, 0, 1.5, 1e308, 10**30, True, [], {}, DEEP, [{}], list(range(1000))]
MUTATIONS += ["\u202e\x1b[31m", "../../etc/passwd", "/dev/zero", "=1+1", {"value": 1}]
SAMPLED = 100


class Net(nn.Module):
    """A linear model: quick to attack."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(48, 3, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


NETS = {"net": Net(0), "other": Net(1)}
IMAGES = torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(2))
LABELS = NETS["net"](IMAGES).argmax(1)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "real"
    quiet = Listener(say=lambda text: None)
    evaluate(NETS, (IMAGES, LABELS), "linf-standard", output=folder, listener=quiet, save_adversarial=True)
    assert read_run(folder).images and verify(folder, models=NETS, data=(IMAGES, LABELS)).disagreements == 0
    return folder


@pytest.fixture
def mutant(real: Path, tmp_path: Path) -> Path:
    return shutil.copytree(real, tmp_path / "mutant")


def _tables(folder: Path) -> None:
    run, _ = one_group([folder])
    for name in TABLES:
        for form in FORMATS:
            try:
                written(run, name, form)
            except UserError as error:  # this table is empty in this run
                assert name in str(error)


COMMANDS: dict[str, Callable[[Path], object]] = {
    "report": lambda folder: page(read_runs([folder])),
    "table": _tables,
    "plot": lambda folder: draw(one_group([folder])[0], "security-curve", "svg"),
    "verify": lambda folder: str(verify(folder, models=NETS, data=(IMAGES, LABELS))),
}


def places(value: Json, at: At = ()) -> Iterator[At]:
    """Where something is in a JSON value; of a list its first and last item."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*at, key))
    elif isinstance(value, list):
        for number in sorted({0, len(value) - 1}) if value else ():
            yield from places(value[number], (*at, number))


def mutations(value: Json) -> list[tuple[At, bool, Json]]:
    """(place, whether it is taken away, what is put there)."""
    found: list[tuple[At, bool, Json]] = []
    for at in places(value):
        found += [(at, False, put) for put in MUTATIONS]
        found += [(at, True, None)] if isinstance(at[-1], str) else []
    return found


def mutated(value: Json, at: At, gone: bool, put: Json) -> Json:
    made = copy.deepcopy(value)
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    if gone:
        del inner[at[-1]]
    else:
        inner[at[-1]] = put
    return made


def ask_all(folder: Path, what: str) -> None:
    assert not (found := faults(folder, what)), found


def faults(folder: Path, what: str) -> list[str]:
    """What is wrong with how the commands take this folder."""
    try:
        read_run(folder)
    except UserError:  # which is how each of them begins
        return []
    found = []
    for name, command in COMMANDS.items():
        started = time.monotonic()
        try:
            command(folder)
        except UserError:
            pass
        except Exception as error:
            found.append(f"{name} raises {type(error).__name__}: {error}, where {what}")
        if (seconds := time.monotonic() - started) > 30:
            found.append(f"{name} takes {seconds:.0f} s, where {what}")
    return found


def check(folder: Path, chosen: Callable[[list[tuple[At, bool, Json]]], list[tuple[At, bool, Json]]]) -> None:
    path = folder / "run.json"
    info, found = json.loads(path.read_text()), []
    for at, gone, put in chosen(mutations(info)):
        path.write_text(json.dumps(mutated(info, at, gone, put)))
        found += faults(folder, f"{'.'.join(map(str, at))} {'is gone' if gone else f'is {put!r:.60}'}")
    assert not found, "\n".join(found)


def test_a_sample_of_all_mutations(mutant: Path) -> None:
    check(mutant, lambda every: random.Random(0).sample(every, SAMPLED))


@pytest.mark.slow
def test_all_mutations(mutant: Path) -> None:
    check(mutant, lambda every: every)


# Each was a traceback, a hang or memory without end; where it is said what is wrong, part of that.
LINES: dict[str, tuple[str, str]] = {
    "label": ("label", "10" + "0" * 30),
    "huge label": ("label", "1e18"),
    "no class": ("label", "-7"),
    "text": ("id", '"x"'),
    "id": ("id", "1" + "0" * 25),
}


@pytest.mark.parametrize("file", ["samples.jsonl", "data.jsonl"])
@pytest.mark.parametrize("name", LINES)
def test_lines_have_types_and_ranges(file: str, name: str, mutant: Path) -> None:
    key, value = LINES[name]
    first, *rest = (mutant / file).read_text().splitlines()
    row = json.loads(first)
    row[key] = "MARK"
    (mutant / file).write_text("\n".join([json.dumps(row).replace('"MARK"', value), *rest]))
    for command in ("report", "verify"):
        with pytest.raises(UserError, match=rf"{file}, line 1, is damaged"):
            COMMANDS[command](mutant)


FACTORS = [1e-320, 5e-324, -1e15, 1e15, 1e308, 10**30, None, "x", True, [], "NaN"]


@pytest.mark.parametrize("value", FACTORS, ids=str)
def test_factors_may_be_anything(value: Json, mutant: Path) -> None:
    rows = [json.loads(row) for row in (mutant / "data.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["factors"] = {"light": value if number % 2 else 0.0, "background": number * 1e-320, "yaw": number}
    info = json.loads((mutant / "run.json").read_text())
    info["data"]["name"] = "road-signs"  # which knows what the numbers of `background` stand for
    (mutant / "run.json").write_text(json.dumps(info))
    (mutant / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ask_all(mutant, f"factors are {value!r}")


def test_what_never_ends_is_not_read(mutant: Path) -> None:
    for name in ("run.json", "data.jsonl", "samples.jsonl", "images", "adversarial"):
        place = mutant / name
        kept = place.rename(mutant / "kept")
        for target in ("/dev/zero", kept.name):
            place.symlink_to(target)
            for command in ("report", "verify"):
                if (name, command) != ("adversarial", "report"):
                    with pytest.raises(UserError, match=rf"{name} is a link"):
                        COMMANDS[command](mutant)
            place.unlink()
        kept.rename(place)
    ask_all(mutant, "everything is back")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" + "0," * 6_000_000 + "0]"], ids=len)
def test_depth_and_number_of_values_are_bounded(text: str, mutant: Path) -> None:
    info = json.loads((mutant / "run.json").read_text())
    info["versions"] = "MARK"
    (mutant / "run.json").write_text(json.dumps(info).replace('"MARK"', text))
    with pytest.raises(UserError, match=r"nested more than 32 deep|more than 5,000,000 values"):
        read_run(mutant)
