"""`verify` and what it cannot recompute: whatever is forged in a run is found, or was named as taken as stored."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustlab import evaluate, verify
from robustlab.attacks.suite import load_suite
from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.studies.audit.study import CHECKS
from robustlab.verification.audited import CHEAP

QUIET = Listener(say=lambda text: None)


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).requires_grad_(False)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    y = net()(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    return x, y


@pytest.fixture(scope="module")
def origin(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited") / "run"
    suite = load_suite(attacks=["fgsm", "pgd:steps=3,restarts=2", "square:steps=5"], norm="linf", eps=0.05)
    options: dict[str, Any] = {"save_adversarial": True, "audit": 6, "curve": ["0.02"]}
    evaluate({"net": net()}, pair, suite, output=folder, listener=QUIET, **options)
    return folder


@pytest.fixture
def folder(origin: Path, tmp_path: Path) -> Path:
    shutil.copytree(origin, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def found(folder: Path, pair: Any) -> Callable[..., Any]:
    """What `verify` says of the folder, in whose run.json `edit` has changed something; "refused" for a UserError."""

    def again(edit: Callable[[Any], object] | None = None, **options: Any) -> Any:
        if edit:
            info = json.loads((folder / "run.json").read_bytes())
            edit(info)
            (folder / "run.json").write_text(json.dumps(info))
        try:
            return verify(folder, models={"net": net()}, data=pair, **options)
        except UserError:
            return "refused"

    return again


def test_an_honest_run_agrees_and_the_rest_is_named(found: Callable[..., Any]) -> None:
    said = found()
    assert said.disagreements == 0
    left = [check.name for check in CHECKS if check.name not in CHEAP]
    assert f"audit checks {', '.join(left)}" in said.taken
    assert str(said).splitlines()[-1].endswith(f"taken as stored: {'; '.join(said.taken)}.")
    whole = found(audit=True)
    assert whole.disagreements == 0 and not any("audit" in text for text in whole.taken)


def checks(info: Any) -> dict[str, Any]:
    return {check["name"]: check for check in info["audit"]["net"]["checks"]}


def set_status(name: str, status: str) -> Callable[[Any], object]:
    return lambda info: checks(info)[name].update(status=status)


FORGED: dict[str, tuple[Callable[[Any], object], str]] = {
    "no audit": (lambda info: info["audit"].clear(), "its audit is missing"),
    "an audit of nobody": (lambda info: info["audit"].update(you=info["audit"]["net"]), "the run has no such model"),
    "other samples": (lambda info: info["audit"]["net"].update(ids="0" * 16), "ids is 0000"),
    "more samples": (lambda info: info["audit"]["net"].update(n=600), "n is 600, recomputed 6"),
    "a check left out": (lambda info: info["audit"]["net"]["checks"].pop(7), "they are outputs, randomised"),
    "another title": (lambda info: checks(info)["noise"].update(title="All is well"), "title is All is well"),
    "other advice": (lambda info: checks(info)["noise"].update(advice="Nothing."), "its advice is not that"),
    "a cheap status": (set_status("outputs", "warn"), "status is warn, recomputed pass"),
    "a cheap text": (
        lambda info: checks(info)["clean"].update(measured="16 of 16 clean images right (100 %)."),
        "measured is 16 of 16",
    ),
    "a gradient": (
        lambda info: checks(info)["gradient"]["numbers"]["zero_by_loss"].update(ce=3),
        "zero_by_loss.ce is 3, recomputed 0",
    ),
    "a status against its numbers": (
        lambda info: checks(info)["restarts"]["numbers"].update(
            broken={"value": 0.5, "low": 0.18761630, "high": 0.8123837, "n": 6}
        ),
        "its status is pass, and its numbers make it fail",
    ),
    "a share that is none": (
        lambda info: checks(info)["transfer"]["numbers"]["broken"].update(value=0.1),
        "which is no share of 6",
    ),
    "an interval": (
        lambda info: checks(info)["transfer"]["numbers"]["broken"].update(high=0.01),
        "numbers.broken: high is 0.01",
    ),
    "what rows say": (
        lambda info: checks(info)["black-box"]["numbers"].pop("run"),
        "run is None, recomputed",
    ),
    "what rows say, in words": (
        lambda info: checks(info)["black-box"].update(measured="Square broke none."),
        "it does not say what the run's lines do",
    ),
    "no status": (set_status("noise", "fine"), "its status is 'fine'"),
    "a pass entry left out": (
        lambda info: info.update(passes=[each for each in info["passes"] if each["attack"] != "square"]),
        "passes is",
    ),
    "units": (lambda info: info["passes"][0].update(units=9), "passes[0].units is 9, recomputed 1"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_audit_is_found(case: str, folder: Path, found: Callable[..., Any]) -> None:
    edit, message = FORGED[case]
    (folder / "report.html").unlink(missing_ok=True)
    said = found(edit)
    assert said == "refused" or (said.disagreements and message in " ".join(str(said).split())), str(said)


def test_what_only_an_attack_can_tell_is_found_by_attacking(folder: Path, found: Callable[..., Any]) -> None:
    forge = lambda info: checks(info)["converged"].update(status="fail")  # noqa: E731, graver than its numbers
    assert found(forge).disagreements == 0
    assert "status is fail, recomputed" in str(found(audit=True))


class Rounded(nn.Module):
    """It has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((20 * x).round() / 20)  # type: ignore[no-any-return]


def test_the_active_test_is_repeated_and_held_to_its_own_numbers(tmp_path: Path) -> None:
    x = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pair = x, Rounded()(x).argmax(1)
    suite = load_suite(attacks=["fgsm", "pgd:steps=3"], norm="linf", eps=0.05)
    evaluate({"net": Rounded()}, pair, suite, output=tmp_path / "run", listener=QUIET, audit=16, curve=[])
    path = tmp_path / "run" / "run.json"
    info = json.loads(path.read_bytes())
    assert checks(info)["active"]["status"] == "fail"
    assert verify(tmp_path / "run", models={"net": Rounded()}, data=pair, audit=True).disagreements == 0
    checks(info)["active"]["status"] = "pass"
    path.write_text(json.dumps(info))
    said = " ".join(str(verify(tmp_path / "run", models={"net": Rounded()}, data=pair)).split())
    assert "active: its status is pass, and its numbers make it fail" in said, said


NAMED = {
    "ranks": r"rank",
    "forward and backward passes": r"(forwards|backwards)",
    "classes that attacks chose to aim at": r"target",
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def altered(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x" if isinstance(value, str) else 1


# of run.json what `verify` says that it takes as stored, beside the texts and numbers of checks that run an attack
TAKEN = r"heatmaps\b|models\.#\.search_copy|passes\.#\.(seconds|refused|errors)"
UNCHECKED = rf"|audit\.net\.checks\.({'|'.join(c.name for c in CHECKS if c.name not in CHEAP)})\.(measured|numbers)"


@pytest.mark.slow  # some 300 verifications
def test_every_value_of_run_json_is_checked_or_named(folder: Path, found: Callable[..., Any]) -> None:
    """One value of each kind is changed at a time."""
    info = json.loads((folder / "run.json").read_bytes())
    names = [check["name"] for check in info["audit"]["net"]["checks"]]
    kinds: dict[str, tuple[tuple[Any, ...], Any]] = {}
    for path, value in leaves(info):
        words = [names[key] if at == 3 and path[0] == "audit" else key for at, key in enumerate(path)]
        kind = ".".join("#" if isinstance(word, int) else str(word) for word in words)
        kinds.setdefault(kind, (path, value))
    assert len(kinds) > 250
    others = found().taken[-1].removeprefix("how it was run: ").split(", ")
    assert {"command", "device", "git", "name", "times", "versions", "warnings"} <= set(others)
    missed = []
    for kind, (path, value) in kinds.items():
        if re.match(TAKEN + UNCHECKED, kind) or kind.partition(".")[0] in others:
            continue
        changed = json.loads(json.dumps(info))
        inside = changed
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = altered(value)
        said = found(lambda stored, changed=changed: (stored.clear(), stored.update(changed)))
        if said != "refused" and not said.disagreements:
            missed.append(kind)
    assert missed == []


def test_every_value_of_a_line_is_checked_or_named(folder: Path, found: Callable[..., Any]) -> None:
    path = folder / "samples.jsonl"
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    chosen = [
        next(row for row in rows if row["attack"] == "clean"),
        next(row for row in rows if row["attack"] == "fgsm" and row["success"]),
        next(row for row in rows if row["attack"] == "fgsm" and not row["success"]),
    ]
    missed = []
    for row in chosen:
        for key, value in row.items():
            changed = [{**each, key: altered(value)} if each is row else each for each in rows]
            path.write_text("".join(json.dumps(each) + "\n" for each in changed))
            said = found()
            named = row["attack"] != "clean" and re.fullmatch("|".join(NAMED.values()), key)
            if said != "refused" and not said.disagreements and not named:
                missed.append((row["attack"], row["success"], key))
    assert missed == []
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert all(name in found().taken[0] for name in NAMED)


LACKING = {
    "nothing": lambda row: False,
    "the clean pass": lambda row: row["attack"] == "clean",
    "all but one attack": lambda row: row["attack"] != "square",
    "all but the curve": lambda row: row["eps"] in (0.0, 0.05),
    "all but one": lambda row: (row["attack"], row["id"]) != ("clean", 3),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_run_that_lacks_lines_is_none(
    case: str, folder: Path, found: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "samples.jsonl"
    kept = [row for row in path.read_text().splitlines() if LACKING[case](json.loads(row))]
    path.write_text("".join(f"{row}\n" for row in kept))
    said = found()
    assert said == "refused" if not kept else said.disagreements > 0
    for words in (["report", str(folder)], ["table", str(folder), "confusion"]):
        assert main(words) == 2
        assert ("is empty" if not kept else "run.json counts") in capsys.readouterr().err
