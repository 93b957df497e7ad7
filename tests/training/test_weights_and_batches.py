"""What a recipe does beside its defense: averages, AWP, schedules, mixup, cutout, optimisers, precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustlab.base.errors import UserError
from robustlab.training import Recipe, recipe_for
from robustlab.training.batches import cut_out, learning_rate, mixing
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
    with worst_nearby(net, kernels, 0.05, loss):
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
    drops = [learning_rate(i, 22, 1.0, 0.0, "piecewise") for i in range(22)]
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
    partner, share = mixing(torch.arange(20_000), 0, 1, 1.4)
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
    ("change", "said"),
    [
        ({"schedule": "cosinus"}, "Did you mean 'cosine'"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"precision": "half"}, "auto, float32, bfloat16"),
        ({"smoothing": 1.0}, "smoothing below 1"),
        ({"ema": 1.0}, "ema below 1"),
        ({"awp": -0.1}, "awp of at least 0"),
        ({"mixup": float("nan")}, "mixup of at least 0"),
    ],
)
def test_bad_values(change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(SMALL, **change)


def test_an_l2_budget_needs_its_own_eps_and_is_checked_in_l2(tmp_path: Path) -> None:
    l2 = {"method": "pgd-at", "norm": "l2", "steps": 2}
    with pytest.raises(UserError, match="default eps only for linf.*--eps"):
        fit(tmp_path / "none", replace(SMALL, epochs=1, defense=l2))
    done = fit(tmp_path / "l2", replace(SMALL, epochs=1, defense={**l2, "eps": 0.5}))
    assert (done.card.measured[1].norm, done.card.measured[1].eps) == ("l2", "0.5")


def test_a_collapse_stops_the_training_and_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.6, 0.6, 0.1, 0.05, 0.5, 0.5])  # training, validation, epoch by epoch
    monkeypatch.setattr("robustlab.training.session.under_attack", lambda *_: (1.0, next(values)))
    recipe = replace(SMALL, epochs=6, defense={"method": "fast-at", "eps": "8/255"})
    done = fit(tmp_path, recipe)
    assert len(done.history) == 2 and done.best_epoch == 1
    assert any("catastrophic overfitting" in text and "Training stops here" in text for text in done.warnings)
    assert fit(tmp_path, recipe, resume=True).history == done.history


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler warns of itself
def test_compiled(tmp_path: Path) -> None:
    recipe = replace(SMALL, epochs=2, dropout=0.0, defense={"method": "pgd-at", "eps": "8/255", "steps": 2})
    plain = fit(tmp_path / "plain", recipe)
    compiled = fit(tmp_path / "compiled", replace(recipe, compile=True))
    for a, b in zip(plain.history, compiled.history, strict=True):
        assert a["batch_loss"] == pytest.approx(b["batch_loss"], rel=0.02)
