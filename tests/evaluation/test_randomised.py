"""Whole runs on models that answer differently each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import robustlab
from robustlab.attacks.suite import Suite, load_suite
from robustlab.base.errors import UserError
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.randomised import long_run
from robustlab.reporting import report
from robustlab.reporting.source import PageRun
from robustlab.reporting.tables import written
from robustlab.verification import verify

N = 30


class Noisy(nn.Module):
    """A linear net behind noise on its input; stops at one of its looks, if it is told to."""

    def __init__(self, sigma: float = 0.05, stop: int = -1) -> None:
        super().__init__()
        self.sigma, self.stop = sigma, stop
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.stop -= 1
        if self.stop == 0:
            raise KeyboardInterrupt
        return self.inner(x + self.sigma * torch.randn_like(x))  # type: ignore[no-any-return]


class Undecided(nn.Module):
    """Of ten looks at a batch it answers `right` of them with class 0 and the others with class 1 and 2 in turn."""

    def __init__(self, right: int) -> None:
        super().__init__()
        self.right, self.looks = right, right - 1  # the first two looks, those of the check, differ

    def forward(self, x: Tensor) -> Tensor:
        answer = 0 if self.looks % 10 < self.right else 1 + self.looks % 2
        self.looks += 1
        return F.one_hot(torch.full((len(x),), answer), 3).float() + 0 * x.flatten(1).sum(1, keepdim=True)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x = torch.rand(N, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x, Noisy(0.0)(x).argmax(1)


def suite(*attacks: str, **threat: Any) -> Suite:
    return load_suite(attacks=attacks or ["pgd:steps=3"], **{"eps": 0.02, **threat})


def run(models: Any, data: Any, folder: Path, attacks: Suite | None = None, **options: Any) -> Any:
    chosen = {"audit": 0, "keep": 0, "curve": []} | options
    told: list[str] = []
    listener = Listener(say=told.append)
    stored = robustlab.evaluate(models, data, attacks or suite(), output=folder, listener=listener, **chosen)
    return stored, " ".join(told)


def test_a_randomised_model_is_attacked_as_one(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    state = torch.get_rng_state()
    models = {"noisy": Noisy(), "quiet": Noisy(0.0)}
    stored, told = run(
        models, data, tmp_path / "run", suite("fgsm", "pgd:steps=3", "apgd:steps=4,eot=2", "square:steps=3")
    )
    assert torch.equal(torch.get_rng_state(), state)
    info = stored.info
    noisy, quiet = info["config"]["models"]
    assert (noisy["eot"], noisy["evaluations"]) == (20, 10) and not {"eot", "evaluations"} & quiet.keys()
    assert info["randomised"] is True and "noisy: Two evaluations" in " ".join(info["warnings"])
    assert "noisy: gradients are averaged over 20 evaluations (--eot), and the majority of 10 evaluations" in told
    assert info["models"][0]["search_copy"]["used"] is False and info["models"][1]["search_copy"]["used"] is True
    cost = {(line.model, line.attack): line for line in stored.lines if not line.success}
    for attack, steps, draws in (("fgsm", 1, 20), ("pgd", 3, 20), ("apgd", 4, 2)):
        line = cost["noisy", attack]
        assert line.backwards == steps * draws and (line.forwards - line.backwards) % 10 == 0
        assert cost["quiet", attack].backwards == steps * (2 if attack == "apgd" else 1)
    assert cost["noisy", "square"].backwards == 0
    assert {line.forwards for line in stored.lines if line.attack == "clean"} == {1, 10}


@pytest.mark.parametrize(("right", "clean"), [(6, 1.0), (5, 1.0), (4, 0.0)])
def test_at_least_half_of_the_evaluations_are_right(right: int, clean: float, tmp_path: Path) -> None:
    data = torch.rand(4, 3, 4, 4), torch.zeros(4, dtype=torch.long)
    stored, _ = run({"net": Undecided(right)}, data, tmp_path / "run", suite("fgsm", eps=0.0))
    assert stored.info["config"]["models"][0]["evaluations"] == 10
    assert stored.info["aggregates"]["models"][0]["clean_accuracy"]["value"] == clean


def test_the_same_command_gives_the_same_bytes_also_when_it_is_resumed(
    data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    options = {"chunk_size": 10, "eot": 3}
    attacks = suite("pgd:steps=3", "fmn:steps=4")
    first, again = (run({"net": Noisy()}, data, tmp_path / name, attacks, **options)[0] for name in "ab")
    torch.rand(3)
    with pytest.raises(KeyboardInterrupt):
        run({"net": Noisy(stop=150)}, data, tmp_path / "c", attacks, **options)
    assert list((tmp_path / "c" / "parts").glob("net--fmn*"))
    resumed, _ = run({"net": Noisy()}, data, tmp_path / "c", attacks, resume=True, **options)
    lines = [(each.folder / "samples.jsonl").read_bytes() for each in (first, again, resumed)]
    assert lines[0] == lines[1] == lines[2]
    other, _ = run({"net": Noisy()}, data, tmp_path / "d", attacks, seed=1, **options)
    assert (other.folder / "samples.jsonl").read_bytes() != lines[0]


def test_eot_is_part_of_the_configuration(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    one, told = run({"net": Noisy()}, data, tmp_path / "one", eot=1)
    assert "eot" not in one.info["config"]["models"][0] and "averaged" not in told
    page = report([one.folder], tmp_path / "one.html").read_text()
    assert "net is randomised" in page and "single draw" in page
    card, _ = run({"net": Noisy(0.0)}, data, tmp_path / "card", suite("pgd:steps=3,eot=4"), eot=2)
    assert card.info["config"]["models"][0]["eot"] == 2 and "randomised" not in card.info
    assert {line.backwards for line in card.lines if line.attack == "pgd" and not line.success} == {6}
    with pytest.raises(UserError, match="another configuration"):
        run({"net": Noisy(0.0)}, data, tmp_path / "card", suite("pgd:steps=3,eot=4"), eot=3, resume=True)
    with pytest.raises(UserError, match="eot must be at least 1"):
        run({"net": Noisy()}, data, tmp_path / "zero", eot=0)


def test_page_tables_and_verification(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = {"save_adversarial": True, "batch_size": 7, "eot": 4, "curve": ["0.01"], "keep": 1}
    stored, _ = run({"net": Noisy()}, data, folder, **options)
    assert 0 < sum(line.succeeded for line in stored.lines)
    page = report([folder], tmp_path / "page.html").read_text()
    assert "net is randomised" in page and "averaged over 4 evaluations" in page and "half of 10 evaluations" in page
    assert "the majority of 10 evaluations" in written(PageRun.read(folder), "verdict", "markdown")
    found = verify(folder, models={"net": Noisy()}, data=data)
    assert found.disagreements == 0 and found.complete
    assert any("lines may disagree by chance" in text for text in found.warnings)


def test_own_answers_of_a_randomised_model(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    stored, _ = run({"net": Noisy()}, data, tmp_path / "run", labels="predicted", save_adversarial=True, eot=2)
    assert stored.info["aggregates"]["models"][0]["clean_accuracy"]["value"] > 0.9
    assert verify(tmp_path / "run", models={"net": Noisy()}, data=data).disagreements == 0


def test_targets_that_would_change_each_time(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    aimed = suite("pgd:steps=2", targeted=True, target="least-likely")
    with pytest.raises(UserError, match="net is randomised.*target='random'"):
        run({"net": Noisy()}, data, tmp_path / "run", aimed)
    assert not (tmp_path / "run").exists()
    run({"net": Noisy()}, data, tmp_path / "run", suite("pgd:steps=2", targeted=True), eot=2)


def test_randomised_surrogates_and_targets(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """Gradients are averaged where they are taken, answers where they are judged."""
    from_noisy, _ = run({"quiet": Noisy(0.0)}, data, tmp_path / "a", surrogate={"noisy": Noisy()})
    model = from_noisy.info["config"]["models"][0]
    assert model["eot"] == 20 and "evaluations" not in model
    onto_noisy, _ = run({"noisy": Noisy()}, data, tmp_path / "b", surrogate={"quiet": Noisy(0.0)})
    model = onto_noisy.info["config"]["models"][0]
    assert "eot" not in model and model["evaluations"] == 10
    assert {line.forwards for line in onto_noisy.lines if line.attack == "pgd"} == {3 + 10}


@pytest.mark.parametrize(
    ("attacks", "seconds", "names", "said"),
    [
        (suite("pgd"), 3601.0, ["b", "a"], "a, b: gradients are means"),
        (suite("pgd"), 3600.0, ["a"], None),
        (suite("pgd"), 1e6, [], None),
        (load_suite("autoattack-rand"), 1e6, ["a"], None),
        (load_suite("autoattack-standard"), 4e3, ["a"], "at most 4,000 looks at an image, here at most 7,800."),
        (suite("fmn", norm="l0", eps=3), 1e6, ["a"], None),
        (suite("pgd", targeted=True, norm="l2", eps=1), 1e6, ["a"], "--suite autoattack-rand"),
    ],
)
def test_a_long_run_names_the_suite_for_randomised_models(
    attacks: Suite, seconds: float, names: list[str], said: str | None
) -> None:
    text = long_run(attacks, names, seconds)
    assert text is None if said is None else text is not None and said in text


def test_the_run_says_so(data: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustlab.evaluation.randomised.LONG", 0.0)
    _, told = run({"noisy": Noisy(), "quiet": Noisy(0.0)}, data, tmp_path / "run")
    assert "noisy: gradients are means" in told and "--suite autoattack-rand" in told
    _, told = run({"quiet": Noisy(0.0)}, data, tmp_path / "quiet")
    assert "autoattack-rand" not in told


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.3), ("l1", 2.0)])
def test_autoattack_rand(norm: str, eps: float, data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """The card is the published one, and it does what it says on a randomised model."""
    card = load_suite("autoattack-rand", norm=norm, eps=eps)
    assert [(m.name, m.attack.steps, m.attack.eot, m.attack.restarts, m.attack.loss) for m in card.members] == [  # type: ignore[attr-defined]
        ("apgd-ce", 100, 20, 1, "ce"),
        ("apgd-dlr", 100, 20, 1, "dlr"),
    ]
    few = data[0][:4], data[1][:4]
    stored, told = run({"noisy": Noisy()}, few, tmp_path / "run", card)
    left = [line for line in stored.lines if line.attack != "clean" and not line.success]
    assert all(line.backwards == 100 * 20 for line in left) and "averaged over 20 evaluations" in told
    assert stored.info["aggregates"]["models"][0]["robust_accuracy"]["n"] == 4
