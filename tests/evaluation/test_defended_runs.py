"""Runs of a model bare and behind a defense: three numbers of the same images, and all that a run promises."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab import evaluate, verify
from robustlab.attacks.suite import load_suite
from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.cli.attack import ResultFlags
from robustlab.defenses import JPEG, NFGSM, BitDepth, RandomResize
from robustlab.defenses.base import Defense
from robustlab.evaluation.listener import Listener
from robustlab.models.classifier import Classifier
from robustlab.reporting import report
from robustlab.runs import StoredRun, read_run, results

QUIET = Listener(say=lambda text: None)
COMMAND = ["attack", "road-signs/cnn", "--defense", "jpeg", "--attack", "pgd:steps=10,loss=margin", "--eps", "2/255"]
COMMAND += ["--limit", "40", "--chunk-size", "20", "--no-curve", "--audit", "0", "--keep", "0", "--device", "cpu"]
COMMAND += ["--quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    folder = tmp_path_factory.mktemp("defended") / "run"
    assert main([*COMMAND, "--save-adversarial", "--output", str(folder)]) == 0
    return read_run(folder)


def by_id(run: StoredRun, model: str, attack: str) -> dict[int, Any]:
    return {line.id: line for line in run.lines if (line.model, line.attack) == (model, attack)}


def test_three_numbers_of_the_same_images(run: StoredRun) -> None:
    bare, behind = results(run)["results"]
    assert (bare["model"], behind["model"]) == ("road-signs/cnn", "road-signs/cnn+jpeg")
    assert "defense" not in bare and [a["name"] for a in bare["attacks"]] == ["pgd"]
    assert [a["name"] for a in behind["attacks"]] == ["pgd", "pgd (unaware)"]
    known = behind["defense"]
    assert known["bare"] == "road-signs/cnn" and known["unaware"]["n"] == known["aware"]["n"] == 40
    # it seems to help, and an attack that knows it takes more than is lost without it
    assert known["unaware"]["value"] > bare["robust_accuracy"]["value"] > known["aware"]["value"]
    assert known["gap"]["high"] < 0

    clean = by_id(run, "road-signs/cnn+jpeg", "clean")
    right = {id for id, line in clean.items() if line.clean == line.label}
    aware, unaware = (by_id(run, "road-signs/cnn+jpeg", name) for name in ("pgd", "pgd (unaware)"))
    assert aware.keys() == unaware.keys() == right
    stood = [{id for id in right if not lines[id].succeeded} for lines in (unaware, aware)]
    assert [known[key]["value"] * 40 for key in ("unaware", "aware")] == pytest.approx([len(each) for each in stood])
    assert behind["robust_accuracy"]["value"] * 40 == pytest.approx(len(stood[0] & stood[1]))


def test_verify_puts_the_defense_back(run: StoredRun, tmp_path: Path) -> None:
    found = verify(run.folder)
    assert found.disagreements == 0 and found.complete
    assert any("pgd (unaware)" in check.what and check.n for check in found.checks)
    for part in ("config", "source"):
        folder = tmp_path / part
        shutil.copytree(run.folder, folder)
        info = json.loads((folder / "run.json").read_text())
        holder = info["config"]["models"][1] if part == "config" else info["models"][1]["source"]
        assert holder["defense"] == {"method": "jpeg", "quality": 75}
        holder["defense"]["quality"] = 20
        (folder / "run.json").write_text(json.dumps(info))
        with pytest.raises(UserError, match="names two defenses of road-signs/cnn"):
            verify(folder)


def test_page_and_table_say_it(run: StoredRun, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = report([run.folder], tmp_path / "page.html").read_text()
    known = run.info["aggregates"]["models"][1]["defense"]
    section = page.split('id="defense"')[1].split("</section>")[0]
    for key in ("unaware", "aware"):
        assert f"{100 * known[key]['value']:.1f}" in section
    assert "is no robustness" in section and "seems to withstand" in section
    assert main([*COMMAND, "--output", str(run.folder), "--resume", "--json", "--save-adversarial"]) == 0
    said = capsys.readouterr()
    assert "left by the attack made for road-signs/cnn" in said.err
    assert json.loads(said.out)["results"][1]["defense"]["gap"] == known["gap"]


def test_the_threshold_is_for_what_stands_behind_it(run: StoredRun, capsys: pytest.CaptureFixture[str]) -> None:
    bare, behind = (model["robust_accuracy"]["value"] for model in run.info["aggregates"]["models"])
    assert behind < bare
    for under, code in ((behind, 0), (behind + 0.01, 1)):
        assert ResultFlags(fail_under=under).show(results(run), run.folder) == code
    assert "road-signs/cnn+jpeg: robust accuracy" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_lines(run: StoredRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    again = [*COMMAND, "--save-adversarial", "--output", str(tmp_path / "killed")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-m", "robustlab", *again], env=env, stderr=subprocess.DEVNULL)
    part = tmp_path / "killed" / "parts"
    while process.poll() is None and not any("unaware" in path.name for path in part.glob("*.jsonl")):
        pass
    process.kill()
    process.wait()
    assert main([*again, "--resume"]) == 0
    assert (tmp_path / "killed" / "samples.jsonl").read_bytes() == (folder / "samples.jsonl").read_bytes()


# --- from Python ------------------------------------------------------------------------------------------------------


class Half(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x / 2)
        return out


@dataclass(frozen=True)
class Darker(Defense):
    """Of nobody's registry."""

    def wrap(self, classifier: Classifier) -> nn.Module:
        return Half(classifier)


def pair() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 3, 6, 6, generator=generator)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    return net, (x, net(x).argmax(1))


def test_several_and_of_ones_own(tmp_path: Path) -> None:
    net, data = pair()
    suite = load_suite(attacks=["fgsm"], eps="4/255")
    given = {
        "models": {"net": net},
        "data": data,
        "suite": suite,
        "listener": QUIET,
        "audit": 0,
        "keep": 0,
        "curve": [],
    }
    run = evaluate(
        **given,
        defense=[Darker(), BitDepth(bits=2), RandomResize(smallest=0.5)],
        output=tmp_path / "run",
        save_adversarial=True,
        eot=2,
    )
    models = run.info["config"]["models"]
    assert [m["name"] for m in models] == ["net", "net+Darker", "net+bit-depth", "net+random-resize"]
    assert [m.get("defense") for m in models] == [
        None,
        {},
        {"method": "bit-depth", "bits": 2},
        {"method": "random-resize", "smallest": 0.5},
    ]
    assert models[3]["evaluations"] == 10 and models[3]["eot"] == 2
    with pytest.raises(UserError, match=r"does not say what net\+Darker stands behind"):
        verify(run.folder, models={"net": net}, data=data)
    darker = Half(Classifier(net))
    found = verify(run.folder, models={"net": net, "net+Darker": Classifier(darker)}, data=data)
    assert found.disagreements == 0


def test_probabilities_and_predicted_labels(tmp_path: Path) -> None:
    net, data = pair()
    soft = nn.Sequential(net, nn.Softmax(1))
    more: dict[str, Any] = {"outputs": "probabilities", "labels": "predicted", "save_adversarial": True, "audit": 0}
    run = evaluate(
        {"net": soft}, data, "fgsm", defense="bit-depth:bits=3", output=tmp_path / "run", listener=QUIET, **more
    )
    numbers = run.info["aggregates"]["models"]
    assert [model["clean_accuracy"]["value"] for model in numbers] == [1.0, 1.0]
    assert verify(run.folder, models={"net": soft}, data=data).disagreements == 0


@pytest.mark.parametrize(
    ("defense", "more", "message"),
    [
        (NFGSM(), {}, "n-fgsm changes how a model is trained"),
        (3, {}, "A defense is a name, the path of a card, or a Defense; got int"),
        ("jpg", {}, "Did you mean 'jpeg'"),
        (["jpeg", JPEG()], {}, r"Two models are named 'net\+jpeg'"),
        ("jpeg", {"surrogate": {"other": nn.Sequential(nn.Flatten(), nn.Linear(108, 4))}}, "give one of them"),
        ("jpeg", {"suite": "transfer"}, "give one of them"),
    ],
)
def test_what_cannot_be(defense: Any, more: dict[str, Any], message: str, tmp_path: Path) -> None:
    net, data = pair()
    given: dict[str, Any] = {"suite": "fgsm", "output": tmp_path / "run", "listener": QUIET} | more
    with pytest.raises(UserError, match=message):
        evaluate({"net": net}, data, defense=defense, **given)
    assert not (tmp_path / "run").exists()
