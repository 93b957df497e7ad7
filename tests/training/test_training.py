from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab.base.errors import RunError, UserError
from robustlab.data import Data
from robustlab.defenses.n_fgsm import NFGSM
from robustlab.models import load_model
from robustlab.models.card import read_model_card
from robustlab.threat.model import ThreatModel
from robustlab.training import Recipe, Trained, recipe_for, train
from robustlab.training.batches import augmented, learning_rate, shuffled
from robustlab.training.checks import collapse, loss_and_accuracy

DEFENSE = {"method": "n-fgsm", "eps": "8/255", "ramp": 1.0}
HERE = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
SMALL = Recipe(epochs=3, batch_size=32, lr=0.05, shift=1, dropout=0.2, l1=1e-5, check_size=20)


def stripes(n: int, split: str) -> Data:
    """Three classes of 1 x 8 x 8 images: horizontal, vertical and diagonal stripes with noise, easily told apart."""
    generator = torch.Generator().manual_seed({"train": 0, "val": 1}[split])
    labels = torch.randint(0, 3, (n,), generator=generator)
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    patterns = torch.stack([i % 2, j % 2, (i + j) // 2 % 2]).float()
    images = 0.3 + 0.4 * patterns[labels][:, None] + 0.1 * torch.randn(n, 1, 8, 8, generator=generator)
    threat = ThreatModel(eps=0.05)
    ids = torch.arange(n)
    return Data("stripes", split, images.clamp(0, 1), labels, ids, ("flat", "upright", "slant"), f"s-{split}", threat)


DATA = (stripes(192, "train"), stripes(60, "val"))


def fit(output: Path, recipe: Recipe = SMALL, architecture: str = "cnn", **options: Any) -> Trained:
    return train(architecture, DATA, recipe, output=output, device="cpu", **options)


def without_times(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    epochs = json.loads((folder / "history.json").read_text())["epochs"]
    for entry in epochs:
        del entry["seconds"]
    return (folder / "model.safetensors").read_bytes(), epochs


@pytest.mark.parametrize(
    ("architecture", "defense"),
    [("cnn", {}), ("cnn", DEFENSE), pytest.param("resnet20", {}, marks=pytest.mark.slow), ("vit", DEFENSE)],
    ids=["plain", "n-fgsm", "resnet20", "vit"],
)
def test_end_to_end(tmp_path: Path, architecture: str, defense: dict[str, Any]) -> None:
    recipe = replace(SMALL, epochs=4, defense=defense)
    state = torch.random.get_rng_state()
    shown: list[int] = []
    done = fit(tmp_path / "run", recipe, architecture, seed=1, on_epoch=lambda e: shown.append(e["epoch"]))
    assert torch.equal(torch.random.get_rng_state(), state) and shown == [1, 2, 3, 4]

    best = done.history[done.best_epoch - 1]
    key = "val_robust_accuracy" if defense else "val_accuracy"
    assert best[key] == max(entry[key] for entry in done.history) and best["val_accuracy"] > 0.9
    for entry in done.history:
        for split in ("train", "val"):
            assert 0 <= entry[f"{split}_robust_accuracy"] <= 1 and entry[f"{split}_robust_n"] == 20
            assert entry[f"{split}_loss"] > 0 and entry[f"{split}_n"] == 60

    model = load_model(str(tmp_path / "run" / "model.toml"))
    assert model.hash() == done.card.hash and model.classes == DATA[0].classes
    assert loss_and_accuracy(model, DATA[1].images, DATA[1].labels)[1] == best["val_accuracy"]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["kind"], run["schema_version"], run["seed"]) == ("train", 1, 1)
    assert run["config"]["recipe"]["epochs"] == 4 and run["model_hash"] == done.card.hash
    names = {"curve.png", "curve.svg", "history.json", "model.safetensors", "model.toml", "run.json"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "PGD-10, 20 validation images" in (tmp_path / "run" / "curve.svg").read_text()


def is_finished(folder: Path) -> bool:
    return bool(json.loads((folder / "run.json").read_text())["finished"])


class Stop(Exception):
    pass


def stop_at(epoch: int) -> Any:
    def on_epoch(entry: dict[str, Any]) -> None:
        if entry["epoch"] == epoch:
            raise Stop

    return on_epoch


@pytest.mark.parametrize("defense", [{}, DEFENSE], ids=["plain", "n-fgsm"])
def test_a_stopped_run_resumes_to_the_same_bytes(tmp_path: Path, defense: dict[str, Any]) -> None:
    recipe = replace(SMALL, defense=defense)
    fit(tmp_path / "whole", recipe)
    for epoch in (1, 2):
        with pytest.raises(Stop):
            fit(tmp_path / "parts", recipe, resume=True, on_epoch=stop_at(epoch))
        assert (tmp_path / "parts" / "last.pt").is_file() and not is_finished(tmp_path / "parts")
    fit(tmp_path / "parts", recipe, resume=True)
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")


SCRIPT = """
import sys
from pathlib import Path
from tests.training.test_training import SMALL, fit
from dataclasses import replace
fit(Path(sys.argv[1]), replace(SMALL, epochs=40), resume=True)
"""


@pytest.mark.slow
def test_resume_after_kill_9(tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / name)], env=HERE)

    assert start("whole").wait(300) == 0
    process = start("killed")
    end = time.time() + 200
    while not (tmp_path / "killed" / "last.pt").is_file() and time.time() < end:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL and not is_finished(tmp_path / "killed")
    assert start("killed").wait(300) == 0
    assert without_times(tmp_path / "killed") == without_times(tmp_path / "whole")


def test_an_existing_output_is_never_replaced_silently(tmp_path: Path) -> None:
    recipe = replace(SMALL, epochs=1)
    first = fit(tmp_path, recipe)
    before = without_times(tmp_path)
    with pytest.raises(UserError, match="already holds a training.*resume=True.*overwrite=True"):
        fit(tmp_path, recipe)
    shown: list[Any] = []
    again = fit(tmp_path, recipe, resume=True, on_epoch=shown.append)
    assert shown == [] and again == first  # finished: nothing is trained again
    with pytest.raises(UserError, match=r"another configuration \(recipe\.lr was 0\.05, now 0\.01\)"):
        fit(tmp_path, replace(recipe, lr=0.01), resume=True)
    assert without_times(tmp_path) == before
    (tmp_path / "mine.txt").write_text("keep")
    assert fit(tmp_path, replace(recipe, lr=0.01), overwrite=True).card.hash != first.card.hash
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_warm_start(tmp_path: Path) -> None:
    first = fit(tmp_path / "a", replace(SMALL, epochs=2))
    card = str(tmp_path / "a" / "model.toml")
    second = fit(tmp_path / "b", replace(SMALL, epochs=1, lr=0.0, l1=0.0, init=card))
    assert second.card.mean == first.card.mean
    # nothing was learned with lr = 0, so parameters (not BatchNorm's statistics) are those it started from
    a, b = (dict(load_model(str(tmp_path / name / "model.toml")).module.named_parameters()) for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(UserError, match="does not fit a resnet20"):
        fit(tmp_path / "c", replace(SMALL, init=card), "resnet20")


def test_the_seed_decides(tmp_path: Path) -> None:
    recipe = replace(SMALL, epochs=1)
    hashes = [fit(tmp_path / str(i), recipe, seed=seed).card.hash for i, seed in enumerate((0, 0, 1))]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_loss_that_explodes_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Lower lr"):
        fit(tmp_path, replace(SMALL, lr=1e30, warmup=0.0))


def test_a_defense_with_a_typo_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'epss'. Did you mean 'eps'"):
        fit(tmp_path / "run", replace(SMALL, defense={"method": "n-fgsm", "epss": 0.1}))
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_trained_on(tmp_path: Path) -> None:
    train_data, val_data = DATA
    with pytest.raises(UserError, match="at least 2 images"):
        train("cnn", (train_data.take(torch.arange(1)), val_data), SMALL, output=tmp_path, device="cpu")
    wrong = replace(val_data, labels=val_data.labels + 1)
    with pytest.raises(UserError, match="labels go from 1 to 3"):
        train("cnn", (train_data, wrong), SMALL, output=tmp_path, device="cpu")


def test_weight_decay_and_l1_shrink_the_weights(tmp_path: Path) -> None:
    def size(name: str, **changes: float) -> float:
        fit(tmp_path / name, replace(SMALL, epochs=2, **{"l1": 0.0, "weight_decay": 0.0, **changes}))
        model = load_model(str(tmp_path / name / "model.toml"))
        return sum(float(p.detach().abs().sum()) for p in model.parameters() if p.ndim > 1)

    none = size("none")
    assert size("l1", l1=1e-3) < 0.95 * none and size("l2", weight_decay=0.5) < 0.95 * none


# --- the pieces -------------------------------------------------------------------------------------------------------


def test_batches_hold_everything_once_and_none_is_tiny() -> None:
    ids = torch.arange(129) * 7
    batches = shuffled(ids, seed=0, epoch=1, batch_size=64)
    assert torch.cat(batches).sort().values.tolist() == list(range(129))
    assert sorted(map(len, batches)) == [43, 43, 43]
    assert not torch.equal(torch.cat(batches), torch.cat(shuffled(ids, 0, 2, 64)))


def test_augmentation_moves_images_by_whole_pixels() -> None:
    x = torch.rand(64, 2, 6, 9)
    ids = torch.arange(64)
    moved = augmented(x, ids, 0, 1, shift=2, flip=False)
    assert moved.shape == x.shape and torch.equal(augmented(x, ids, 0, 1, 0, False), x)
    middle = moved[:, :, 2:4, 2:7]  # far enough from the edge to be found in the original
    places = []
    for image, original in zip(middle, x, strict=True):
        found = [(i, j) for i in range(5) for j in range(5) if torch.equal(image, original[:, i : i + 2, j : j + 5])]
        assert len(found) == 1
        places += found
    assert len(set(places)) > 15  # of 25 moves
    assert torch.equal(augmented(x[9:12], ids[9:12], 0, 1, 2, False), moved[9:12])


def test_flip_mirrors_about_half() -> None:
    x = torch.rand(200, 1, 4, 5)
    flipped = augmented(x, torch.arange(200), 0, 1, shift=0, flip=True)
    mirrored = (flipped == x.flip(3)).all(3).all(2).all(1)
    assert bool((mirrored | (flipped == x).all(3).all(2).all(1)).all()) and 70 < int(mirrored.sum()) < 130


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.999])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 100])
def test_learning_rate_never_divides_by_zero(steps: int, warmup: float) -> None:
    rates = [learning_rate(i, steps, 0.1, warmup) for i in range(steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    if steps == 100 and warmup == 0.25:
        assert rates.index(max(rates)) == 25 and rates[0] < 0.01 and rates[-1] < 1e-4


def entry(epoch: int, robust: float, batch: float) -> dict[str, Any]:
    found = {"epoch": epoch, "val_robust_accuracy": robust, "batch_accuracy": batch}
    return found | {"val_accuracy": 0.8, "val_robust_n": 300}


def test_collapse_needs_all_signs() -> None:
    good = [entry(1, 0.3, 0.4), entry(2, 0.45, 0.5)]
    assert collapse(good) is None and collapse(good[:1]) is None
    warning = collapse([*good, entry(3, 0.05, 0.9)])
    assert warning is not None and "45.0% (epoch 2) to 5.0%" in warning and "Epoch 3" in warning
    assert collapse([*good, entry(3, 0.40, 0.9)]) is None  # noise in the check
    assert collapse([*good, entry(3, 0.05, 0.1)]) is None  # everything fell: diverged, not overfitted
    assert collapse([entry(1, 0.74, 0.74), entry(2, 0.52, 0.78)]) is None  # no gap
    assert collapse([*good, entry(3, 0.05, 0.9)], guess=0.8) is None  # from guesses nobody falls
    assert collapse([entry(1, 0.45, 0.5), *[entry(k, 0.2, 0.5) for k in (2, 3, 4)], entry(5, 0.15, 0.9)]) is None
    few = entry(3, 0.2, 0.9) | {"val_robust_n": 20}
    assert collapse([*good, few]) is None  # within the noise of 20 images


def test_recipes_by_name() -> None:
    plan = recipe_for("cnn", data="fashion-mnist", recipe="n-fgsm", overrides={"epochs": 3, "eps": "4/255"})
    assert (plan.architecture, plan.data, plan.recipe.epochs) == ("cnn", "fashion-mnist", 3)
    assert NFGSM(**{k: v for k, v in plan.recipe.defense.items() if k != "method"}).eps == 4 / 255
    assert recipe_for("resnet20").recipe.defense == {}
    zoo = recipe_for("road-signs/cnn-robust")
    assert (zoo.architecture, zoo.data, zoo.recipe.init) == ("cnn", "road-signs", "road-signs/cnn")
    assert recipe_for("road-signs/cnn-robust", recipe="plain").recipe.defense == {}


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("resnet", {}, "Did you mean 'resnet20'"),
        ("cnn", {"recipe": "nfgsm"}, "Did you mean 'n-fgsm'"),
        ("cnn", {"overrides": {"epoch": 3}}, "Did you mean 'epochs'"),
        (
            "cnn",
            {"overrides": {"eps": "4/255"}},
            "the recipe has no defense. Take one that has: --recipe fast-at, mart, n-fgsm, pgd-at",
        ),
        ("cnn", {"recipe": "n-fgsm", "overrides": {"epoch": 3}}, "Did you mean 'epochs'"),
        ("cnn", {"recipe": "n-fgsm", "overrides": {"ramps": 3}}, "Did you mean 'ramp'"),
        ("cnn", {"overrides": {"epochs": 0}}, "epochs of at least 1"),
        ("cnn", {"overrides": {"dropout": 1.0}}, "dropout below 1"),
    ],
)
def test_recipes_that_cannot_be(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe_for(model, **options)


def test_a_recipe_card_with_a_typo(tmp_path: Path) -> None:
    text = 'name = "x"\nsummary = "x"\nsource = "x"\n[recipe]\nepoch = 3\n'
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError, match="epoch"):
        recipe_for("cnn", recipe=str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text(text.replace("epoch =", "epochs ="))
    assert recipe_for("cnn", recipe=str(tmp_path / "mine.toml")).recipe.epochs == 3


def test_model_card_of_a_training_names_its_numbers(tmp_path: Path) -> None:
    fit(tmp_path, replace(SMALL, epochs=1, defense=DEFENSE))
    clean, robust = read_model_card(tmp_path / "model.toml").measured
    assert (clean.metric, clean.split, clean.n) == ("clean accuracy", "val", 60)
    assert (robust.metric, robust.norm, robust.eps, robust.attack, robust.n) == (
        "robust accuracy",
        "linf",
        "8/255",
        "PGD-10",
        20,
    )
    assert clean.low <= clean.value <= clean.high


def test_a_defense_takes_the_budget_of_the_data_unless_it_has_its_own(tmp_path: Path) -> None:
    done = fit(tmp_path / "run", replace(SMALL, epochs=1, defense={"method": "n-fgsm"}))
    assert done.card.recipe["defense"]["eps"] == 0.05
    assert any(m.metric == "robust accuracy" and float(m.eps) == 0.05 for m in done.card.measured)


KILLED = """
import os, shutil, sys
from dataclasses import replace
from pathlib import Path
import torch
from tests.killing import die_at
from robustlab.base.errors import UserError
from robustlab.models import load_model
from tests.training.test_training import SMALL, fit, is_finished

torch.set_num_threads(1)
os.fsync = lambda file: None
base, recipe = Path(sys.argv[1]), replace(SMALL, epochs=2)
old = fit(base / "old", replace(recipe, epochs=1)).card.hash
new = fit(base / "new", recipe).card.hash
(base / "old" / "report.html").write_text("mine")


def killed(folder, point, **flags):
    child = os.fork()
    if child == 0:
        touched = die_at(point)
        fit(folder, recipe, **flags)
        print(touched.count, flush=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def copy(name):
    return shutil.copytree(base / "old", base / name)


read, write = os.pipe()
if os.fork() == 0:
    os.dup2(write, 1)
    os._exit(killed(copy("whole"), 0, overwrite=True))
last = int(os.read(read, 100))
swapped = 0
for point in [8, 33, *range(last - 30, last + 1, 6)]:
    folder = copy(str(point))
    assert killed(folder, point, overwrite=True) == 9, point
    if is_finished(folder):  # the old one is as it was, or the new one is there
        assert load_model(str(folder / "model.toml")).hash() in (old, new), point
    else:
        swapped += 1
    try:
        done = fit(folder, recipe, resume=True)
    except UserError:  # killed before the new one had begun
        assert point < 20 and not (folder / ".new" / "run.json").exists(), point
        done = fit(folder, recipe, overwrite=True)
    assert done.card.hash == new, point
    assert load_model(str(folder / "model.toml")).hash() == new and (folder / "report.html").read_text() == "mine"
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted([*(path.name for path in (base / "new").iterdir()), "report.html"]), (point, names)
assert swapped > 1, swapped
"""


@pytest.mark.slow
def test_killed_while_it_replaces_a_training(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, env={**HERE, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
