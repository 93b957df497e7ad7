"""What a recipe does beside its defense: averages, AWP, schedules, mixup, cutout, optimisers, precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustlab.base.errors import UserError
from robustlab.base.processes import ALONE
from robustlab.defenses import make_defense
from robustlab.models import load_model
from robustlab.training import Recipe, recipe_for
from robustlab.training.batches import cut_out, learning_rate, own_shares, partners
from robustlab.training.weights import Average, worst_nearby
from tests.training.test_training import SMALL, Stop, fit, stop_at, without_times

EVERYTHING = replace(
    SMALL,
    ema=0.9,
    awp=0.01,
    awp_warmup=1.0,
    mixup=1.0,
    cutout=3,
    smoothing=0.1,
    clip=1.0,
    schedule="piecewise",
    drops=[0.5, 0.75],
    defense={"method": "trades", "eps": "8/255", "steps": 2},
)


def test_worst_nearby_moves_by_its_size_uphill_and_comes_back_exactly() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).train()
    x, y = torch.rand(16, 3, 2, 2), torch.arange(16) % 3
    kernels = [p for p in net.parameters() if p.ndim > 1]
    before = {key: value.clone() for key, value in net.state_dict().items()}

    def loss() -> torch.Tensor:
        return F.cross_entropy(net(x), y)

    at_first = float(loss().detach())
    net.load_state_dict(before)
    with worst_nearby(net, kernels, 0.05, loss, ALONE):
        for key, now in net.state_dict().items():
            there = before[key]
            moved = float((now - there).norm()) if now.is_floating_point() else 0.0
            expected = 0.05 * float(there.norm()) if now.ndim > 1 else 0.0
            assert moved == pytest.approx(expected, rel=1e-4), key  # statistics and biases stay, too
        assert float(loss().detach()) > at_first + 0.01
        net.load_state_dict({**net.state_dict(), **{k: v for k, v in before.items() if "running" in k or "num" in k}})
    assert all(torch.equal(now, before[key]) for key, now in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_the_average_by_hand() -> None:
    net = nn.BatchNorm1d(1)
    average = Average(net, 0.999)
    value, expected = 1.0, 1.0
    for step in range(5):
        value += 1.0
        net.weight.data.fill_(value)
        net.running_mean.fill_(value)
        net.num_batches_tracked += 1
        average.update(net)
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * value
    assert float(average.module.weight) == pytest.approx(expected)
    assert int(average.module.num_batches_tracked) == 5 and not average.module.weight.requires_grad
    copy = Average(nn.BatchNorm1d(1), 0.999)
    copy.restore(average.state())
    copy.update(net)
    average.update(net)
    assert torch.equal(copy.module.weight, average.module.weight)


def test_schedules() -> None:
    def rates(schedule: str, warmup: float) -> list[float]:
        return [round(learning_rate(i, 8, 1.0, warmup, schedule), 4) for i in range(8)]

    assert rates("cyclic", 0.5) == [0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125]
    drops = [round(learning_rate(i, 22, 1.0, 0.0, "piecewise", Recipe().drops), 6) for i in range(22)]
    assert drops == [1.0] * 20 + [0.1, 0.01]
    assert rates("constant", 0.25) == [0.25, 0.75] + [1.0] * 6
    cosine = rates("cosine", 0.0)
    assert cosine == sorted(cosine, reverse=True) and cosine[0] > 0.98 and 0 < cosine[-1] < 0.02


def test_cutout_hides_a_square_of_that_side_somewhere() -> None:
    ids = torch.arange(400)
    x = torch.rand(400, 2, 9, 9) + torch.arange(81.0).view(9, 9)  # no value is its channel's mean
    changed = cut_out(x, ids, 0, 1, 3) != x
    assert torch.equal(changed[:, 0], changed[:, 1])
    sizes = changed[:, 0].flatten(1).sum(1)
    assert int(sizes.max()) == 9 and int(sizes.min()) >= 4  # at a corner 2 x 2 are left
    assert bool((changed.sum((0, 1)) > 0).all())  # every place
    assert torch.equal(cut_out(x, ids, 0, 1, 3)[5:9], cut_out(x[5:9], ids[5:9], 0, 1, 3))
    assert not torch.equal(cut_out(x, ids, 0, 2, 3), cut_out(x, ids, 0, 1, 3)) and cut_out(x, ids, 0, 1, 0) is x


def test_mixing_is_a_permutation_with_shares_of_beta() -> None:
    ids = torch.arange(20_000)
    partner, share = partners(ids, 0, 1), own_shares(ids, 0, 1, 1.4)
    assert sorted(partner.tolist()) == list(range(20_000)) and not torch.equal(partner, torch.arange(20_000))
    drawn = torch.distributions.Beta(1.4, 1.4).sample((20_000,))
    expected = torch.maximum(drawn, 1 - drawn)
    assert float(share.min()) >= 0.5 and abs(float(share.mean() - expected.mean())) < 0.005
    assert abs(float(share.std() - expected.std())) < 0.005


@pytest.mark.parametrize("recipe", [EVERYTHING, replace(SMALL, optimizer="adamw", lr=1e-3)], ids=["all", "adamw"])
def test_everything_resumes_to_the_same_bytes(tmp_path: Path, recipe: Recipe) -> None:
    fit(tmp_path / "whole", recipe)
    with pytest.raises(Stop):
        fit(tmp_path / "parts", recipe, on_epoch=stop_at(2))
    done = fit(tmp_path / "parts", recipe, resume=True)
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")
    assert done.history[-1]["val_accuracy"] > 0.6


@pytest.mark.parametrize("change", [{"ema": 0.9}, {"awp": 0.01}, {"mixup": 1.0}, {"cutout": 3}, {"smoothing": 0.1}])
def test_each_of_them_does_something(tmp_path: Path, change: dict[str, float]) -> None:
    plain = replace(SMALL, epochs=1)
    hashes = {fit(tmp_path / str(i), replace(plain, **c)).card.hash for i, c in enumerate(({}, change))}
    assert len(hashes) == 2


def test_bfloat16_trains_as_well_on_a_cpu(tmp_path: Path) -> None:
    done = fit(tmp_path, replace(SMALL, precision="bfloat16"))
    assert done.history[-1]["val_accuracy"] > 0.9 and done.card.recipe["precision"] == "bfloat16"


def test_an_older_recipe_is_recorded_as_before() -> None:
    record = Recipe().record()
    assert not {"ema", "awp", "schedule", "optimizer", "precision", "compile", "model", "clip"} & record.keys()
    assert Recipe(ema=0.5, model={"width": 8}).record().items() >= {"ema": 0.5, "model": {"width": 8}}.items()


def test_options_of_the_architecture(tmp_path: Path) -> None:
    recipe = recipe_for("cnn", overrides={"model.width": 8}).recipe
    assert recipe.model == {"width": 8}
    done = fit(tmp_path / "narrow", replace(SMALL, epochs=1, model=recipe.model))
    assert done.card.options["width"] == 8
    assert fit(tmp_path / "more", replace(SMALL, epochs=1), str(tmp_path / "narrow")).card.options["width"] == 8
    with pytest.raises(UserError, match="does not take the options"):
        fit(tmp_path / "bad", replace(SMALL, model={"breadth": 8}))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("schedule", "cosinus", "cosine, cyclic, piecewise, constant, got 'cosinus'. Did you mean 'cosine'"),
        ("optimizer", "adam", "sgd, adamw, got 'adam'. Did you mean 'adamw'"),
        ("precision", "half", "auto, float32, bfloat16, got 'half'"),
        ("smoothing", 1.0, "smoothing below 1"),
        ("ema", 1.0, "ema below 1"),
        ("awp", -0.1, "awp of at least 0"),
        ("mixup", float("nan"), "mixup of at least 0"),
        ("drops", [0.5, 1.5], "shares of all steps"),
        ("ramp", float("inf"), "ramp of at least 0, and finite"),
        ("norm", "l7", "linf, l2, l1, got 'l7'"),
    ],
)
def test_bad_values_as_the_command_gets_them(key: str, value: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_defense(recipe_for("cnn", recipe="pgd-at", overrides={key: value}).recipe.defense)


@pytest.mark.parametrize("change", [{"schedule": "cosinus"}, {"precision": "half"}, {"optimizer": "adam"}])
def test_bad_values_in_python(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must be one of"):
        replace(SMALL, **change)


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    recipe = replace(SMALL, epochs=1, awp=0.01, awp_warmup=1.0, cutout=9)
    done = fit(tmp_path / "late", recipe)
    assert any("awp begins after 1 epochs" in text for text in done.warnings)
    assert any("squares of 9 pixels" in text for text in done.warnings)
    assert done.card.hash == fit(tmp_path / "never", replace(recipe, awp=0.0)).card.hash  # until then it does nothing


def test_an_l2_budget_needs_its_own_eps_and_is_checked_in_l2(tmp_path: Path) -> None:
    l2 = {"method": "pgd-at", "norm": "l2", "steps": 2}
    with pytest.raises(UserError, match="default eps only for linf.*--eps"):
        fit(tmp_path / "none", replace(SMALL, epochs=1, defense=l2))
    done = fit(tmp_path / "l2", replace(SMALL, epochs=1, defense={**l2, "eps": 0.5}))
    assert (done.card.measured[1].norm, done.card.measured[1].eps) == ("l2", "0.5")


def test_a_collapse_stops_the_training_and_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.6, 0.6, 0.1, 0.0, 0.5, 0.5])  # training, validation, epoch by epoch
    monkeypatch.setattr("robustlab.training.session.under_attack", lambda *_: (1.0, next(values)))
    monkeypatch.setattr("robustlab.training.session.guess_of", lambda labels: 0.0)
    recipe = replace(SMALL, epochs=6, check_size=60, defense={"method": "fast-at", "eps": "8/255"})
    with pytest.raises(Stop):
        fit(tmp_path, recipe, on_epoch=stop_at(2))
    done = fit(tmp_path, recipe, resume=True)  # and does not go on after it
    assert len(done.history) == 2 and done.best_epoch == 1 and done.card.trained["epochs"] == 2
    assert any("catastrophic overfitting" in text and "Training stops here" in text for text in done.warnings)


def test_one_answer_for_all_is_neither_kept_nor_fallen_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.74, 0.74, 0.1, 0.1, 0.2, 0.2])  # a constant model is robust
    monkeypatch.setattr("robustlab.training.session.under_attack", lambda *_: (1.0, next(values)))
    shares = iter([0.74, 0.74, 0.9, 0.9, 0.95, 0.95])
    monkeypatch.setattr("robustlab.training.session.loss_and_accuracy", lambda *_: (1.0, next(shares)))
    monkeypatch.setattr("robustlab.training.session.guess_of", lambda labels: 0.75)
    done = fit(tmp_path, replace(SMALL, epochs=3, defense={"method": "fast-at", "eps": "8/255"}))
    assert len(done.history) == 3 and done.best_epoch == 3


def test_awp_works_in_bfloat16(tmp_path: Path) -> None:
    recipe = replace(SMALL, epochs=1, precision="bfloat16")
    without = fit(tmp_path / "without", recipe)
    done = fit(tmp_path / "with", replace(recipe, awp=0.05))
    # the loss at the moved weights is larger: autocast has not kept the old ones
    assert done.history[0]["batch_loss"] > 1.02 * without.history[0]["batch_loss"]


def test_awp_leaves_frozen_kernels_alone(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FROZEN)
    done = fit(tmp_path / "out", replace(SMALL, epochs=1, awp=0.01, dropout=0.0), f"{tmp_path / 'net.py'}:make")
    weights = load_model(str(done.output)).module.state_dict()
    assert bool((weights["0.weight"] == 0.1).all())


FROZEN = """
import torch
def make():
    first = torch.nn.Conv2d(1, 4, 3)
    torch.nn.init.constant_(first.weight, 0.1)
    first.weight.requires_grad_(False)
    return torch.nn.Sequential(first, torch.nn.Flatten(), torch.nn.Linear(144, 3))
"""


def test_all_validation_images_are_on_the_card(tmp_path: Path) -> None:
    assert fit(tmp_path, replace(SMALL, epochs=1, val_size=None)).card.recipe["val_size"] == 60


def test_a_teacher_belongs_to_the_training(tmp_path: Path) -> None:
    soft = {"method": "distillation", "temperature": 5.0}
    recipe = replace(SMALL, epochs=2, defense=soft)
    fit(tmp_path / "teacher", recipe)
    taught = replace(recipe, defense=soft | {"teacher": str(tmp_path / "teacher")})
    with pytest.raises(Stop):
        fit(tmp_path / "student", taught, on_epoch=stop_at(1))
    fit(tmp_path / "teacher", recipe, seed=1, overwrite=True)
    with pytest.raises(UserError, match="teacher_hash"):
        fit(tmp_path / "student", taught, resume=True)
    with pytest.raises(UserError, match="16 outputs, and stripes 3 classes"):
        fit(tmp_path / "other", replace(recipe, defense=soft | {"teacher": "road-signs/cnn"}))


def test_noise_keeps_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.9, 0.9, 0.2, 0.2])
    monkeypatch.setattr("robustlab.training.session.loss_and_accuracy", lambda *_: (1.0, next(shares)))
    assert fit(tmp_path, replace(SMALL, epochs=2, defense={"method": "gaussian-noise"})).best_epoch == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler warns of itself
def test_compiled(tmp_path: Path) -> None:
    recipe = replace(SMALL, epochs=2, dropout=0.0, defense={"method": "pgd-at", "eps": "8/255", "steps": 2})
    plain = fit(tmp_path / "plain", recipe)
    compiled = fit(tmp_path / "compiled", replace(recipe, compile=True))
    for a, b in zip(plain.history, compiled.history, strict=True):
        assert a["batch_loss"] == pytest.approx(b["batch_loss"], rel=0.02)
