"""The audit in a run: which samples, what is stored, resume, and what is not audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import robustlab
from robustlab.attacks.suite import load_suite
from robustlab.base.errors import RunError, UserError
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.options import Options
from robustlab.runs import read_run, results

EPS = 25 / 255


@pytest.fixture
def evaluate(world: Any, tmp_path: Path) -> Any:
    """evaluate({name: net}, name of the folder, **options) -> (run, what was said)."""

    def run(models: Any, name: str = "run", data: Any = None, **options: Any) -> Any:
        said: list[str] = []
        given = {"audit": 8, "curve": [], "keep": 0, "suite": load_suite(attacks=["pgd:steps=5"], norm="linf", eps=EPS)}
        given |= {"listener": Listener(say=said.append)} | options
        stored = robustlab.evaluate(models, data or world.patterns(40, seed=1), output=tmp_path / name, **given)
        return stored, said

    return run


def found(stored: Any, model: str = "net") -> dict[str, Any]:
    return {check["name"]: check for check in stored.info["audit"][model]["checks"]}


class Shy(nn.Module):
    """It raises when it is shown what no attack inside a small budget shows."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        if float((x - 0.5).abs().flatten(1).mean(1).max()) > 0.2205:  # 0.2106 for the images
            raise ValueError("too harsh\nfor me")
        return self.net(x)  # type: ignore[no-any-return]


def test_the_samples_follow_from_the_seed_alone(evaluate: Any, world: Any) -> None:
    net = world.plain()
    first, _ = evaluate({"net": net})
    other, _ = evaluate({"net": net}, "other", batch_size=3, chunk_size=7)
    again, _ = evaluate({"net": net}, "again", seed=1)
    ids = [stored.info["audit"]["net"]["ids"] for stored in (first, other, again)]
    assert ids[0] == ids[1] != ids[2]
    statuses = [{name: check["status"] for name, check in found(stored).items()} for stored in (first, other)]
    assert statuses[0] == statuses[1]
    assert found(first)["black-box"] == found(other)["black-box"]


def test_only_right_answers_are_audited_and_n_is_said(evaluate: Any, world: Any) -> None:
    x, y = world.patterns(40, seed=1)
    y[5:] = (y[5:] + 1) % 4  # the net is right on five
    stored, _ = evaluate({"net": world.plain()}, data=(x, y), audit=64)
    record = stored.info["audit"]["net"]
    assert (record["n"], record["asked"]) == (5, 64)
    assert found(stored)["clean"]["measured"].startswith("5 of 40 clean images right")
    assert results(stored)["results"][0]["audit"]["n"] == 5


def test_what_does_not_pass_is_said(evaluate: Any, world: Any) -> None:
    _, said = evaluate({"net": nn.Sequential(world.plain(), nn.Softmax(1))})
    assert [text for text in said if text.startswith("Warning: net, audit, outputs (fail): ")]


def test_no_audit_on_request(evaluate: Any, world: Any) -> None:
    stored, said = evaluate({"net": world.plain()}, audit=0)
    assert stored.info["audit"] == {} and not any("audit" in text for text in said)
    assert results(stored)["results"][0]["audit"] is None
    with pytest.raises(UserError, match="audit must be at least 0"):
        Options(audit=-1)


def test_a_resumed_run_audits_only_what_is_missing(evaluate: Any, world: Any, tmp_path: Path) -> None:
    models = {"a": world.plain(), "b": world.trained(world.conv, steps=20)}

    def stop(text: str) -> None:
        if text.startswith("b: auditing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(models, listener=Listener(say=stop))
    stored, said = evaluate(models, resume=True)
    assert [text[0] for text in said if "auditing" in text] == ["b"]
    whole, _ = evaluate(models, "whole")
    assert {name: found(stored, name) for name in models} == {name: found(whole, name) for name in models}
    assert not (tmp_path / "run" / "parts").exists()


def test_a_model_that_raises_does_not_end_the_run(evaluate: Any, world: Any) -> None:
    suite = load_suite(attacks=["pgd:steps=5"], norm="linf", eps=2 / 255)
    stored, _ = evaluate({"net": Shy(world.plain())}, suite=suite, search_copy=False)
    checks = found(stored)
    assert checks["huge-eps"]["status"] == "not run"
    assert checks["huge-eps"]["measured"] == "The model failed: ValueError: too harsh."
    assert checks["black-box"]["status"] != "not run"


def test_a_model_that_turns_on_training_mode_ends_it(evaluate: Any, world: Any) -> None:
    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.seen = world.plain(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            if self.seen > 60:
                self.train()
            return self.net(x)  # type: ignore[no-any-return]

    with pytest.raises(RunError, match="went into training mode"):
        evaluate({"net": Turning()}, search_copy=False)


def test_own_labels_and_no_budget(evaluate: Any, world: Any) -> None:
    stored, _ = evaluate({"net": world.plain()}, labels="predicted")
    assert found(stored)["clean"]["status"] == "not run"
    none, _ = evaluate({"net": world.plain()}, "none", suite=load_suite(attacks=["pgd:steps=5"], norm="linf", eps=0))
    assert found(none)["black-box"]["measured"].startswith("The budget is 0")
    assert found(none)["gradient"]["status"] == "pass"


def test_images_crafted_elsewhere(evaluate: Any, world: Any) -> None:
    stored, _ = evaluate({"net": world.plain()}, surrogate={"other": world.trained(world.conv, steps=20)})
    checks = found(stored)
    assert checks["black-box"]["status"] == checks["inside"]["status"] == "not run"
    assert checks["outputs"]["status"] == checks["gradient"]["status"] == "pass"


@pytest.mark.parametrize(
    "attacks", [["square:steps=30"], ["fmn:steps=10"], ["fgsm"], ["apgd:steps=8", "apgd-t:steps=8"]]
)
def test_suites_of_all_kinds(attacks: list[str], evaluate: Any, world: Any) -> None:
    stored, _ = evaluate({"net": world.plain()}, suite=load_suite(attacks=attacks, norm="linf", eps=EPS))
    assert not any("model failed" in check["measured"] for check in found(stored).values())
    assert found(stored)["huge-eps"]["status"] == "pass"


def test_a_norm_that_only_the_suite_attacks_in(evaluate: Any, world: Any) -> None:
    stored, _ = evaluate({"net": world.plain()}, suite=load_suite(attacks=["fmn:steps=20"], norm="l0", eps=20))
    checks = found(stored)
    assert checks["black-box"]["measured"] == "The audit has no attack of its own in l0."
    assert checks["gradient"]["status"] == checks["inside"]["status"] == "pass"


def test_the_audit_is_part_of_the_configuration(evaluate: Any, world: Any, tmp_path: Path) -> None:
    stored, _ = evaluate({"net": world.plain()})
    assert stored.info["config"]["audit"] == 8
    info = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert read_run(tmp_path / "run").info["audit"] == info["audit"]
