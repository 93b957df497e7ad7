"""Expectation over a randomised model: gradients are averaged and success is judged over several evaluations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks import MIFGSM, PGD
from robustlab.base.errors import UserError
from robustlab.evaluation.judging import answers, judge, own_answers
from robustlab.oracle import EVALUATIONS, Oracle, forked, most
from robustlab.threat.model import ThreatModel

from .conftest import answered, quick, small_net

CPU = torch.device("cpu")


class Dropping(nn.Module):
    """Looks at a tenth of the values each time, another one for every image: the gradient is zero on the others."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(F.dropout(x, 0.9, training=True))  # type: ignore[no-any-return]


class EveryThird(nn.Module):
    """Every third look is answered with class 1, the others with class 0, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def forward(self, x: Tensor) -> Tensor:
        self.looks += 1
        wrong = float(self.looks % 3 == 0)
        return x.flatten(1).sum(1, keepdim=True) * 0 + torch.tensor([1 - wrong, wrong])


def linear() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False))


def test_averaged_gradients_succeed_more_often() -> None:
    model = Dropping(linear())
    x, y = answered(model.inner, 200)  # type: ignore[arg-type]
    successes = {}
    for eot in (1, 20):
        with forked(CPU, eot):
            attack = PGD(eps=0.1, steps=3, step_size=0.1, loss="margin", random_start=False, eot=eot)
            crafted = attack.run(Oracle(model, evaluations=EVALUATIONS), x, y).images
        successes[eot] = (model.inner(crafted).argmax(1) != y).sum().item()  # what it answers on average
    assert successes[20] > successes[1] + 40, successes


@pytest.mark.parametrize(
    ("method", "eot"), [(m, 2) for m in ("pgd", "mi-fgsm", "apgd", "apgd-t", "fmn", "ddn", "square")] + [("pgd", 3)]
)
def test_on_a_deterministic_model_more_evaluations_only_cost(method: str, eot: int) -> None:
    """The mean of two equal numbers is that number, bit for bit; of three it may be rounded."""
    net = small_net()
    x, y = answered(net)
    threat = {"norm": "l2", "eps": 0.3} if method == "ddn" else {"norm": "linf", "eps": 0.015}
    once, often = (quick(method, eot=k, **threat).run(net, x, y) for k in (1, eot))
    for field in ("success", "rank", "target"):
        assert torch.equal(getattr(once, field), getattr(often, field))
    assert torch.allclose(once.images, often.images, rtol=0, atol=0 if eot == 2 else 1e-5)
    # a look that only judges is not repeated: at the last point of each try
    judging = once.forwards - once.backwards if method != "square" else (~once.success).long()
    assert torch.equal(often.backwards, eot * once.backwards)
    assert torch.equal(often.forwards, eot * (once.forwards - judging) + judging)
    assert 0 < once.success.sum() < 40


def test_evaluations_and_views_multiply() -> None:
    net = small_net()
    x, y = answered(net, 6)
    oracle = Oracle(net)
    outcome = MIFGSM(eps=1e-6, steps=5, scales=2, eot=3).run(oracle, x, y)
    assert (outcome.forwards == 2 * 3 * 5 + 1).all() and (outcome.backwards == 2 * 3 * 5).all()
    assert oracle.forwards == 6 * 31


def test_a_success_that_the_majority_does_not_confirm_is_none() -> None:
    x, y = torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.long)
    attack = PGD(eps=0.1, steps=8)
    believed = attack.run(Oracle(EveryThird()), x, y)
    assert believed.success.all()
    outcome = attack.run(Oracle(EveryThird(), evaluations=9), x, y)
    assert not outcome.success.any() and outcome.refused > 0
    # eight gradients; nine evaluations of each claim on the way (every third) and at the last point
    assert (outcome.backwards == 8).all()
    assert ((outcome.forwards - 8) % 9 == 0).all() and (outcome.forwards >= 8 + 2 * 9).all()
    shown = attack.run(Oracle(EveryThird(), evaluations=9), x, y, surrogate=small_net(2, 1))
    assert not shown.success.any() and (shown.forwards == 8 + 9).all()


def test_the_majority_of_the_evaluations_is_a_success() -> None:
    """Two evaluations in three are right, so no query succeeds; with a single one every third would."""
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long)
    outcome = PGD(eps=0.1, steps=5, eot=3).run(Oracle(EveryThird(), evaluations=9), x, y)
    assert outcome.refused == 0 and (outcome.forwards == 15 + 9).all()


def test_what_counts_as_the_answer() -> None:
    said = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 2], [1, 1, 1, 0], [2, 0, 2, 1]])
    z, y = 9 * F.one_hot(said, 3).float(), torch.tensor([0, 0, 0, 1])
    answer, confidence = answers(z, y)
    assert answer.tolist() == [0, 0, 1, 2]  # a tie is right; of others the most frequent, then the lowest
    assert torch.allclose(confidence, z.softmax(2).mean(0)[torch.arange(4), answer])
    assert own_answers(z).tolist() == [0, 0, 1, 2]
    assert most(said != y).tolist() == [False, False, True, True]


def test_judged_by_the_majority() -> None:
    x, y = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)
    for evaluations, success in ((9, False), (1, True)):
        model = EveryThird()
        model.looks = 0 if evaluations == 9 else 2
        verdict = judge(model, x, x, y, y - 1, ThreatModel(eps=0.1), 4, evaluations)
        assert verdict.success.tolist() == [success] * 4 and verdict.prediction.tolist() == [int(success)] * 4
    aimed = judge(EveryThird(), x, x, y, y + 1, ThreatModel(eps=0.1, targeted=True), 4, 9)
    assert not aimed.success.any()


def test_inner_draws_are_forked() -> None:
    before = torch.get_rng_state()
    drawn = []
    for key in (0, 0, 1):
        with forked(CPU, key, "pgd"):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bad", [0, -1, 1.5])
def test_bad_numbers_of_evaluations(bad: Any) -> None:
    with pytest.raises(UserError, match="eot of at least 1"):
        PGD(eot=bad)
    if bad != 1.5:
        with pytest.raises(UserError, match="evaluations must be at least 1"):
            Oracle(linear(), evaluations=bad)
