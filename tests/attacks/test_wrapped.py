"""Attack objects of foolbox and torchattacks as attacks of ours: their own numbers, our judge."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import PGD, wrap
from robustlab.attacks.foolbox_adapter import foolbox
from robustlab.attacks.foreign import seeded
from robustlab.attacks.suite import load_suite
from robustlab.base.errors import UserError
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.oracle import NoGradientError, Oracle
from robustlab.reporting.page import report
from robustlab.reporting.terminal import terminal_table
from robustlab.runs import StoredRun
from robustlab.runs.results import results
from robustlab.verification import verify

from .conftest import answered, small_net

EPS = 4 / 255
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def fb() -> Any:
    return foolbox()


@pytest.fixture(scope="module")
def ta() -> Any:
    return pytest.importorskip("torchattacks")


def pgd_of(fb: Any, steps: int = 8, **more: Any) -> Any:
    return fb.attacks.LinfPGD(steps=steps, rel_stepsize=0.25, **more)


def run(
    tmp_path: Path, net: nn.Module, attacks: Any, said: list[str] | None = None, n: int = 24, **options: Any
) -> StoredRun:
    quiet = Listener(say=(lambda text: None) if said is None else said.append)
    suite = load_suite(attacks=attacks, eps=EPS)
    settings = {"audit": 0, "keep": 0, "curve": [], **options}
    return evaluate({"net": net}, answered(net, n), suite, output=tmp_path / "run", listener=quiet, **settings)


# --- their numbers ----------------------------------------------------------------------------------------------------


def test_the_points_are_foolboxs_own(fb: Any, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    ids, attack = torch.arange(len(x)), pgd_of(fb)
    outcome = wrap(attack, eps=EPS).run(net, x, y, ids=ids, seed=5)
    with seeded(CPU, 5, ids):
        theirs = attack(fb.PyTorchModel(net, (0, 1), device="cpu"), x, y, epsilons=EPS)[0]
    assert torch.equal(outcome.images, theirs) and 0 < outcome.success.sum() < len(x) and outcome.refused == 0


def test_the_points_are_torchattacks_own_and_the_object_stays_as_it_is(
    ta: Any, net: nn.Module, sample: tuple[Tensor, Tensor]
) -> None:
    x, y = sample
    ids, attack = torch.arange(len(x)), ta.PGD(net, eps=EPS, alpha=EPS / 4, steps=8)
    before = dict(vars(attack))
    outcome = wrap(attack).run(net, x, y, ids=ids, seed=5)
    with seeded(CPU, 5, ids):
        theirs = attack(x, y)
    assert torch.equal(outcome.images, theirs) and 0 < outcome.success.sum() < len(x)
    assert vars(attack) == before and attack.model is net


@pytest.mark.parametrize("name", ["FGSM", "Square", "APGD", pytest.param("AutoAttack", marks=pytest.mark.slow), "FAB"])
def test_an_object_of_torchattacks_attacks_the_model_of_the_call(
    name: str, ta: Any, net: nn.Module, sample: tuple[Tensor, Tensor]
) -> None:
    """Also where other attacks inside it hold the model it was made with."""

    class Forbidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("the model that the object was made with was asked")

    more = {"AutoAttack": {"n_classes": 4}, "FAB": {"n_classes": 4, "steps": 3}, "Square": {"n_queries": 20}}
    attack = wrap(getattr(ta, name)(Forbidden(), eps=EPS, **more.get(name, {})))
    oracle = Oracle(net)
    outcome = attack.run(oracle, *(each[:3] for each in sample))
    assert int(outcome.forwards.sum()) >= oracle.forwards > 6  # two looks at each are ours
    assert int(outcome.backwards.sum()) >= oracle.backwards


def test_it_is_about_as_strong_as_our_pgd(fb: Any, net: nn.Module) -> None:
    x, y = answered(net, 400)
    theirs = wrap(pgd_of(fb, 20), eps=EPS).run(net, x, y).success
    ours = PGD(eps=EPS, steps=20).run(net, x, y).success
    assert 0.1 < ours.double().mean() < 0.9
    assert (ours != theirs).double().mean() < 0.02


# --- what is ours around them -----------------------------------------------------------------------------------------


def test_every_pass_is_counted(fb: Any, net: nn.Module) -> None:
    x, y = answered(net, 8)
    oracle = Oracle(net)
    outcome = wrap(pgd_of(fb), eps=EPS).run(oracle, x, y)
    assert int(outcome.forwards.sum()) == oracle.forwards and int(outcome.backwards.sum()) == oracle.backwards
    assert outcome.forwards.tolist() == [8 + 3] * 8 and outcome.backwards.tolist() == [8] * 8
    averaged = load_suite(attacks=[wrap(pgd_of(fb))], eps=EPS).with_eot(3).members[0].attack
    assert averaged.run(net, x, y).backwards.tolist() == [24] * 8


def test_random_numbers_follow_from_the_seed_and_are_put_back(fb: Any, net: nn.Module) -> None:
    x, y = answered(net, 16)
    attack = wrap(pgd_of(fb), eps=EPS)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index,union-attr]
    first, again, other = (attack.run(net, x, y, seed=seed).images for seed in (0, 0, 1))
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index,union-attr]
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(states[0], after[0]) and states[1:] == after[1:]


def test_it_is_unkeyed_for_a_reason(fb: Any, net: nn.Module) -> None:
    """Another order of the images, other points; of a keyed attack they are the same."""
    x, y = answered(net, 16)
    theirs, ours = wrap(pgd_of(fb, 1), eps=EPS), PGD(eps=EPS, steps=1)
    for attack, same in ((theirs, False), (ours, True)):
        forth, back = (attack.run(net, x[at], y[at]).images for at in (slice(None), torch.arange(15, -1, -1)))
        assert torch.allclose(forth, back.flip(0), atol=1e-6) is same
    assert not theirs.keyed and ours.keyed


def test_the_model_is_left_in_training_mode(fb: Any, ta: Any, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for attack in (wrap(pgd_of(fb), eps=EPS), wrap(ta.PGD(net, eps=EPS))):
        attack.run(net, *sample)
        assert net.training and all(module.training for module in net)  # type: ignore[attr-defined]
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def beyond(fb: Any, how: Callable[[Tensor], Tensor]) -> Any:
    """An attack that returns what `how` makes of the images, whatever its budget."""

    class Beyond(fb.attacks.base.FixedEpsilonAttack):  # type: ignore[misc, name-defined]
        distance = fb.distances.linf

        def run(self, model: Any, inputs: Tensor, criterion: Any, *, epsilon: float, **more: Any) -> Tensor:
            return how(inputs)

    return Beyond()


def test_a_point_outside_the_budget_is_counted_as_a_failure(fb: Any, net: nn.Module, tmp_path: Path) -> None:
    x, y = answered(net, 24)
    attack = beyond(fb, lambda images: 1 - images)
    found = net(1 - x).argmax(1) != y
    outcome = wrap(attack, eps=EPS).run(net, x, y)
    assert found.any() and not outcome.success.any() and outcome.refused == int(found.sum())
    said: list[str] = []
    done = run(tmp_path, net, [wrap(attack)], said, audit=8, save_adversarial=True)
    mine = done.info["aggregates"]["models"][0]
    assert mine["robust_accuracy"]["value"] == 1 and mine["attacks"][0]["unverified"] == int(found.sum())
    assert mine["attacks"][0]["found"] == 0 and mine["attacks"][0]["median_distance"] is None  # a fault, no distance
    line = f"net, foolbox.Beyond, chunk 0, eps {EPS:.4g}: {int(found.sum())} points outside the budget"
    assert any(line in each for each in said)
    inside = next(each for each in done.info["audit"]["net"]["checks"] if each["name"] == "inside")
    assert inside["status"] == "fail" and inside["numbers"]["outside"] == 8


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1)[:, :3] + torch.tensor([1.0, 0.0, 0.0])


@pytest.mark.filterwarnings("ignore:LinearSearchBlendedUniformNoiseAttack failed")
def test_a_search_that_cannot_start_is_said(fb: Any, tmp_path: Path) -> None:
    """There is no adversarial to start from; foolbox then gives up the whole batch."""
    said: list[str] = []
    few = {"steps": 1, "initial_gradient_eval_steps": 5, "max_gradient_eval_steps": 10}
    attack = wrap(fb.attacks.HopSkipJumpAttack(**few, constraint="linf"))
    done = run(tmp_path, Constant(), [attack], said, n=5)
    assert any("5 samples on which the search could not start" in each for each in said)
    assert done.info["aggregates"]["models"][0]["attacks"][0]["unsearched"] == 5
    assert "could not start on 5" in report([tmp_path / "run"], tmp_path / "page.html").read_text()


def test_a_point_that_is_no_image_is_a_failure(fb: Any, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    outcome = wrap(beyond(fb, lambda images: images * torch.nan), eps=EPS).run(net, *sample)
    assert not outcome.success.any() and not outcome.invalid.any()
    outcome = wrap(beyond(fb, lambda images: images - 0.5), eps=1.0).run(net, *sample)
    assert outcome.images.min() < 0  # not clipped: the judge of a run looks at the box, too


def test_nan_of_the_model_ends_the_search_of_its_sample_alone(fb: Any, net: nn.Module) -> None:
    x, y = answered(net, 6)

    class Poisoned(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            near = (images.detach() - x[0]).flatten(1).abs().amax(1) < 0.1
            return net(images).masked_fill((near & images.requires_grad)[:, None], torch.nan)  # type: ignore[no-any-return]

    outcome = wrap(pgd_of(fb), eps=EPS).run(Poisoned(), x, y)
    assert outcome.invalid.tolist() == [True] + [False] * 5


def test_images_crafted_on_a_surrogate_are_judged_by_the_target(fb: Any, net: nn.Module) -> None:
    x, y = answered(net, 16)
    outcome = wrap(pgd_of(fb), eps=0.2).run(net, x, y, surrogate=small_net(seed=3))
    with torch.no_grad():
        assert torch.equal(net(outcome.images).argmax(1) != y, outcome.success) and outcome.success.any()


def test_attacks_on_the_distance_run_without_a_budget(fb: Any, ta: Any, net: nn.Module) -> None:
    x, y = answered(net, 8)
    near = wrap(fb.attacks.L2DeepFoolAttack()).run(net, x, y)
    assert near.success.all()
    sizes = (near.images - x).flatten(1).norm(dim=1)
    suite = load_suite(
        attacks=[wrap(fb.attacks.L2DeepFoolAttack()), wrap(ta.CW(net))], norm="l2", eps=float(sizes.median())
    )
    assert [member.attack.keep for member in suite.members] == ["smallest"] * 2
    assert suite.nearest is suite.members[0]  # CW of torchattacks does not give the curve
    inside = suite.at(suite.members[0], float(sizes.median())).run(net, x, y)
    assert 0 < inside.success.sum() < 8 and inside.refused == 0


def test_a_decision_based_attack_asks_no_gradient(fb: Any, net: nn.Module) -> None:
    class Numb(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return net(x).detach()  # type: ignore[no-any-return]

    x, y = answered(net, 6)
    jump = fb.attacks.HopSkipJumpAttack(steps=2, initial_gradient_eval_steps=5, max_gradient_eval_steps=10)
    outcome = wrap(jump, needs="labels").run(Oracle(Numb(), gives="labels"), x, y)
    assert (outcome.backwards == 0).all() and (outcome.forwards > 10).all()  # also where foolbox finds no start
    with pytest.raises(NoGradientError):
        wrap(pgd_of(fb), eps=EPS).run(Numb(), x, y)


def test_what_is_known_of_a_class_is_asked(fb: Any, ta: Any, net: nn.Module) -> None:
    known = [fb.attacks.LinfAdditiveUniformNoiseAttack(), fb.attacks.BoundaryAttack(), ta.Square(net), ta.SPSA(net)]
    assert [wrap(each).needs for each in known] == ["labels", "labels", "scores", "scores"]
    assert wrap(fb.attacks.LinfAdditiveUniformNoiseAttack().repeat(2)).needs == "labels"
    assert wrap(ta.MultiAttack([ta.Square(net), ta.PGD(net)])).needs == wrap(pgd_of(fb)).needs == "gradient"
    assert wrap(known[2], needs="gradient").needs == "gradient"
    x, y = answered(net, 4)
    outcome = wrap(known[0], eps=0.5).run(Oracle(net, gives="labels"), x, y)
    assert (outcome.backwards == 0).all()


def test_a_repeated_attack_has_the_name_and_steps_of_what_it_repeats(fb: Any) -> None:
    attack = wrap(pgd_of(fb, 2).repeat(3))
    assert (attack.method, attack.steps, attack.keep) == ("foolbox.LinfPGD-x3", 2, "adversarial")


def test_several_of_torchattacks_together_have_their_common_budget(ta: Any, net: nn.Module) -> None:
    x, y = answered(net, 8)
    pair = wrap(ta.MultiAttack([ta.FGSM(net, eps=EPS), ta.PGD(net, eps=EPS, alpha=EPS / 4, steps=8)]))
    assert (pair.eps, pair.norm, pair.keep) == (EPS, "linf", "adversarial")
    assert pair.run(net, x, y).success.sum() >= wrap(ta.FGSM(net, eps=EPS)).run(net, x, y).success.sum()
    with pytest.raises(UserError, match=r"inside MultiAttack have different budgets: 0.0156863, 0.1"):
        wrap(ta.MultiAttack([ta.FGSM(net, eps=EPS), ta.FGSM(net, eps=0.1)]))
    with pytest.raises(UserError, match="inside MultiAttack keep to different norms: l2, linf"):
        wrap(ta.MultiAttack([ta.FGSM(net, eps=EPS), ta.PGDL2(net, eps=EPS)]))


# --- in a run ---------------------------------------------------------------------------------------------------------


def test_a_run_says_that_it_is_unkeyed(fb: Any, net: nn.Module, tmp_path: Path) -> None:
    attacks = [wrap(pgd_of(fb, 2)), wrap(pgd_of(fb, 4)), "pgd:steps=2"]
    done = run(tmp_path, net, attacks, save_adversarial=True, curve=None)
    config = done.info["config"]
    assert [each["name"] for each in config["attacks"]] == ["foolbox.LinfPGD", "foolbox.LinfPGD-2", "pgd"]
    assert [each.get("unkeyed", False) for each in config["attacks"]] == [True, True, False]
    wanted = {"steps": 2, "rel_stepsize": 0.25, "abs_stepsize": None, "random_start": True}
    assert config["attacks"][0]["parameters"] == wanted and config["curve"]["attack"] == "pgd"
    assert any("Unkeyed: foolbox.LinfPGD, foolbox.LinfPGD-2" in text for text in done.info["warnings"])
    shown = terminal_table(results(done))
    assert "foolbox.LinfPGD-2 (unkeyed)" in shown and "pgd (unkeyed)" not in shown
    page = tmp_path / "page.html"
    report([done.folder], page)
    assert page.read_text().count("<small>unkeyed</small>") == 2
    checked = verify(done.folder, models={"net": net}, data=answered(net, 24))
    assert checked.disagreements == 0 and "foolbox.LinfPGD-2 searched (unkeyed" in str(checked)


class Stops(nn.Module):
    """Its process is ended at some call."""

    def __init__(self, net: nn.Module, calls: float = float("inf")) -> None:
        super().__init__()
        self.net, self.calls = net, calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return self.net(x)  # type: ignore[no-any-return]


def test_a_run_is_resumed_with_the_same_object_only(fb: Any, net: nn.Module, tmp_path: Path) -> None:
    """What is left does what it would have done: the seeds follow from the samples of a unit."""
    whole = run(tmp_path / "whole", Stops(net), [wrap(pgd_of(fb))], chunk_size=8)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Stops(net, 40), [wrap(pgd_of(fb))], chunk_size=8)
    assert list((tmp_path / "run" / "parts").glob("*foolbox*"))
    with pytest.raises(UserError, match="steps"):
        run(tmp_path, Stops(net), [wrap(pgd_of(fb, 9))], chunk_size=8, resume=True)
    again = run(tmp_path, Stops(net), [wrap(pgd_of(fb))], chunk_size=8, resume=True)
    assert again.lines == whole.lines


def test_a_list_of_attacks_is_a_suite_under_the_threat_of_the_data(fb: Any, net: nn.Module, tmp_path: Path) -> None:
    quiet = Listener(say=lambda text: None)
    off: dict[str, Any] = {"audit": 0, "keep": 0, "curve": []}
    attacks = ["fgsm", wrap(pgd_of(fb, 2))]
    done = evaluate({"net": net}, answered(net, 8), attacks, output=tmp_path / "run", listener=quiet, **off)
    assert [each["name"] for each in done.info["config"]["attacks"]] == ["fgsm", "foolbox.LinfPGD"]
    assert done.info["config"]["threat"]["eps"] == 8 / 255


def test_there_is_no_curve_of_a_budget_that_cannot_change(ta: Any, net: nn.Module, tmp_path: Path) -> None:
    attack = wrap(ta.PGD(net, eps=EPS, steps=2))
    assert "curve" not in run(tmp_path, net, [attack], n=8, curve=None).info["config"]
    with pytest.raises(UserError, match="its own budget alone"):
        run(tmp_path / "other", net, [attack], n=8, curve=["2/255"])


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_said(fb: Any, ta: Any, net: nn.Module) -> None:
    attacks, under = fb.attacks, {"eps": EPS}
    normalised, training, targeted = (ta.PGD(net, eps=EPS) for _ in range(3))
    normalised.set_normalization_used([0.5] * 3, [0.5] * 3)
    training.set_model_training_mode(model_training=True)
    targeted.set_mode_targeted_by_label(quiet=True)
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: wrap("pgd"), "wrap takes an attack object"),
        (lambda: wrap(attacks.LinfPGD), "the class LinfProjectedGradientDescentAttack"),
        (lambda: wrap(PGD()), "needs no wrapping"),
        (lambda: wrap(pgd_of(fb), needs="nothing"), "needs is gradient"),  # type: ignore[arg-type]
        (lambda: wrap(attacks.GaussianBlurAttack()), r"GaussianBlurAttack\(distance=foolbox.distances.linf\)"),
        (lambda: wrap(normalised), "normalised images"),
        (lambda: wrap(training), "training mode"),
        (lambda: wrap(ta.PGD(net, eps=EPS), eps="8/255"), "was made with eps=0.0156"),
        (lambda: load_suite(attacks=[pgd_of(fb)], **under), r"robustlab.attacks.wrap\(an object"),
        (lambda: load_suite(attacks=[wrap(attacks.L2PGD())], **under), "keeps to l2, and the threat is linf"),
        (lambda: load_suite(attacks=[wrap(ta.PGDL2(net, eps=EPS))], **under), "keeps to l2, and the threat is linf"),
        (lambda: load_suite(attacks=[wrap(ta.PGD(net, eps=0.3))], **under), "was made with eps=0.3"),
        (
            lambda: load_suite(attacks=[wrap(ta.PGD(net, eps=EPS)), wrap(targeted)], **under),
            "is targeted, and the threat is not",
        ),
        (
            lambda: load_suite(attacks=[wrap(ta.FFGSM(net, eps=EPS)), wrap(ta.VANILA(net))], targeted=True, **under),
            "targeted mode",
        ),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()


def test_an_object_that_fails_is_named(fb: Any, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    def broken(images: Tensor) -> Tensor:
        raise KeyError("lost")

    with pytest.raises(UserError, match="foolbox.Beyond cannot run here; it says KeyError"):
        wrap(beyond(fb, broken), eps=EPS).run(net, *sample)
    with pytest.raises(UserError, match="returned"):
        wrap(beyond(fb, lambda images: images[:1]), eps=EPS).run(net, *sample)


def test_a_targeted_threat(fb: Any, ta: Any, net: nn.Module) -> None:
    x, y = answered(net, 16)
    targets = (y + 1) % 4
    suite = load_suite(attacks=[wrap(pgd_of(fb, 20)), wrap(ta.PGD(net, eps=0.1, steps=20))], eps=0.1, targeted=True)
    for member in suite.members:
        outcome = member.attack.run(net, x, y, targets=targets)
        with torch.no_grad():
            assert torch.equal(net(outcome.images).argmax(1) == targets, outcome.success) and outcome.success.any()
