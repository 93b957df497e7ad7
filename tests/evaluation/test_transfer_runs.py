"""Transfer in a run: images crafted on surrogates alone, and the matrix of every model against every other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import robustlab
from robustlab.attacks import MIFGSM, PGD
from robustlab.base.errors import UserError
from robustlab.base.intervals import share
from robustlab.cli import main
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.targets import random_targets
from robustlab.models import load_model
from robustlab.models.ensemble import Ensemble
from robustlab.runs import read_run
from robustlab.verification import verify

MODELS = """
import torch
from torch import nn


def make(seed, classes=3):
    torch.manual_seed(seed)
    base = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    with torch.no_grad():
        net[1].weight[:3].add_(0.3 * base[:classes] - 0.3 * base[:classes].mean(1, keepdim=True))
        net[1].bias.zero_()
    return net


def a():
    return make(1)


def b():
    return make(2)


def c():
    return make(3)


def four():
    return make(4, classes=4)


class NoGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = make(5)

    def forward(self, x):
        if x.requires_grad:
            raise RuntimeError("no gradients here")
        return self.inner(x)


closed = NoGradient


class Defended(nn.Sequential):
    def forward(self, x):
        return super().forward((x * 8).round() / 8)


def defended():
    return Defended(*make(1))


def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(100, 3))
"""
A, B, C = (f"models.py:{name}" for name in "abc")
CARD = """
transfer = true
[threat]
norm = "linf"
eps = "12/255"
[[attack]]
method = "mi-fgsm"
steps = 3
[[attack]]
method = "si-ni-fgsm"
steps = 2
"""
ARGS = ["--data", "npz:data.npz", "--no-curve", "--device", "cpu"]
TRANSFER = [*ARGS, "--suite", "card.toml"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models.py, card.toml and data.npz: 40 grey images, labelled by the answers of `c`, four wrongly."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "card.toml").write_text(CARD)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    labels = load_model(C)(torch.from_numpy(images).float().div(255)[:, None]).argmax(1).numpy()
    labels[::10] = (labels[::10] + 1) % 3
    np.savez("data.npz", test_images=images, test_labels=labels)
    return tmp_path


def pair() -> tuple[Tensor, Tensor]:
    data = robustlab.load_data("npz:data.npz")
    return data.images[:], data.labels


def lines(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "samples.jsonl").read_text().splitlines()]


def board(folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The cells of the transfer matrix, by source and target."""
    (section,) = read_run(folder).info["sections"]
    return {(row["source"], row["target"]): row for row in section["rows"]}


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["attack", *args]) == 2
    return capsys.readouterr().err


# --- surrogates -----------------------------------------------------------------------------------------------------


def test_the_target_sees_only_finished_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It raises on gradients; what is found is what the library finds with the mean logits of the surrogates."""
    args = ["--attack", "mi-fgsm:steps=4", "--eps", "12/255", "--curve", "6/255", "--json", "--audit", "0"]
    target = "models.py:closed"
    assert main(["attack", target, "--surrogate", A, B, *ARGS[:2], *args, "--output", "run"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["results"][0]["surrogates"] == [A, B] and f"crafted on {A}, {B}" in err
    net, both = load_model(target), Ensemble([load_model(A), load_model(B)])
    x, y = pair()
    right = net(x).argmax(1) == y
    for eps in (6 / 255, 12 / 255):
        outcome = MIFGSM(eps=eps, steps=4).run(net, x, y, surrogate=both)
        found = {line["id"]: line for line in lines("run") if line["eps"] == eps}
        assert found.keys() == set(right.nonzero()[:, 0].tolist()) and outcome.success[right].any()
        for id, line in found.items():
            assert (line["success"], line["forwards"], line["backwards"]) == (bool(outcome.success[id]), 5, 4)
    info = read_run("run").info
    assert [s["name"] for s in info["config"]["models"][0]["surrogates"]] == [A, B]
    assert [s["search_copy"]["used"] for s in info["surrogates"]] == [True, True]
    assert info["surrogates"][0]["hash"] == load_model(A).hash() and not info["sections"]
    page = (place / "run" / "report.html").read_text()
    assert f"crafted on {A}, {B}" in page and f"{B} (surrogate)" in page and "is an upper bound, often" in page


def test_each_model_is_attacked_from_all_the_others(place: Path) -> None:
    assert main(["attack", A, B, C, *TRANSFER, "--output", "run"]) == 0
    info, (x, y) = read_run("run").info, pair()
    nets = {name: load_model(name) for name in (A, B, C)}
    for model in info["config"]["models"]:
        name, others = model["name"], [s["name"] for s in model["surrogates"]]
        assert others == [other for other in nets if other != name]
        outcome = MIFGSM(eps=12 / 255, steps=3).run(nets[name], x, y, surrogate=Ensemble([nets[o] for o in others]))
        found = {r["id"]: r["success"] for r in lines("run") if (r["model"], r["attack"]) == (name, "mi-fgsm")}
        assert found and all(bool(outcome.success[id]) == success for id, success in found.items())


def test_names_that_do_not_fit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fgsm = [*ARGS, "--attack", "fgsm"]
    assert "transfer suite" in refused(capsys, A, *TRANSFER)
    assert "is attacked, and so no surrogate for itself" in refused(capsys, A, *fgsm, "--surrogate", A)
    assert "twice" in refused(capsys, A, *fgsm, "--surrogate", B, B)
    assert "are the same model" in refused(capsys, A, *fgsm, "--surrogate", B, f"{place / 'models.py'}:a")
    assert "are the same model" in refused(capsys, A, f"{place / 'models.py'}:a", *TRANSFER)
    assert "4 outputs and models.py:a has 3" in refused(capsys, A, *fgsm, "--surrogate", "models.py:four")
    assert "models.py:wide: The model cannot take images" in refused(capsys, A, *fgsm, "--surrogate", "models.py:wide")
    assert "Give the model to attack before" in refused(capsys, *fgsm, "--surrogate", B)
    assert "--surrogate requires at least 1" in refused(capsys, A, *fgsm, "--surrogate")
    assert "no model 'road-signs/cn'" in refused(capsys, A, *fgsm, "--surrogate", "road-signs/cn")
    Path("card.toml").write_text(CARD.replace("transfer = true", "transfer = 1"))
    assert "transfer must be of the type bool" in refused(capsys, A, B, *TRANSFER)
    assert not Path("reports").exists()


def test_classes_in_another_order(place: Path) -> None:
    nets = {name: load_model(f"models.py:{name}", classes=names) for name, names in (("a", "xyz"), ("b", "yxz"))}
    with pytest.raises(UserError, match="same classes in another order"):
        robustlab.evaluate(nets["a"], pair(), "fgsm", surrogate=nets["b"], labels="predicted", output="run")


def test_a_defense_with_the_same_weights_is_another_model(place: Path) -> None:
    """What breaks it from its undefended twin is what an audit wants to know."""
    assert main(["attack", "models.py:defended", "--surrogate", A, *ARGS, "--attack", "fgsm", "--output", "run"]) == 0
    assert load_model("models.py:defended").hash() == load_model(A).hash()
    assert any(line["success"] for line in lines("run"))


# --- the matrix -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aim", [(), ("--targeted",), ("--targeted", "--target", "1")])
@pytest.mark.parametrize("labels", ["given", "predicted"])
def test_the_matrix_counts_what_one_image_does_to_another_model(place: Path, aim: tuple[str, ...], labels: str) -> None:
    args = [*ARGS, "--suite", "card.toml", *aim, "--labels", labels, "--audit", "0"]
    assert main(["attack", A, B, "--surrogate", C, *args, "--output", "run"]) == 0
    found = board("run")
    assert list(found) == [(source, target) for source in (A, B, C) for target in (A, B)]
    nets = {name: load_model(name) for name in (A, B, C)}
    x, y = pair()
    ids = torch.tensor(sorted({line["id"] for line in lines("run")}))
    x, y = x[ids], y[ids]
    answers = {name: net(x).argmax(1) for name, net in nets.items()}
    for (source, target), row in found.items():
        own = answers[source] if labels == "predicted" else y
        if not aim:
            shown = MIFGSM(eps=12 / 255, steps=3)(nets[source], x, own, ids=ids, surrogate=nets[source])
            truth = answers[target] if labels == "predicted" else y
            tried = answers[target] == truth
            turned = tried & (nets[target](shown).argmax(1) != truth)
        else:
            goal = torch.ones_like(own) if "1" in aim else random_targets(0, ids, own, 3)
            open_, shown = own != goal, x.clone()
            attack = MIFGSM(eps=12 / 255, steps=3, targeted=True)
            shown[open_] = attack(nets[source], x[open_], own[open_], targets=goal[open_], surrogate=nets[source])
            tried = open_ & (answers[target] != goal) & ((labels == "predicted") | (answers[target] == y))
            turned = tried & (nets[target](shown).argmax(1) == goal)
        assert row["turned"] == share(int(turned.sum()), int(tried.sum())), (source, target)
        assert row["white_box"] == (source == target) and row["errors"] == 0
    assert aim or all(found[name, name]["turned"]["value"] > 0.5 for name in (A, B))


def test_interrupted_in_the_matrix_and_resumed(place: Path) -> None:
    """The finished rows are not done again, and what comes out is what an uninterrupted run gives."""
    seen: list[str] = []

    def stop(done: int, total: int, text: str) -> None:
        seen.append(text)
        if text == f"transfer-matrix: {B} 0":
            raise KeyboardInterrupt

    quiet = Listener(say=lambda text: None, advance=stop)
    options: dict[str, Any] = {"device": "cpu", "curve": [], "chunk_size": 16, "audit": 0}
    with pytest.raises(KeyboardInterrupt):
        robustlab.evaluate([A, B], "npz:data.npz", "card.toml", output="run", listener=quiet, **options)
    rows = sorted((place / "run" / "parts").glob("transfer-matrix*.json"))
    assert len(rows) == 2 and seen[-2:] == [f"transfer-matrix: {A} 0", f"transfer-matrix: {B} 0"]
    rows[0].write_bytes(rows[0].read_bytes()[:-9])  # as if the disk had kept half of it
    rows[1].write_bytes(rows[1].read_bytes().replace(b'"errors":0', b'"errors":7', 1))  # kept, not done again
    args = [A, B, *TRANSFER, "--chunk-size", "16", "--audit", "0"]
    assert main(["attack", *args, "--output", "run", "--resume", "--batch-size", "3"]) == 0
    assert main(["attack", *args, "--output", "whole"]) == 0
    assert Path("run/samples.jsonl").read_bytes() == Path("whole/samples.jsonl").read_bytes()
    resumed, whole = board("run"), board("whole")
    assert sum(row.pop("errors") for row in resumed.values()) == 7
    assert resumed == {key: {k: v for k, v in row.items() if k != "errors"} for key, row in whole.items()}
    assert not (place / "run" / "parts").exists()
    assert main(["attack", *args[:-4], "--surrogate", C, *args[-4:], "--output", "whole", "--resume"]) == 2


@pytest.mark.slow
def test_two_processes_give_the_same_matrix(place: Path) -> None:
    args = [A, B, *TRANSFER, "--chunk-size", "16", "--audit", "0"]
    assert main(["attack", *args, "--output", "one"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "robustlab", "attack", *args, "--output", "two"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert board("one") == board("two")
    assert Path("one/samples.jsonl").read_bytes() == Path("two/samples.jsonl").read_bytes()


def test_a_model_that_cannot_be_a_source(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is attacked all the same; its own row says why it is empty."""
    assert main(["attack", "models.py:closed", "--surrogate", A, *TRANSFER, "--audit", "0", "--output", "run"]) == 0
    assert "transfer-matrix, models.py:closed 0 was not finished: RuntimeError: no gradients" in capsys.readouterr().err
    found = board("run")
    assert found[A, "models.py:closed"]["turned"]["n"] > 0
    own = found["models.py:closed", "models.py:closed"]
    assert own["turned"] is None and own["reason"] == "RuntimeError: no gradients here"
    assert "No images were crafted on models.py:closed: RuntimeError" in Path("run/report.html").read_text()


# --- what is shown, and verified --------------------------------------------------------------------------------------


def test_page_table_and_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", A, B, *TRANSFER, "--json", "--output", "run"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)["transfer"]
    assert told["attack"] == "mi-fgsm" and [row["source"] for row in told["rows"]] == [A, A, B, B]
    assert "Successes of mi-fgsm, crafted on the model of the row, shown to that of the column (%, 95 %):" in err
    page = Path("run/report.html").read_text()
    matrix = page.partition('aria-label="Transfer matrix"')[2].partition("</table>")[0]
    assert matrix.count(" data-own>") == 2 and "Further sections" not in page
    assert "No two models were attacked from the same surrogates" in page
    assert main(["table", "run", "transfer", "--format", "csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    cell = told["rows"][1]["turned"]
    assert rows[2].split(",")[:3] == [A, B, "mi-fgsm"] and float(rows[2].split(",")[5]) == cell["value"]
    assert main(["attack", A, *ARGS, "--attack", "fgsm", "--output", "plain"]) == 0
    assert main(["table", "plain", "transfer"]) == 2 and "--suite transfer" in capsys.readouterr().err


def test_runs_that_may_be_compared(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [*ARGS, "--attack", "mi-fgsm:steps=2"]
    assert main(["attack", A, *common, "--output", "white"]) == 0
    assert main(["attack", A, *common, "--surrogate", B, "--output", "from-b"]) == 0
    assert main(["attack", B, *common, "--surrogate", C, "--output", "from-c"]) == 0
    capsys.readouterr()
    assert main(["table", "white", "from-b", "attacks"]) == 2
    assert f"crafted on {B}" in capsys.readouterr().err
    assert main(["table", "from-b", "from-c", "attacks"]) == 0
    assert "the surrogates may be the reason, not the models" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["random", "least-likely"])
def test_verify(place: Path, target: str) -> None:
    args = ["--suite", "card.toml", "--targeted", "--target", target, "--save-adversarial"]
    assert main(["attack", A, B, *ARGS, *args, "--output", "run"]) == 0
    found = verify("run", run_code=True)
    assert found.disagreements == 0 and "sections transfer-matrix" in found.taken
    if target == "least-likely":  # what is least likely to the surrogate, which the target need not agree with
        x, y = pair()
        logits = load_model(B)(x)
        least = logits.scatter(1, y[:, None], torch.inf).argmin(1)
        goals = {r["id"]: r["target"] for r in lines("run") if r["model"] == A and r["attack"] == "mi-fgsm"}
        assert goals and all(int(least[id]) == goal for id, goal in goals.items())


def test_modules_in_python(place: Path) -> None:
    """Surrogates are left as they were; names keep modules apart."""
    net, other = (load_model(name).module.train() for name in (A, B))
    run = robustlab.evaluate(
        {"net": net}, pair(), "pgd", surrogate={"other": other}, output="run", curve=[], audit=0,
        listener=Listener(say=lambda text: None),
    )  # fmt: skip
    assert other.training and all(p.requires_grad and p.grad is None for p in other.parameters())
    assert run.info["config"]["models"][0]["surrogates"][0]["name"] == "other"
    x, y = pair()
    expected = PGD(steps=40, restarts=5).run(net, x, y, surrogate=other, ids=torch.arange(40)).success
    found = {line.id: line.success for line in run.lines if line.attack == "pgd"}
    assert {id for id, success in found.items() if success} == {i for i in found if expected[i]}
