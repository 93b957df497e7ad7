"""Every check fires on a model, or an attack, that is built to fail that way, and nothing fails on honest models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.attacks.suite import Member, Suite, load_suite
from robustlab.evaluation.studies.audit.study import CHECKS
from robustlab.models.classifier import Classifier
from robustlab.models.cnn import cnn
from robustlab.models.vit import ViT
from robustlab.threat.model import ThreatModel

EPS = 25 / 255


# --- honest models -------------------------------------------------------------------------------------------------


def centred(world: Any, mean: float, std: float) -> Any:
    x, y = world.patterns(512)
    return (x - mean) / std, y


@dataclass(frozen=True)
class Honest:
    """make: a net from the world. data: of the audit; default 80 patterns."""

    make: Callable[[Any], nn.Module]
    data: Callable[[Any], Any] = lambda world: world.patterns(80, seed=1)
    options: dict[str, Any] = field(default_factory=dict)


def in_shape(**shape: Any) -> Honest:
    kinds = {key: value for key, value in (("classes", shape.get("classes")),) if value}
    channels = shape.get("shape", (3,))[0]
    return Honest(
        lambda world: world.trained(lambda: world.conv(channels=channels, **kinds), world.patterns(512, **shape)),
        lambda world: world.patterns(80, seed=1, **shape),
    )


HONEST = {
    "plain": Honest(lambda world: world.plain()),
    "robust": Honest(lambda world: world.trained(world.conv, steps=120, eps=EPS)),
    "tiny": Honest(lambda world: world.trained(lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), rate=1e-2)),
    "large": Honest(lambda world: world.trained(lambda: cnn(4, (3, 8, 8)), steps=30)),
    "grey": in_shape(shape=(1, 8, 8)),
    "two classes": in_shape(classes=2),
    "vit": Honest(
        lambda world: world.trained(lambda: ViT(4, (3, 8, 8), width=24, depth=2, heads=2, patch=2), steps=120)
    ),
    "sure": Honest(lambda world: world.trained(world.conv, steps=400)),
    "not square": in_shape(shape=(3, 8, 12)),
    "few images": Honest(lambda world: world.plain(), lambda world: world.patterns(7, seed=1)),
    "normalised": Honest(lambda world: Classifier(world.trained(world.conv, centred(world, 0.5, 0.25)), [0.5], [0.25])),
    "at its own labels": Honest(lambda world: world.plain(), options={"labels": "predicted"}),
}


def long(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


SLOW = {"large", "two classes", "not square", "sure", "at its own labels"}  # much like the others


@pytest.mark.parametrize("name", [long(name) if name in SLOW else name for name in HONEST])
def test_nothing_fails_on_honest_models(name: str, world: Any, audited: Callable[..., Any]) -> None:
    honest = HONEST[name]
    found = audited(honest.make(world), honest.data(world), **honest.options)
    assert [check for check in found.values() if check["status"] == "fail"] == []
    assert not any("model failed" in check["measured"] for check in found.values())
    assert sum(check["status"] == "pass" for check in found.values()) >= 10


@pytest.mark.parametrize("threat", [{"norm": "l2", "eps": 1.0}, {"norm": "l1", "eps": 8.0}, {"targeted": True}])
def test_nothing_fails_under_other_threats(threat: Any, world: Any, audited: Callable[..., Any]) -> None:
    suite = load_suite("linf-standard", **{"norm": "linf", "eps": EPS} | threat)
    found = audited(world.plain(), suite=suite)
    assert [check for check in found.values() if check["status"] == "fail"] == []
    assert not any("model failed" in check["measured"] for check in found.values())


def test_points_that_have_fallen_need_no_gradient(world: Any, audited: Callable[..., Any]) -> None:
    """DLR is constant where the label is only the third class."""
    attack = PGD(eps=0.5, steps=5, loss="dlr")
    suite = Suite("dlr", ThreatModel("linf", 0.5), "0.5", (Member("pgd", "pgd", {}, attack),))
    assert audited(world.plain(), suite=suite)["gradient"]["status"] == "pass"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["road-signs/cnn", "road-signs/cnn-robust"])
def test_nothing_fails_on_the_zoo(name: str, world: Any, audited: Callable[..., Any]) -> None:
    from robustlab import load_data, load_model

    data = load_data("road-signs", "test", limit=80)
    found = audited(load_model(name), (data.images, data.labels), load_suite("linf-standard"), audit=64)
    assert [check for check in found.values() if check["status"] == "fail"] == []


# --- broken models -------------------------------------------------------------------------------------------------


class Around(nn.Module):
    """A net with something before it and something behind it."""

    def __init__(
        self, net: nn.Module, before: Callable[[Tensor], Tensor] | None = None, behind: Any = lambda logits: logits
    ) -> None:
        super().__init__()
        self.net, self.before, self.behind = net, before or (lambda x: x), behind

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.net(self.before(x)))  # type: ignore[no-any-return]


class ForgottenDropout(nn.Dropout):
    """It does not hear eval()."""

    def train(self, mode: bool = True) -> ForgottenDropout:
        return super().train(True)


class BatchStatistics(nn.Module):
    """Normalised by the images that happen to be in the batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return z - z.mean(0) if len(z) > 1 else z  # type: ignore[no-any-return]


class Detector(nn.Module):
    """Rough images get the first class, with full confidence, whatever they show."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        rough = x.diff(dim=3).diff(dim=3).abs().flatten(1).mean(1) > 0.27
        return torch.where(rough[:, None], 10 * F.one_hot(torch.zeros_like(rough, dtype=torch.long), z.shape[1]), z)


def quantised(x: Tensor) -> Tensor:
    return (6 * x).round() / 6


def with_dropout(net: Any) -> nn.Module:
    return nn.Sequential(*net[:-1], ForgottenDropout(0.5), net[-1])


@dataclass(frozen=True)
class Leaky(PGD):
    """PGD that leaves the ball with each step."""

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        moved = super().tell(rows, state, seen, draw)
        return moved | {"query": moved["query"] + 0.5 * (moved["query"] - rows.x)}


def only(*attacks: str, eps: float = EPS) -> Suite:
    return load_suite(attacks=attacks, norm="linf", eps=eps)


def leaky() -> Suite:
    attack = Leaky(eps=EPS, steps=5)
    return Suite("leaky", ThreatModel("linf", EPS), "25/255", (Member("leaky", "pgd", {}, attack),))


@dataclass(frozen=True)
class Broken:
    """make: from the world. fires: which checks, and how."""

    make: Callable[[Any], nn.Module]
    fires: dict[str, str]
    suite: Callable[[], Suite] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    others: bool = False  # the plain net is attacked in the same run


RANDOM = {"audit": 12, "eot": 1}

BROKEN = {
    "quantised input": Broken(
        lambda world: Around(world.plain(), quantised),
        {"active": "fail", "gradient": "fail", "black-box": "fail", "huge-eps": "fail"},
    ),
    "saturated logits": Broken(
        lambda world: Around(world.plain(), behind=lambda z: 1000 * z),
        {"active": "fail", "outputs": "fail", "gradient": "fail", "black-box": "fail", "huge-eps": "fail"},
        lambda: only("pgd:steps=20"),
    ),
    "saturated logits, but there is an attack on the margin": Broken(
        lambda world: Around(world.plain(), behind=lambda z: 1000 * z),
        {"active": "pass", "outputs": "warn", "gradient": "warn", "confidence": "warn", "huge-eps": "warn"},
        lambda: only("pgd:steps=20", "short-tries:steps=20,restarts=2"),
    ),
    "a gradient that is NaN, though the logits are finite": Broken(
        lambda world: Around(world.plain(), lambda x: x + (x - x).abs().sqrt()), {"active": "fail", "gradient": "fail"}
    ),
    "quantised input, covered by the suite's own square": Broken(
        lambda world: Around(world.plain(), quantised),
        {"active": "pass", "gradient": "fail", "black-box": "fail"},
        lambda: only("pgd:steps=5", "square:steps=1000"),
    ),
    "quantised input, the suite's own square comes first": Broken(  # and leaves to the gradients what none can break
        lambda world: Around(world.plain(), quantised),
        {"active": "pass", "gradient": "fail", "black-box": "warn"},
        lambda: only("square:steps=1000", "pgd:steps=5"),
    ),
    "temperature 1/1000": Broken(
        lambda world: Around(world.plain(), behind=lambda z: ((z * 1000).softmax(1) + 1e-30).log()),
        {"active": "fail", "outputs": "fail", "gradient": "fail", "black-box": "fail", "huge-eps": "fail"},
    ),
    "noise inside": Broken(
        lambda world: Around(world.plain(), lambda x: x + 0.1 * torch.randn_like(x)),
        {"active": "not run", "randomised": "fail"},
        options=RANDOM,
    ),
    "noise inside, averaged over": Broken(
        lambda world: Around(world.plain(), lambda x: x + 0.1 * torch.randn_like(x)),
        {"active": "not run", "randomised": "warn"},
        options=RANDOM | {"eot": 3},
    ),
    "dropout left on": Broken(
        lambda world: with_dropout(world.plain()), {"active": "not run", "randomised": "fail"}, options=RANDOM
    ),
    "BatchNorm left on": Broken(
        lambda world: BatchStatistics(world.plain()), {"active": "not run", "randomised": "fail"}
    ),
    "a softmax at the end": Broken(
        lambda world: Around(world.plain(), behind=lambda z: z.softmax(1)), {"outputs": "fail"}
    ),
    "normalisation applied twice": Broken(
        lambda world: Classifier(
            Around(world.trained(world.conv, centred(world, 0.8, 0.5)), lambda x: (x - 0.8) / 0.5), [0.8], [0.5]
        ),
        {"normalisation": "fail"},
        options={"audit": 8},
    ),
    "a shattered gradient": Broken(
        lambda world: Around(world.plain(), lambda x: x + 0.02 * torch.sin(1e4 * x)),
        {"active": "fail", "black-box": "fail"},
    ),
    "a detector in front": Broken(
        lambda world: Detector(world.plain()),
        {"active": "not run", "gradient": "fail", "noise": "fail", "huge-eps": "fail"},
    ),
    "masked, beside its plain twin": Broken(
        lambda world: Around(world.plain(), quantised), {"active": "fail", "transfer": "fail"}, others=True
    ),
    "classes in another order": Broken(
        lambda world: Around(world.plain(), behind=lambda z: z.roll(1, 1)), {"clean": "fail"}
    ),
    "sensitive between two grey levels": Broken(
        lambda world: Around(world.plain(), lambda x: x + 0.4 * (255 * x - (255 * x).round())),
        {"rounding": "warn"},
        lambda: only("pgd:steps=20", eps=0.4 / 255),
    ),
    "an attack of one short step": Broken(
        lambda world: world.plain(),
        {"active": "fail", "converged": "fail", "one-step": "fail", "restarts": "fail"},
        lambda: only(f"pgd:steps=5,step_size={EPS / 8}"),
    ),
    "an attack that leaves its budget": Broken(
        lambda world: world.plain(), {"active": "fail", "inside": "fail"}, leaky
    ),
}


SLOW |= {
    "quantised input, covered by the suite's own square",
    "quantised input, the suite's own square comes first",
    "saturated logits, but there is an attack on the margin",
    "noise inside, averaged over",
    "dropout left on",
    "a shattered gradient",
}


@pytest.mark.parametrize("name", [long(name) if name in SLOW else name for name in BROKEN])
def test_what_is_broken_is_found(name: str, world: Any, audited: Callable[..., Any]) -> None:
    case = BROKEN[name]
    others = {"others": {"twin": world.plain()}} if case.others else {}
    found = audited(case.make(world), suite=case.suite and case.suite(), **case.options, **others)
    assert {check: found[check]["status"] for check in case.fires} == case.fires
    for check in case.fires:
        assert found[check]["advice"] and found[check]["source"] and found[check]["measured"]


def test_every_check_fires_somewhere() -> None:
    assert {check.name for check in CHECKS} == {check for case in BROKEN.values() for check in case.fires}


def test_what_the_suite_covers_with_scores_has_its_own_advice(world: Any, audited: Callable[..., Any]) -> None:
    model = Around(world.plain(), quantised)
    alone = audited(model, suite=only("pgd:steps=5"), audit=16)["black-box"]
    again = {"audit": 16, "overwrite": True}
    covered = audited(model, suite=only("pgd:steps=5", "square:steps=1000"), **again)["black-box"]
    short = audited(model, suite=only("pgd:steps=5", "square:steps=1"), **again)["black-box"]
    assert [each["status"] for each in (alone, covered, short)] == ["fail", "fail", "fail"]
    assert covered["numbers"]["broken"] == alone["numbers"]["broken"]
    assert "covers it" in covered["advice"]
    assert alone["advice"] == short["advice"] and "Add square" in alone["advice"]


@pytest.mark.parametrize("attack", ["apgd:steps=8,loss=margin", "apgd-t:steps=8"])
def test_noise_does_not_do_the_work_of_apgd(attack: str, world: Any, audited: Callable[..., Any]) -> None:
    """APGD starts from noise, which at the largest budget breaks most by itself; there is no gradient here at all."""
    huge = audited(Around(world.plain(), quantised), suite=only(attack))["huge-eps"]
    assert (huge["numbers"]["left"]["value"], huge["status"]) == (1, "fail")
    assert "PGD on the loss of" in huge["measured"]


class White(nn.Module):
    """A net of 1000 classes that answers 0, and gives no gradient, where an image is nearly white."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        z = F.pad(self.net(x), (0, 996), value=-50.0)
        white = (x.flatten(1).mean(1) > 0.95)[:, None]
        return torch.where(white, 10 * F.one_hot(torch.zeros(len(x), dtype=torch.long), 1000), z)


@pytest.mark.parametrize(("whites", "status"), [(0, "pass"), (1, "warn"), (8, "fail")])
def test_a_single_image_left_of_many_classes_is_a_warning(
    whites: int, status: str, world: Any, audited: Callable[..., Any]
) -> None:
    x, y = world.patterns(40, seed=1)
    data = torch.cat([x, torch.ones(whites, *x.shape[1:])]), torch.cat([y, torch.zeros(whites, dtype=y.dtype)])
    huge = audited(White(world.plain()), data, only("pgd:steps=10"), audit=60)["huge-eps"]
    assert (huge["numbers"]["left"]["value"] * huge["numbers"]["left"]["n"], huge["status"]) == (whites, status)


def test_a_loss_that_rises_in_the_smallest_ball_is_seen(world: Any, audited: Callable[..., Any]) -> None:
    """APGD in l1 begins in balls of 3 and 2 eps, where losses are larger than at its end."""
    suite = load_suite(attacks=["apgd:steps=12"], norm="l1", eps=0.5)
    numbers = audited(world.plain(), suite=suite)["converged"]["numbers"]
    assert numbers["still_rising"]["value"] > 0


def test_a_robust_number_that_is_false_is_not_believed(world: Any, audited: Callable[..., Any]) -> None:
    """The quantised net looks robust, and its plain twin, which is the same net, does not."""
    found = audited(Around(world.plain(), quantised))
    square = found["black-box"]["numbers"]
    assert square["left"] == 32 and square["broken"]["value"] > 0.2 and square["broken"]["n"] == 32
