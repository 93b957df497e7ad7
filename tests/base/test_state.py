"""Models that change while they are asked, that look at their batch, or hold state that is no tensor."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import FGSM, PGD, Square
from robustlab.base.errors import RunError, UserError
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.models.classifier import DEPENDS_ON_BATCH, KEEPS_STATE, RANDOMISED, Classifier, check
from robustlab.oracle import NoGradientError
from robustlab.verification import verify
from tests.attacks.conftest import answered, small_net


class Wrapped(nn.Module):
    def __init__(self, forward: Callable[[Wrapped, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.does = small_net(), forward
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


def counts(self: Wrapped, x: Tensor) -> Tensor:
    self.calls += 1
    return self.net(x)  # type: ignore[no-any-return]


def counts_by_data(self: Wrapped, x: Tensor) -> Tensor:
    self.calls.data.add_(1)
    return self.net(x)  # type: ignore[no-any-return]


def replaces(self: Wrapped, x: Tensor) -> Tensor:
    self.calls = self.calls + 1
    return self.net(x)  # type: ignore[no-any-return]


def adapts(self: Wrapped, x: Tensor) -> Tensor:
    self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3))[:, None, None]
    return self.net(x - self.mean)  # type: ignore[no-any-return]


def looks_around(self: Wrapped, x: Tensor) -> Tensor:
    return self.net(x - x.mean(0))  # type: ignore[no-any-return]


CHANGING = {f.__name__: f for f in (counts, counts_by_data, replaces, adapts)}


@pytest.mark.parametrize("name", CHANGING)
def test_an_attack_leaves_buffers_as_they_were(name: str) -> None:
    model = Wrapped(CHANGING[name]).eval()
    x, y = answered(small_net(), 8)
    before, held = {key: value.clone() for key, value in model.state_dict().items()}, model.calls
    for attack in (PGD(steps=3), Square(steps=5), FGSM()):
        attack.run(model, x, y)
        check(model, x, y)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert model.calls is held


def test_a_run_of_a_model_that_counts_is_verified(tmp_path: Path) -> None:
    model = Wrapped(counts)
    x, y = answered(small_net(), 16)
    before = Classifier(model).hash()
    quiet = Listener(say=lambda text: None)
    options: dict[str, Any] = {"audit": 4, "keep": 1, "curve": [], "save_adversarial": True, "listener": quiet}
    evaluate({"net": model}, (x, y), "fgsm", output=tmp_path / "run", **options)
    assert int(model.calls) == 0 and Classifier(model).hash() == before
    assert verify(tmp_path / "run", models={"net": model}, data=(x, y)).disagreements == 0


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (counts, []),
        (adapts, [KEEPS_STATE]),
        (looks_around, [DEPENDS_ON_BATCH]),
        (lambda self, x: self.net(x).softmax(0).log(), [DEPENDS_ON_BATCH]),
        (lambda self, x: self.net(x + 0.1 * torch.randn_like(x)), [RANDOMISED]),
        (lambda self, x: self.net(x), []),
    ],
)
def test_the_boundary_check_says_what_answers_depend_on(forward: Any, said: list[str]) -> None:
    assert check(Wrapped(forward), answered(small_net(), 9)[0], None).warnings == said


def test_batchnorm_on_batch_statistics_is_named_without_an_audit(tmp_path: Path) -> None:
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), small_net())
    x, y = answered(small_net(), 8)
    heard: list[str] = []
    options: dict[str, Any] = {"audit": 0, "keep": 0, "curve": [], "listener": Listener(say=heard.append)}
    run = evaluate({"net": net}, (x, y), "fgsm", output=tmp_path / "run", **options)
    assert f"net: {DEPENDS_ON_BATCH}" in run.info["warnings"] and f"Warning: net: {DEPENDS_ON_BATCH}" in heard


def test_the_audit_says_that_a_model_keeps_state(tmp_path: Path) -> None:
    x, y = answered(small_net(), 12)
    quiet = Listener(say=lambda text: None)
    model = Wrapped(adapts)
    run = evaluate(
        {"net": model}, (x, model.eval()(x).argmax(1)), "fgsm", output=tmp_path / "run", audit=4, keep=0, listener=quiet
    )
    found = next(c for c in run.info["audit"]["net"]["checks"] if c["name"] == "randomised")
    assert found["status"] == "fail" and "keeps state" in found["measured"]


class Noted(nn.Module):
    def __init__(self, note: Any) -> None:
        super().__init__()
        self.net, self.note = nn.Linear(4, 2), note
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)

    def get_extra_state(self) -> Any:
        return self.note

    def set_extra_state(self, state: Any) -> None:
        self.note = state


class Thing:
    def __init__(self, value: Any) -> None:
        self.value, self.itself = value, self


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": (2.0, None)}, {"a": 1, "b": (2.5, None)}),
        ([torch.ones(2)], [torch.zeros(2)]),
        (b"12", b"13"),
        ({"x", "y"}, {"x", "z"}),
        (Thing(torch.ones(1)), Thing(torch.zeros(1))),
        (torch.eye(3).to_sparse(), (2 * torch.eye(3)).to_sparse()),
    ],
)
def test_extra_state_is_part_of_the_hash(one: Any, other: Any) -> None:
    again = (
        dict(reversed(one.items())) if isinstance(one, dict) else Thing(one.value) if isinstance(one, Thing) else one
    )
    assert Classifier(Noted(one)).hash() == Classifier(Noted(again)).hash() != Classifier(Noted(other)).hash()


HASH = """
import warnings; warnings.simplefilter("ignore")
import torch; from torch import nn; from robustlab.models.classifier import Classifier
torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 3))
print(Classifier(torch.ao.quantization.quantize_dynamic(net, {nn.Linear})).hash())
"""


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_quantised_model_is_hashed_alike_everywhere_and_attacked_by_its_scores() -> None:
    hashes = {subprocess.run([sys.executable, "-c", HASH], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(hashes) == 1 and len(hashes.pop().strip()) == 32
    x = torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), {nn.Linear})
    y = model(x).argmax(1)
    assert Square(eps=0.5, steps=20).run(model, x, y).success.any()
    with pytest.raises(NoGradientError, match="gives no gradient"):
        PGD().run(model, x, y)


def test_a_model_without_a_gradient_gets_one_message_before_the_run(tmp_path: Path) -> None:
    x, y = answered(small_net(), 8)
    quiet = Listener(say=lambda text: None)
    model = Wrapped(lambda self, x: self.net(x.detach()))
    with pytest.raises(UserError, match="such as square"):
        evaluate({"net": model}, (x, y), "fgsm", output=tmp_path / "run", listener=quiet)
    assert not (tmp_path / "run").exists()


def test_an_error_of_ours_is_none_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = answered(small_net(), 8)
    quiet = Listener(say=lambda text: None)

    def broken(*given: Any) -> None:
        raise ValueError("no room in the drawer")

    monkeypatch.setattr("robustlab.evaluation.cascade._keep_images", broken)
    with pytest.raises(RunError, match="The model did not raise this"):
        evaluate({"net": small_net()}, (x, y), "fgsm", output=tmp_path / "run", audit=0, listener=quiet)
