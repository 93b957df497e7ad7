"""Outputs that are no logits: recognised, said, and attacked on their logits where that is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks.suite import load_suite
from robustlab.base.errors import UserError
from robustlab.base.outputs import Form, form_of, logits_of_probabilities, rounded, rows, unlike_logits
from robustlab.data import load_data
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.models import load_model
from robustlab.models.classifier import Classifier, check
from robustlab.models.search_copy import make_search_copy
from robustlab.oracle import Oracle
from robustlab.runs import StoredRun
from robustlab.verification import verify

DATA = load_data("road-signs", limit=64)
X = DATA.images
with torch.no_grad():
    Z = load_model("road-signs/cnn")(X)


class Squash(nn.Module):
    def __init__(self, squash: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.squash = load_model("road-signs/cnn"), squash

    def forward(self, x: Tensor) -> Any:
        return self.squash(self.net(x))


def two(z: Tensor) -> Tensor:
    """Two opposite logits of the first class."""
    d = z[:, 0] - z[:, 1:].amax(1)
    return torch.stack([d, -d], 1)


def cosine(spread: float) -> Tensor:
    """Similarities to 16 directions of features that lie around their own one."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(16, 64, generator=generator)
    features = w[DATA.labels] + spread * torch.randn(64, 64, generator=generator)
    return F.normalize(features) @ F.normalize(w).T


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (Z, ""),
        (Z / 100, ""),
        (Z - Z.amax(1, keepdim=True), ""),  # the largest of each row is 0
        (Z.log_softmax(1), ""),
        (Z.relu(), ""),
        (5 * torch.tanh(Z / 5), ""),  # bounded, but no value is lost
        (cosine(0.5), ""),
        (cosine(0.1), ""),
        (30 * cosine(0.1), ""),
        (Z[:1].expand(64, -1), ""),  # equal images
        (Z.softmax(1), "sums to 1"),
        (two(Z).softmax(1), "sums to 1"),
        (Z.sigmoid(), r"All outputs lie in \[0, 1\]"),
        ((Z / 10).sigmoid(), r"All outputs lie in \[0, 1\]"),
        (two(Z).sigmoid() * 0.999, r"All outputs lie in \[0, 1\]"),
        (Z.softmax(1).sqrt(), r"All outputs lie in \[0, 1\]"),
        (Z.softmax(1)[:, :8], r"All outputs lie in \[0, 1\]"),
        (Z.softmax(1).clamp(0.001, 0.999), r"cut off at 0.001 and 0.999"),
        (Z.tanh(), r"tanh"),
        (Z.clamp(-4, 10), r"cut off at -4 and 10"),
        (F.one_hot(Z.argmax(1), 16).float() * 7, r"cut off at 0 and 7"),
    ],
)
def test_outputs_that_are_hardly_logits(outputs: Tensor, said: str) -> None:
    text = unlike_logits(outputs)
    assert bool(text) == bool(said) and re.search(said, text)


@pytest.mark.parametrize("name", ["cnn", "cnn-robust", "resnet20", "resnet20-robust"])
def test_the_zoo_returns_logits(name: str) -> None:
    assert check(load_model(f"road-signs/{name}"), X, DATA.labels).warnings == []


@pytest.mark.parametrize("form", ["softmax", "sigmoids"])
def test_logits_of_probabilities_are_the_logits(form: Form) -> None:
    z = torch.tensor([[4.0, -3.0, 1.0], [12.0, -40.0, 0.0]], requires_grad=True)
    p = z.softmax(1) if form == "softmax" else z.sigmoid()
    assert form_of(p) == form
    back = logits_of_probabilities(p, form)
    wanted = z.log_softmax(1) if form == "softmax" else z
    assert torch.allclose(back, wanted, atol=0.01)  # 1 - p has few bits left
    grads = [
        torch.autograd.grad(F.cross_entropy(each, torch.tensor([0, 0])), z, retain_graph=True)[0] for each in (back, z)
    ]
    assert torch.allclose(grads[0], grads[1], rtol=0.01, atol=1e-6)


def test_what_has_rounded_stays_finite_and_is_counted() -> None:
    z = torch.tensor([[200.0, -200.0, 5.0], [3.0, -3.0, 0.0]], requires_grad=True)
    for form, p in (("sigmoids", z.sigmoid()), ("softmax", (4 * z).softmax(1))):
        back = logits_of_probabilities(p, form)  # type: ignore[arg-type]
        (g,) = torch.autograd.grad(back.square().sum(), z, retain_graph=True)
        assert bool(torch.isfinite(back).all()) and bool(torch.isfinite(g).all())
        assert rounded(back, form).tolist() == [True, False]  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["softmax", "sigmoids"])
def test_no_answer_changes(form: Form) -> None:
    """Neither where neighbouring probabilities get the same logit, nor where probabilities tie and logits do not."""
    p = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)).mul(0.3)
    p[:, 1] = torch.nextafter(p[:, 0], torch.tensor(1.0))
    p[:, 2] = 0
    before = torch.tensor([[30.0, 40.0], [40.0, 30.0]])
    assert torch.equal(logits_of_probabilities(p, form).argmax(1), p.argmax(1))
    exact = logits_of_probabilities(before.sigmoid(), "sigmoids", before)
    assert exact.argmax(1).tolist() == [0, 0] == before.sigmoid().argmax(1).tolist()
    assert float((exact - before).abs().max()) < 10.1


@pytest.mark.parametrize(
    "squash",
    [
        nn.Sigmoid(),
        torch.sigmoid,
        lambda z: z.sigmoid(),
        F.sigmoid,
        torch.special.expit,
        lambda z: {"logits": z.sigmoid()},
    ],
)
def test_logits_that_the_model_computed_are_used_themselves(squash: Callable[[Tensor], Any]) -> None:
    model = Classifier(Squash(squash), outputs="sigmoids")
    top = Z.sigmoid().argmax(1)  # several are exactly 1
    with torch.no_grad():
        back = model(X)
    assert bool((Z.sigmoid().amax(1) == 1).any()) and torch.equal(back.argmax(1), top)
    same = Z.argmax(1) == top
    assert torch.allclose(back[same], Z[same])
    copied = make_search_copy(model, X[:8])
    assert copied.module is not None and copied.folded


class Steep(nn.Module):
    """A linear classifier with logits around 30, at which a sigmoid of float32 is 1, and then a function of them."""

    def __init__(self, squash: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.w = nn.Parameter(40 * torch.randn(4, 48, generator=torch.Generator().manual_seed(0)))
        self.squash = squash

    def forward(self, x: Tensor) -> Any:
        return self.squash((x.flatten(1) - 0.5) @ self.w.T)


IMAGES = 0.3 + 0.4 * torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(1))
PAIR = IMAGES, Steep(nn.Identity())(IMAGES).argmax(1)


def run(model: nn.Module, where: Path, said: list[str] | None = None, **options: Any) -> StoredRun:
    listener = Listener(say=lambda text: None if said is None else said.append(text))
    options = {"curve": [], "keep": 0, "audit": 0} | options
    suite = load_suite(attacks=["pgd:steps=20"], eps=0.13)
    return evaluate({"net": model}, PAIR, suite, output=where, listener=listener, **options)


def robust(run: StoredRun) -> float:
    value: float = run.info["aggregates"]["models"][0]["robust_accuracy"]["value"]
    return value


@pytest.mark.parametrize("squash", [nn.Sigmoid(), nn.Softmax(1)])
def test_attacks_see_the_logits_of_probabilities(squash: nn.Module, tmp_path: Path) -> None:
    model, said = Steep(squash), []  # type: ignore[var-annotated]
    blind = run(model, tmp_path / "blind", said, audit=8)
    assert any("--outputs probabilities" in text for text in blind.info["warnings"])
    assert any("audit, outputs (fail)" in text for text in said)
    seen = run(model, tmp_path / "seen", said, outputs="probabilities", save_adversarial=True)
    logits = run(Steep(nn.Identity()), tmp_path / "logits")
    assert robust(logits) == robust(seen) == 0.0
    assert robust(blind) > 0 or isinstance(squash, nn.Softmax)  # a tiny gradient has a sign, too
    assert seen.info["warnings"] == [] and any("attacks see their logits" in text for text in said)
    form = "sigmoids" if isinstance(squash, nn.Sigmoid) else "softmax"
    assert seen.info["config"]["models"][0]["outputs"] == form
    assert "outputs" not in blind.info["config"]["models"][0]  # the hash of runs of before stays
    found = verify(tmp_path / "seen", models={"net": model}, data=PAIR)
    assert found.disagreements == 0 and found.complete


def test_what_cannot_be_given_back_is_said(tmp_path: Path) -> None:
    cut = Steep(lambda z: z.sigmoid() * 1.0)
    warning = run(cut, tmp_path / "cut", outputs="probabilities").info["warnings"][0]
    assert "rounded the largest output to exactly 1" in warning
    with pytest.raises(UserError, match=r"outputs must lie in \[0, 1\], and those of this model go from"):
        run(Steep(nn.Identity()), tmp_path / "logits", outputs="probabilities")
    with pytest.raises(UserError, match=r"\(t \+ 1\) / 2"):
        run(Steep(torch.tanh), tmp_path / "tanh", outputs="probabilities")
    assert not (tmp_path / "tanh").exists()


def test_a_classifier_of_the_caller_is_left_as_it_was(tmp_path: Path) -> None:
    model = Classifier(Steep(torch.sigmoid))
    run(model, tmp_path / "run", outputs="probabilities")
    assert model.outputs == "logits"
    with pytest.raises(UserError, match="outputs must be one of logits, softmax, sigmoids"):
        Classifier(nn.Identity(), outputs="probabilities")  # type: ignore[arg-type]


# --- forms ------------------------------------------------------------------------------------------------------------

SEVERAL, ONE = torch.zeros(4, 3, 8, 8), torch.zeros(1, 3, 8, 8)


@pytest.mark.parametrize(
    ("make", "images"),
    [
        (lambda z: z, SEVERAL),
        (lambda z: z, ONE),
        (lambda z: z.squeeze(), ONE),
        (lambda z: z[:, :, None, None], SEVERAL),
        (lambda z: z[:, :, None, None], ONE),
        (lambda z: {"loss": None, "logits": z}, SEVERAL),
        (lambda z: {"out": z, "aux": z + 1}, SEVERAL),
        (lambda z: {"prediction": z}, SEVERAL),
        (lambda z: (z[:, :, None, None].expand(-1, -1, 3, 3), z), SEVERAL),
        (lambda z: (z, z[:, :, None, None].expand(-1, -1, 3, 3)), SEVERAL),
        (lambda z: [None, z], ONE),
        (lambda z: SimpleNamespace(loss=None, logits=z), SEVERAL),
    ],
)
def test_forms_that_are_taken(make: Callable[[Tensor], Any], images: Tensor) -> None:
    z = torch.arange(2.0 * len(images)).view(-1, 2)
    assert torch.equal(rows(make(z), images), z)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return make(x.flatten(1)[:, :2])

    assert Oracle(Net()).logits(images).shape == Classifier(Net())(images).shape == (len(images), 2)
    assert check(Classifier(Net()), images, None).warnings == []


def test_no_images_have_no_rows() -> None:
    none = SEVERAL[:0]
    assert rows(torch.zeros(0, 3), none).shape == rows(torch.zeros(0, 3, 1, 1), none).shape == (0, 3)
    with pytest.raises(UserError, match=r"of shape \(0, K\)"):
        rows(torch.zeros(0, 3, 2, 2), none)


@pytest.mark.parametrize(
    ("out", "images", "message"),
    [
        (torch.zeros(4), SEVERAL, r'robustlab.two_classes\(model, output="logit"\)'),
        (torch.zeros(4, 1), SEVERAL, r'or output="probability" after a sigmoid'),
        (torch.zeros(1), ONE, "one number an image"),
        (torch.zeros(1, 1), ONE, "one number an image"),
        (torch.tensor(1.0), ONE, r"float logits of shape \(1, K\)"),
        (torch.zeros(1, 3), SEVERAL, r"float logits of shape \(4, K\)"),
        (torch.zeros(3, 4), SEVERAL, r"float logits of shape \(4, K\)"),
        (torch.zeros(4, 3, 2, 2), SEVERAL, r"float logits of shape \(4, K\)"),
        (torch.zeros(4, 3).long(), SEVERAL, "float logits"),
        (torch.zeros(4, 3, dtype=torch.complex64), SEVERAL, "float logits"),
        ({"a": torch.zeros(4, 3), "b": torch.zeros(4, 3)}, SEVERAL, "dict with a, b, and none of them"),
        ({}, SEVERAL, "nothing in it"),
        ((), SEVERAL, "returned a tuple"),
        ((torch.zeros(4, 8), torch.zeros(4, 3)), SEVERAL, r"may be the logits, of shapes \(4, 8\) and \(4, 3\)"),
        (None, SEVERAL, "returned a NoneType"),
        (torch.zeros(4, 3).numpy(), SEVERAL, "returned a ndarray"),
        ("cat", SEVERAL, "returned a str"),
    ],
)
def test_forms_that_are_refused(out: Any, images: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows(out, images)


@pytest.mark.parametrize(
    "squash", [lambda z: z.sigmoid() * 100, lambda z: z.sigmoid() + 1, lambda z: z.softmax(1) * 100]
)
def test_bounded_outputs_that_are_scaled_are_said(squash: Callable[[Tensor], Tensor]) -> None:
    logits = 8 * torch.randn(32, 10, generator=torch.Generator().manual_seed(0)) - 20
    logits[torch.arange(32), torch.arange(32) % 10] += 40
    assert unlike_logits(squash(logits)) and not unlike_logits(logits)


@pytest.mark.parametrize("form", ["softmax", "sigmoids"])
def test_probabilities_written_to_afterwards_are_those_that_count(form: Any) -> None:
    class Net(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.in_place, self.keep = in_place, torch.tensor([1.0, 0.0, 0.5])

        def forward(self, x: Tensor) -> Tensor:
            z = x.flatten(1)
            p = z.softmax(1) if form == "softmax" else z.sigmoid()
            return p.mul_(self.keep) if self.in_place else p * self.keep

    x = torch.rand(4, 3, 1, 1)
    written, fresh = (Classifier(Net(in_place), outputs=form)(x) for in_place in (True, False))
    assert torch.equal(written, fresh)


def test_two_sigmoids_that_sum_to_one_keep_their_probabilities() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            d = x.flatten(1)[:, :1]
            return torch.cat([d, -d], 1).sigmoid()

    x = torch.rand(4, 1, 2, 2)
    assert torch.allclose(Classifier(Net(), outputs="softmax")(x).softmax(1), Net()(x))
