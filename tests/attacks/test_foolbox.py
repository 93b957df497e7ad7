"""The attacks that are foolbox's: what is ours around them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import ATTACKS, CW, FMN, BrendelBethge, DeepFool, attack_class
from robustlab.attacks.row_attack import RowAttack
from robustlab.attacks.suite import load_suite
from robustlab.base.errors import UserError
from robustlab.oracle import Oracle
from robustlab.reporting.source import FOOLBOX
from robustlab.threat.geometry import distance

from .conftest import answered, quick, small_net
from .test_contract import COMPILED

METHODS = ["deepfool", "cw", "ead"]


class Poisoned(nn.Module):
    """NaN around one image, in the logits or in the gradient alone, wherever a gradient is asked for."""

    def __init__(self, inner: nn.Module, image: Tensor, where: str) -> None:
        super().__init__()
        self.inner, self.image, self.where = inner, image, where

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        near = ((x.detach() - self.image).flatten(1).abs().amax(1) < 0.3).nonzero()[:, 0]
        if not x.requires_grad or not len(near):
            return logits
        if self.where == "logits":
            return logits.index_fill(0, near, torch.nan)
        zero = (x[near] * 0).flatten(1).sum(1, keepdim=True).sqrt()  # with the gradient 0 / 0
        return logits.index_add(0, near, zero.expand(-1, logits.shape[1]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["logits", "gradient"])
def test_nan_for_one_sample_is_said_and_leaves_the_others_alone(method: str, where: str, net: nn.Module) -> None:
    x, y = answered(net, 6)
    outcome = quick(method).run(Poisoned(net, x[0], where), x, y)
    alone = quick(method).run(net, x[1:], y[1:])
    assert outcome.invalid.tolist() == [True] + [False] * 5 and not outcome.success[0]
    assert torch.equal(outcome.success[1:], alone.success)
    assert torch.allclose(outcome.images[1:], alone.images, atol=1e-4)
    assert (outcome.forwards[1:] > alone.forwards).all()  # what ended at the NaN is charged, too


@pytest.mark.parametrize(("method", "norm"), [(m, norm) for m in METHODS for norm in attack_class(m).norms])
def test_the_points_are_foolboxs_own(method: str, norm: str, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from foolbox import PyTorchModel, attacks

    x, y = sample
    attack = quick(method, norm=norm)
    both = {"steps": attack.steps}
    if method != "deepfool":
        size = {"cw": "stepsize", "ead": "initial_stepsize"}[method]
        both |= {"binary_search_steps": attack.binary_search_steps, "initial_const": attack.initial_const}
        both |= {size: attack.step_size, "abort_early": False} | ({"decision_rule": "L1"} if method == "ead" else {})
    kinds = {"deepfoollinf": "LinfDeepFool", "deepfooll2": "L2DeepFool", "cwl2": "L2CarliniWagner", "eadl1": "EAD"}
    theirs = getattr(attacks, f"{kinds[method + norm]}Attack")(**both)
    wanted = theirs(PyTorchModel(net, (0, 1), device="cpu"), x, y, epsilons=None)[0]
    outcome = attack.run(net, x, y)
    assert outcome.success.all() and torch.allclose(outcome.images, wanted, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_pass_is_charged_to_every_sample_of_its_batch(method: str, net: nn.Module) -> None:
    x, y = answered(net, 12)
    wrong = torch.arange(12) < 3
    y = torch.where(wrong, (y + 1) % 4, y)
    oracle = Oracle(net)
    outcome = quick(method).run(oracle, x, y, batch_size=8)
    assert int(outcome.forwards.sum()) == oracle.forwards and int(outcome.backwards.sum()) == oracle.backwards
    assert outcome.success[wrong].all() and torch.equal(outcome.images[wrong], x[wrong])
    assert (outcome.forwards[wrong] == 2).all() and (outcome.backwards[wrong] == 0).all()
    for batch in outcome.forwards[3:8], outcome.forwards[8:], outcome.backwards[3:8], outcome.backwards[8:]:
        assert (batch == batch[0]).all() and batch[0] > 2
    twice = quick(method, eot=2).run(net, x, y, batch_size=8)
    assert torch.equal(twice.backwards, 2 * outcome.backwards) and torch.equal(twice.success, outcome.success)


def test_the_page_knows_which_methods_charge_by_the_batch() -> None:
    assert FOOLBOX == tuple(method for method in ATTACKS if not issubclass(attack_class(method), RowAttack))


def test_what_is_charged_follows_from_the_parameters(net: nn.Module) -> None:
    x, y = answered(net, 4)
    cw = quick("cw").run(net, x, y)
    ead = quick("ead").run(net, x, y)
    assert (cw.backwards == quick("cw").looks).all() and (cw.forwards == quick("cw").looks + 2).all()
    assert (2 * ead.backwards == quick("ead").looks).all() and (ead.forwards == quick("ead").looks + 2).all()
    deepfool = DeepFool().run(net, x, y)
    assert (deepfool.forwards <= DeepFool().looks + 2).all()


def test_early_success_of_the_others_does_not_end_the_search_for_a_sample(net: nn.Module) -> None:
    """foolbox's own early stop would: it looks at the sum over the batch."""
    x, y = answered(net, 8)
    together, alone = (quick("cw").run(net, x, y, batch_size=size) for size in (8, 1))
    sizes = [distance(outcome.images - x, "l2") for outcome in (together, alone)]
    assert torch.allclose(*sizes, rtol=1e-3)


def test_images_crafted_on_a_surrogate_are_judged_by_the_target(net: nn.Module) -> None:
    x, y = answered(net)
    surrogate = small_net(seed=3)
    with torch.no_grad():
        both = surrogate(x).argmax(1) == y
    assert both.any()
    x, y = x[both], y[both]
    outcome = DeepFool(norm="l2", overshoot=2.0).run(net, x, y, surrogate=surrogate)
    with torch.no_grad():
        assert torch.equal(net(outcome.images).argmax(1) != y, outcome.success)
        assert (surrogate(outcome.images).argmax(1) != y).all()


def test_a_randomised_model_is_judged_by_the_majority(net: nn.Module) -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return net(x) + 0.01 * torch.randn(len(x), 4)  # type: ignore[no-any-return]

    x, y = answered(net, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outcome = DeepFool(norm="l2", overshoot=0.5).run(Oracle(Noisy(), evaluations=10), x, y)
        assert outcome.success.float().mean() > 0.7 and (outcome.forwards > 20).all()
        with pytest.raises(UserError, match="randomised"):
            BrendelBethge().run(Oracle(Noisy(), evaluations=10), x, y)


def test_bad_parameters_are_said(net: nn.Module) -> None:
    x, y = answered(net, 2)
    bad: list[tuple[type[Any], dict[str, Any], str]] = [
        (DeepFool, {"candidates": 1}, "candidates of at least 2"),
        (DeepFool, {"norm": "l1"}, "knows the norms linf, l2"),
        (CW, {"step_size": 0.0}, "above 0"),
        (CW, {"binary_search_steps": 0}, "binary_search_steps of at least 1"),
        (attack_class("ead"), {"beta": -1.0}, "beta above 0"),
    ]
    for kind, parameters, message in bad:
        with pytest.raises(UserError, match=message):
            kind(**parameters)
    with pytest.raises(UserError, match="query budget"):
        CW().run(Oracle(net, query_budget=100), x, y)
    with pytest.raises(UserError, match="cw has no parameter 'restarts'"):
        load_suite(attacks=["cw:restarts=2"], norm="l2", eps="0.5")
    suite = load_suite(attacks=["deepfool:steps=5", "cw:step_size=0.02"], norm="l2", eps="0.5")
    assert suite.at(suite.members[1], 1.0) == CW(eps=1.0, step_size=0.02)


LATE = """
import sys, torch
from robustlab.attacks import DeepFool
from robustlab.base.errors import UserError
assert "foolbox" not in sys.modules
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
x = torch.rand(2, 1, 2, 2)
given = x, model(x).argmax(1)
sys.modules["eagerpy"] = None
try:
    DeepFool().run(model, *given)
except UserError as error:
    print(error)
del sys.modules["eagerpy"]
print(DeepFool().run(model, *given).images.shape)
"""


def test_foolbox_is_imported_late_and_without_git_or_warnings_and_what_it_lacks_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LATE],
        env=os.environ | {"PATH": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be imported here" in done.stdout and "[2, 1, 2, 2]" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("numba") is not None, reason="numba is installed")
def test_brendel_bethge_without_numba_says_what_to_do(net: nn.Module) -> None:
    with pytest.raises(UserError, match="pip install numba"):
        BrendelBethge().run(net, *answered(net, 2))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="brendel-bethge needs numba")
def test_brendel_bethge_leaves_what_has_no_start(net: nn.Module) -> None:
    x, y = answered(net, 4)
    outcome = BrendelBethge(steps=5).run(
        lambda images: images.flatten(1)[:, :4] * 0 + nn.functional.one_hot(y, 4), x, y
    )
    assert not outcome.success.any() and not outcome.invalid.any() and torch.equal(outcome.images, x)


@pytest.mark.parametrize("norm", [pytest.param(norm, marks=COMPILED) for norm in BrendelBethge.norms])
def test_brendel_bethge_is_never_farther_than_where_it_starts(norm: str, net: nn.Module) -> None:
    x, y = answered(net, 10)
    found = [
        distance(attack.run(net, x, y, batch_size=size).images - x, norm)
        for attack, size in (
            (FMN(norm, steps=20), 10),
            (BrendelBethge(norm, steps=20), 10),
            (BrendelBethge(norm, steps=20), 3),
        )
    ]
    assert (found[1] <= found[0] + 1e-6).all() and torch.allclose(found[1], found[2], rtol=0.02)


def test_a_black_image_is_nothing_that_was_found() -> None:
    """foolbox's C&W starts its list of best points at zero, and on pixels of exactly 0 and 1 it finds nothing."""
    x = (torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    with torch.no_grad():  # anything dark is of class 0
        net[1].weight.copy_(torch.stack([torch.zeros(36), torch.ones(36)]))
        net[1].bias.copy_(torch.tensor([0.0, -1.0]))
    outcome = CW(steps=5, step_size=1e-6).run(net, x, torch.ones(8, dtype=torch.long))
    assert not outcome.success.any() and torch.equal(outcome.images, x)
