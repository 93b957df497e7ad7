"""The whole security curve from one run: an attack that looks for the smallest distance gives every point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

import robustlab
from robustlab.attacks.suite import Suite, load_suite
from robustlab.evaluation.listener import Listener
from robustlab.reporting import report
from robustlab.reporting.source import PageRun
from robustlab.reporting.tables import written
from robustlab.runs import read_run
from robustlab.verification import verify

QUIET = Listener(say=lambda text: None)
N = 40


def linear(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


class Never(nn.Module):
    """Class 0, whatever it is shown."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).sum(1) * 0 + k for k in (1.0, 0.0, 0.0)], 1)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x = 0.3 + 0.4 * torch.rand(N, 3, 4, 4, generator=torch.Generator().manual_seed(0))  # the box does not bind
    y = linear()(x).argmax(1)
    y[:4] = (y[:4] + 1) % 3  # wrong from the start
    return x, y


def suite(*attacks: str, **threat: Any) -> Suite:
    return load_suite(attacks=attacks, **{"norm": "l2", "eps": 0.1, **threat})


def run(data: Any, folder: Path, attacks: Suite, model: nn.Module | None = None, **options: Any) -> Any:
    given = {"net": linear() if model is None else model}
    chosen = {"audit": 0, "keep": 0} | options
    return robustlab.evaluate(given, data, attacks, output=folder, listener=QUIET, **chosen)


def model_of(stored: Any) -> Any:
    return stored.info["aggregates"]["models"][0]


def closed_form(data: tuple[Tensor, Tensor], norm: str) -> Tensor:
    """(N,) the distance to the nearest other class of a linear model; 0 where it is wrong from the start."""
    x, y = data
    net = linear()
    z, w = net(x).detach(), net[1].weight.detach()
    gap = z.gather(1, y[:, None]) - z
    slope = (w[y][:, None] - w[None]).norm(p={"l2": 2, "linf": 1}[norm], dim=2)
    reach = torch.where(torch.arange(3)[None] == y[:, None], torch.inf, gap / slope)
    return reach.amin(1).clamp_min(0)


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.1), ("linf", 0.02)])
def test_the_curve_is_the_closed_form_on_a_linear_model(
    norm: str, eps: float, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    stored = run(data, tmp_path / "run", suite("fmn:steps=200", norm=norm, eps=eps))
    exact = closed_form(data, norm)
    curve = model_of(stored)["curve"]
    assert [point["eps"] for point in curve] == [0.0, *(k / 16 * eps for k in range(1, 33))]
    assert [point["source"] for point in curve] == ["clean", *["fmn"] * 32]
    for point in curve[1:]:
        kept = round(point["share"]["value"] * N)  # found distances are at most 2 % too long
        assert int((exact > point["eps"]).sum()) <= kept <= int((exact > point["eps"] / 1.02).sum())
    shares = [point["share"]["value"] for point in curve]
    assert shares[0] == 0.9 and 0 < shares[16] < 0.9 and len(set(shares)) > 8
    assert shares[16] == model_of(stored)["robust_accuracy"]["value"]
    attack = model_of(stored)["attacks"][0]
    assert attack["attempted"] == attack["found"] == N - 4
    assert attack["median_of_all"] == pytest.approx(exact[exact > 0].quantile(0.5).item(), rel=0.02)
    assert attack["median_distance"] == attack["median_of_all"] > eps and attack["broken"] < attack["found"]


def test_lines_carry_distances_beyond_the_budget(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    stored = run(data, tmp_path / "run", suite("fmn:steps=60"))
    assert stored.info["config"]["curve"]["from"] == "distances"
    units = {(line.attack, line.eps) for line in stored.lines}
    assert units == {("clean", 0.0), ("fmn", 0.1)}  # no sweep
    lines = [line for line in stored.lines if line.attack == "fmn"]
    near, far = [line for line in lines if line.succeeded], [line for line in lines if not line.success]
    assert len(near) + len(far) == N - 4 and near and far
    assert all(line.l2 <= 0.1 + 1e-6 and line.rank == 0 for line in near)
    assert all(line.l2 > 0.1 and line.adv != line.label and line.verified is None and line.rank == -1 for line in far)


def test_one_run_says_what_a_run_at_each_budget_says(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    budgets = ["0.04", "0.08", "0.15"]
    stored = run(data, tmp_path / "run", suite("fmn:steps=60"), curve=budgets)
    points = model_of(stored)["curve"]
    assert [point["eps"] for point in points] == [0.0, 0.04, 0.08, 0.1, 0.15]
    for point in points[1:]:
        once = run(data, tmp_path / str(point["eps"]), suite("fmn:steps=60", eps=point["eps"]), curve=[])
        assert "curve" not in once.info["config"] and "median_of_all" not in model_of(once)["attacks"][0]
        assert point["share"] == model_of(once)["robust_accuracy"]
    both = run(data, tmp_path / "both", suite("fgsm", "fmn:steps=60"), curve=[])
    assert sum(line.attack == "fmn" for line in both.lines) < N - 4  # without a curve, what still stands
    assert model_of(both)["robust_accuracy"] == points[3]["share"]


def test_what_others_broke_before_counts_from_its_own_size_on(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """A hopeless fmn of one step behind a good attack: the curve falls where the good attack's images lie."""
    stored = run(data, tmp_path / "run", suite("pgd:steps=20", "fmn:steps=1"))
    curve = {point["eps"]: point["share"]["value"] for point in model_of(stored)["curve"]}
    found = {
        line.id: line.l2 for line in stored.lines if line.succeeded or (line.attack == "fmn" and line.adv != line.label)
    }
    for eps, value in curve.items():
        fallen = sum(size <= eps + 1e-6 for size in found.values()) if eps else 0
        assert value == pytest.approx((N - 4 - fallen) / N)
    assert curve[0.1] == model_of(stored)["robust_accuracy"]["value"]


def test_targeted(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    aimed = run(data, tmp_path / "aimed", suite("fmn:steps=100", targeted=True, eps=0.2))
    free = run(data, tmp_path / "free", suite("fmn:steps=100", eps=0.2))
    shares = [[point["share"]["value"] for point in model_of(each)["curve"]] for each in (aimed, free)]
    assert all(a >= b for a, b in zip(*shares, strict=True)) and shares[0] != shares[1]
    lines = [line for line in aimed.lines if line.attack == "fmn" and not line.success]
    assert any(line.adv == line.target and line.l2 > 0.2 for line in lines)


def test_nothing_found_is_infinitely_far(tmp_path: Path) -> None:
    x = torch.rand(6, 3, 4, 4)
    stored = run((x, torch.zeros(6, dtype=torch.long)), tmp_path / "run", suite("fmn:steps=3"), Never())
    attack = model_of(stored)["attacks"][0]
    assert attack["found"] == 0 and attack["median_of_all"] is None and attack["median_distance"] is None
    assert {point["share"]["value"] for point in model_of(stored)["curve"]} == {1.0}
    page = PageRun.read(tmp_path / "run")
    assert "| ∞ |" in written(page, "attacks", "markdown") and ",inf," in written(page, "attacks", "csv")
    assert "of all: ∞" in report([tmp_path / "run"], tmp_path / "page.html").read_text()


def test_an_error_counts_from_the_first_budget_on(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear()

        def forward(self, x: Tensor) -> Tensor:
            z = self.inner(x)
            return torch.where(torch.is_grad_enabled() & (x[:, :1, 0, 0] > 0.6), torch.nan, z)  # only when attacked

    with pytest.raises(robustlab.base.errors.RunError, match="ended in an error"):
        run(data, tmp_path / "run", suite("fmn:steps=5"), Breaks())
    stored = read_run(tmp_path / "run")
    errors = sum(line.error is not None for line in stored.lines)
    curve = model_of(stored)["curve"]
    assert errors > 0 and round(N * (curve[0]["share"]["value"] - curve[1]["share"]["value"])) >= errors


def test_page_tables_and_verification(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(data, folder, suite("fgsm", "fmn:steps=40"), save_adversarial=True, keep=1)
    page = report([folder], tmp_path / "page.html").read_text()
    said = (
        "fmn looked for it whatever the budget",
        "fmn tried every image",
        "<small>of 36</small>",
        "outside the budget",
    )
    for text in said:
        assert text in page, text
    assert "0 of the" in page and "counted successes lie outside" not in page
    assert "Median L2 of all" in written(PageRun.read(folder), "attacks", "markdown")
    found = verify(folder, models={"net": linear()}, data=data)
    assert found.disagreements == 0 and found.complete
    assert "net: fmn at 0.1" in str(found)

    # a distance that was made shorter is found out, and so is a point of the curve
    lines = [msgspec.json.decode(row) for row in (folder / "samples.jsonl").read_bytes().splitlines()]
    far = next(line for line in lines if line["attack"] == "fmn" and not line["success"])
    far["l2"] /= 2
    (folder / "samples.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    info = msgspec.json.decode((folder / "run.json").read_bytes())
    info["aggregates"]["models"][0]["curve"][20]["share"]["value"] = 0.0
    (folder / "run.json").write_bytes(msgspec.json.encode(info))
    found = verify(folder, models={"net": linear()}, data=data)
    assert found.disagreements == 2


def test_chunks_and_resume_give_the_same_bytes(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    class Stops(nn.Sequential):
        left = 40

        def forward(self, x: Tensor) -> Tensor:
            Stops.left -= 1
            if Stops.left == 0:
                raise KeyboardInterrupt
            return super().forward(x)  # type: ignore[no-any-return]

    attacks, options = suite("fmn:steps=10"), {"chunk_size": 16, "search_copy": False}
    whole = run(data, tmp_path / "whole", attacks, **options)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "part", attacks, Stops(*linear()), **options)
    assert list((tmp_path / "part" / "parts").glob("net--fmn*"))
    part = run(data, tmp_path / "part", attacks, Stops(*linear()), resume=True, **options)
    assert (part.folder / "samples.jsonl").read_bytes() == (whole.folder / "samples.jsonl").read_bytes()
    assert model_of(part)["curve"] == model_of(whole)["curve"]


def test_where_the_curve_stays_a_sweep(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """FAB-T tries many classes one after another; and what is near to a surrogate is not near to the target."""
    assert suite("pgd", "fab-t", eps=0.1).nearest is None
    assert suite("pgd", "ddn", "fmn").nearest.name == "ddn"  # type: ignore[union-attr]
    swept = run(data, tmp_path / "run", suite("fmn:steps=5"), surrogate={"other": linear(1)})
    assert "from" not in swept.info["config"]["curve"]
    assert len({line.eps for line in swept.lines}) == 6


def test_the_step_of_an_attack_on_the_distance_is_not_scaled() -> None:
    attacks = suite("fmn:step_size=0.5", "pgd:step_size=0.02")
    fmn, pgd = attacks.members
    assert attacks.at(fmn, 0.2).step_size == 0.5  # type: ignore[attr-defined]
    assert attacks.at(pgd, 0.2).step_size == 0.04  # type: ignore[attr-defined]
