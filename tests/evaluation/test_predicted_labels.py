"""`--labels predicted`: each model's own answers are what is attacked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustlab
from robustlab.attacks.suite import load_suite
from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.data import Data
from robustlab.evaluation.listener import Listener
from robustlab.models.classifier import Classifier
from robustlab.threat.model import ThreatModel

QUIET = Listener(say=lambda text: None)


def linear(seed: int, outputs: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, outputs))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def unlabelled(images: Tensor) -> Data:
    nothing = torch.full((len(images),), -1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(2))  # as a folder's keyed order
    return Data("folder", "test", images, nothing, order, (), "0", ThreatModel(eps=0.02))


def run(models: Any, data: Any, folder: Path, **options: Any) -> Any:
    suite, options = options.pop("suite", "linf-standard"), {"audit": 0} | options
    return robustlab.evaluate(models, data, suite, output=folder, listener=QUIET, labels="predicted", **options)


def test_each_model_is_right_by_definition_and_its_answers_are_attacked(images: Tensor, tmp_path: Path) -> None:
    data = unlabelled(images)
    nets = {"a": linear(0), "b": linear(1)}
    stored = run(nets, data, tmp_path / "run", chunk_size=16)
    assert stored.info["config"]["labels"] == "predicted"
    assert [line["label"] for line in stored.data_lines] == [-1] * 40
    assert stored.info["data"]["classes"] == ["0", "1", "2", "3"]
    for name, net in nets.items():
        answers = dict(zip(data.ids.tolist(), net(images).argmax(1).tolist(), strict=True))
        mine = [line for line in stored.lines if line.model == name]
        assert all(line.label == line.clean == answers[line.id] for line in mine)
        hit = [line for line in mine if line.succeeded]
        assert hit and all(line.adv != answers[line.id] for line in hit)
    for model in stored.info["aggregates"]["models"]:
        assert model["clean_accuracy"]["value"] == 1 and 0 < model["robust_accuracy"]["value"] < 1


def test_the_answers_are_those_of_the_same_run_on_labels_that_agree(images: Tensor, tmp_path: Path) -> None:
    net = linear(0)
    mine = run(net, unlabelled(images), tmp_path / "predicted")
    data = unlabelled(images)
    given = Data("folder", "test", images, net(images).argmax(1), data.ids, tuple("0123"), "0", data.threat)
    theirs = robustlab.evaluate(net, given, "linf-standard", output=tmp_path / "given", listener=QUIET)
    assert mine.lines == theirs.lines and "labels" not in theirs.info["config"]


def test_wrong_or_foreign_labels_do_not_matter(images: Tensor, tmp_path: Path) -> None:
    stored = run(linear(0), (images, torch.full((40,), 999)), tmp_path / "run")
    assert stored.info["aggregates"]["models"][0]["clean_accuracy"]["value"] == 1
    assert {line["label"] for line in stored.data_lines} == {999}
    assert len(stored.info["data"]["classes"]) == 4


def test_class_names_are_the_models(images: Tensor, tmp_path: Path) -> None:
    named = Classifier(linear(0), classes=["cat", "dog", "eel", "fox"], name="n")
    assert run(named, unlabelled(images), tmp_path / "one").info["data"]["classes"] == ["cat", "dog", "eel", "fox"]
    both = run([named, linear(1)], unlabelled(images), tmp_path / "two")  # the second does not know what they are
    assert both.info["data"]["classes"] == ["0", "1", "2", "3"]
    # nor do the data's own names say what an output of theirs means
    data = replace(unlabelled(images), classes=("dog", "cat", "eel", "fox"))
    assert run([named, linear(1)], data, tmp_path / "three").info["data"]["classes"] == ["0", "1", "2", "3"]
    assert run(linear(1), data, tmp_path / "four").info["data"]["classes"] == ["dog", "cat", "eel", "fox"]


@pytest.mark.parametrize("target", ["random", "least-likely", "2"])
def test_targets_differ_from_each_models_answer(images: Tensor, tmp_path: Path, target: str) -> None:
    suite = load_suite(attacks=["pgd:steps=5"], eps=0.05, targeted=True, target=target)
    nets = {"a": linear(0), "b": linear(3)}
    stored = run(nets, unlabelled(images), tmp_path / "run", suite=suite, curve=[])
    attacked = [line for line in stored.lines if line.attack == "pgd"]
    assert attacked and all(line.target != line.label for line in attacked)
    ids = [{line.id for line in stored.lines if line.model == name and line.attack == "clean"} for name in nets]
    assert ids[0] == ids[1]  # so that models are compared on the same images
    already = (linear(0)(images).argmax(1) == 2) | (linear(3)(images).argmax(1) == 2)
    assert len(ids[0]) == 40 - int(already.sum()) * (target == "2")


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1, keepdim=True).expand(-1, 3) * torch.ones(3)


def test_a_model_whose_logits_all_tie_has_a_least_likely_class_all_the_same(images: Tensor, tmp_path: Path) -> None:
    suite = load_suite(attacks=["fgsm"], eps=0.05, targeted=True, target="least-likely")
    stored = run(Flat(), unlabelled(images), tmp_path / "run", suite=suite)
    assert {line.target for line in stored.lines if line.attack == "fgsm"} == {1}


def test_without_labels_the_flag_is_asked_for(images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="40 of the 40 .* have no label.*labels='predicted'"):
        robustlab.evaluate(linear(0), unlabelled(images), "pgd", output=tmp_path / "run", listener=QUIET)
    assert not (tmp_path / "run").exists()


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
    )
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez("data.npz", test_images=images, test_labels=np.arange(20) % 5)
    args = ["attack", "model.py:net", "--data", "npz:data.npz", "--output", "run"]
    assert main(args) == 2
    assert "5 classes" in (err := capsys.readouterr().err) and "--labels predicted" in err
    assert main([*args, "--labels", "predicted", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["clean_accuracy"]["value"] == 1
    before = (tmp_path / "run" / "samples.jsonl").read_bytes()
    assert main([*args, "--labels", "predicted", "--resume"]) == 0
    assert main([*args, "--resume"]) == 2  # the labels are 0 to 4 again
    assert (tmp_path / "run" / "samples.jsonl").read_bytes() == before
