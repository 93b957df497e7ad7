"""Models that write into the images they are given, or return the same memory twice: the same numbers as on a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import ATTACKS
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.judging import logits_of
from robustlab.evaluation.listener import Listener
from robustlab.explain import grad_cam
from robustlab.models.classifier import Classifier, check
from robustlab.models.ensemble import Ensemble
from robustlab.training.checks import loss_and_accuracy
from tests.attacks.conftest import answered, quick, small_net

QUIET = Listener(say=lambda text: None)


def _cropped(x: Tensor) -> Tensor:
    x[:, :, :2] = 0.5
    return x


WRITES: dict[str, Callable[[Tensor], Tensor]] = {
    "normalises": lambda x: x.sub_(0.5).div_(0.25),
    "clamps": lambda x: x.clamp_(0.3, 0.7),
    "crops": _cropped,
    "rounds": lambda x: x.mul_(7).round_().div_(7),
    "writes through a view": lambda x: x.flatten(1).mul_(2).view_as(x),
}


class Writing(nn.Module):
    """own: writes into a copy instead. reuses: returns one and the same tensor, call after call."""

    def __init__(self, write: Callable[[Tensor], Tensor], own: bool, reuses: bool = False) -> None:
        super().__init__()
        self.net, self.write, self.own, self.reuses = small_net(), write, own, reuses
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(self.write(x.clone() if self.own else x))
        if not self.reuses or out.requires_grad:
            return out
        if self.last is None or self.last.shape != out.shape:
            self.last = torch.empty_like(out)
        return self.last.copy_(out)


def pair(write: str) -> tuple[Writing, Writing, Tensor, Tensor]:
    in_place, on_a_copy = (Writing(WRITES[write], own).eval() for own in (False, True))
    x, y = answered(on_a_copy, 12)
    return in_place, on_a_copy, x, y


@pytest.mark.parametrize(
    ("method", "write"),
    [
        *((method, "normalises") for method in ATTACKS if method != "brendel-bethge"),
        *((method, write) for method in ("pgd", "square", "fmn") for write in WRITES if write != "normalises"),
    ],
)
def test_attacks_find_what_they_find_on_a_copy(method: str, write: str) -> None:
    in_place, on_a_copy, x, y = pair(write)
    mine = x.clone()
    attack = quick(method, **{"steps": 30} if method == "square" else {})
    found, wanted = (attack.run(model, mine, y, batch_size=8) for model in (in_place, on_a_copy))
    assert torch.equal(mine, x)
    assert torch.equal(found.images, wanted.images) and torch.equal(found.success, wanted.success)


@pytest.mark.parametrize("write", WRITES)
def test_whoever_asks_keeps_the_images(write: str) -> None:
    in_place, on_a_copy, x, y = pair(write)
    mine = x.clone()
    asked: dict[str, Callable[[Any], Any]] = {
        "judge": lambda model: logits_of(model, mine, 10),
        "boundary check": lambda model: check(model, mine, y),
        "heatmap": lambda model: grad_cam(model, mine, y, layer="net.0").maps,
        "training's measure": lambda model: loss_and_accuracy(Classifier(model), mine, y),
        "ensemble": lambda model: logits_of(Ensemble([model, copy.deepcopy(model)]), mine, 10),
        "as a view": lambda model: logits_of(model, mine[4:12], 3),
    }
    for name, ask in asked.items():
        found, wanted = ask(in_place), ask(on_a_copy)
        assert torch.equal(found, wanted) if isinstance(found, Tensor) else found == wanted, name
        assert torch.equal(mine, x), name


def test_what_a_model_returns_is_not_overwritten_by_its_next_answer() -> None:
    reusing, plain = (Writing(WRITES["normalises"], own=True, reuses=reuses).eval() for reuses in (True, False))
    x = answered(plain, 24)[0]
    assert torch.equal(logits_of(reusing, x, 8), logits_of(plain, x, 8))


def test_a_run_of_two_models(tmp_path: Path) -> None:
    in_place, on_a_copy, x, y = pair("rounds")
    mine, options = x.clone(), {"audit": 4, "keep": 1, "curve": [], "listener": QUIET}
    runs = [
        evaluate(
            {"writing": model, "beside": small_net()}, (mine, y), "linf-standard", output=tmp_path / name, **options
        )
        for name, model in (("a", in_place), ("b", on_a_copy))
    ]
    assert torch.equal(mine, x)
    assert runs[0].lines == runs[1].lines
    assert [c["status"] for c in runs[0].info["audit"]["writing"]["checks"]] == [
        c["status"] for c in runs[1].info["audit"]["writing"]["checks"]
    ]
