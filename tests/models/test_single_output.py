"""A model with a single output: refused as it is, and right as two classes."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import robustlab
from robustlab.attacks import PGD
from robustlab.base.errors import UserError
from robustlab.evaluation.listener import Listener
from robustlab.explain import occlusion
from robustlab.models import Classifier, load_model, two_classes
from robustlab.models.classifier import check
from robustlab.models.loading import build
from robustlab.models.search_copy import make_search_copy

X = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Single(nn.Module):
    """A linear logit, with both signs on X, in any form."""

    def __init__(self, form: Any = lambda z: z, scale: float = 1.0) -> None:
        super().__init__()
        self.form, self.scale = form, scale
        self.w = nn.Parameter(torch.randn(48, generator=torch.Generator().manual_seed(1)))

    def z(self, x: Tensor) -> Tensor:
        return self.scale * ((x - 0.5).flatten(1) @ self.w)

    def forward(self, x: Tensor) -> Any:
        return self.form(self.z(x))


@pytest.mark.parametrize(
    ("output", "form"),
    [
        ("logit", lambda z: z),
        ("logit", lambda z: z[:, None]),
        ("logit", lambda z: SimpleNamespace(logits=z[:, None])),
        ("logit", lambda z: {"loss": None, "logits": z}),
        ("probability", torch.sigmoid),
        ("probability", lambda z: z[:, None].sigmoid()),
        ("probability", lambda z: {"out": z.sigmoid()}),
        ("probability", lambda z: 1 / (1 + (-z).exp())),
    ],
)
def test_logits_and_gradients_are_those_of_the_single_logit(output: Any, form: Any) -> None:
    net = Single(form)
    model = two_classes(net, output, classes=("no", "yes"))
    x = X.clone().requires_grad_(True)
    z = net.z(x)
    assert 0 < int((z > 0).sum()) < len(X)
    logits = model(x)
    assert logits.shape == (16, 2) and model.classes == ("no", "yes") and not bool(logits[:, 0].any())
    assert torch.allclose(logits[:, 1], z, atol=1e-5) and torch.equal(logits.argmax(1), (z > 0).long())
    assert torch.allclose(logits.softmax(1)[:, 1], z.sigmoid(), atol=1e-6)
    loss = nn.functional.cross_entropy(logits, torch.ones(16, dtype=torch.int64), reduction="sum")
    (g,) = torch.autograd.grad(loss, x, retain_graph=True)
    (wanted,) = torch.autograd.grad(nn.functional.softplus(-z).sum(), x)
    assert torch.allclose(g, wanted, atol=1e-5)


def test_a_probability_that_has_rounded_to_one_keeps_its_logit() -> None:
    net = Single(torch.sigmoid, scale=100.0)
    assert bool((net(X) == 1).any()) and bool((net(X) == 0).any())
    assert torch.equal(two_classes(net, "probability")(X)[:, 1], net.z(X))


def test_a_single_output_is_refused_until_it_is_said_what_it_is() -> None:
    y = torch.zeros(16, dtype=torch.int64)
    for form in (lambda z: z, lambda z: z[:, None], lambda z: SimpleNamespace(logits=z)):
        with pytest.raises(UserError, match=r"one number an image .*two_classes\(model"):
            PGD(eps=0.1)(Single(form), X, y)
        with pytest.raises(UserError, match="one number an image"):
            occlusion(Single(form), X, y)
        with pytest.raises(UserError, match="one number an image"):
            robustlab.evaluate(Single(form), (X, y), "fgsm")


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        (Single(), "probabilty", "output must be logit or probability"),
        (Single(), "probability", r"it goes from -.* to .*output=\"logit\""),
        (nn.Flatten(), "logit", r"expected, shape \(16,\) or \(16, 1\); got \(16, 48\)"),
        (Single(lambda z: z > 0), "logit", "One float number"),
        (Single(lambda z: "yes"), "logit", "got a str"),
        (Classifier(Single(), outputs="sigmoids"), "logit", "leave that out"),
    ],
)
def test_what_is_no_single_output(model: nn.Module, output: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        two_classes(model, output)(X)


def test_a_probability_that_is_called_a_logit_is_told() -> None:
    two = two_classes(Single(torch.sigmoid))
    with warnings.catch_warnings(action="error"):
        assert bool((two(X[:2]).argmax(1) == 1).all())  # too few to tell
        two_classes(Single())(X)
        two_classes(Single(torch.sigmoid), "probability")(X)
    with pytest.warns(UserWarning, match=r'every image with more than 0.*output="probability"'):
        two(X)
    with warnings.catch_warnings(action="error"):
        two(X)  # once is enough
    (said,) = check(two, X, None).warnings  # and in every run
    assert "single_output" in said and "--outputs" not in said


def test_no_images() -> None:
    for net, output in ((Single(), "logit"), (Single(torch.sigmoid), "probability")):
        assert two_classes(net, output)(X[:0]).shape == (0, 2)  # type: ignore[arg-type]


def test_a_classifier_keeps_its_normalisation() -> None:
    given = Classifier(Single(), mean=[0.1, 0.2, 0.3], std=[0.5], shape=(3, 4, 4), name="mine", data="cats")
    model = two_classes(given)
    assert (model.name, model.shape, model.data) == ("mine", (3, 4, 4), "cats")
    shifted = (X - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5
    assert torch.allclose(model(X)[:, 1], given.module.z(shifted), atol=1e-5)


def test_batchnorm_is_folded_behind_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1))
    found = make_search_copy(two_classes(net).eval(), X)
    assert found.folded and found.module is not None


CARD = """mean = [0.4]
std = [0.2]
classes = ["cat", "dog"]
"""


def test_a_card_says_what_the_single_output_is(tmp_path: Path) -> None:
    net = build("cnn", 1, (3, 16, 16), {}).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    card = tmp_path / "card.toml"
    own = 'architecture = "cnn"\nweights = "w.safetensors"\nshape = [3, 16, 16]\nsingle_output = "logit"\n'
    card.write_text(own + CARD)
    x = torch.rand(4, 3, 16, 16)
    model = load_model(str(card))
    assert torch.allclose(model(x)[:, 1:], net((x - 0.4) / 0.2), atol=1e-6)
    assert model.classes == ("cat", "dog") and model.shape == (3, 16, 16)
    for wrong, message in (
        (own + CARD.replace('"dog"', '"dog", "cow"'), "is of 2 classes, got 3"),
        (own.replace('"logit"', '"logits"') + CARD, "single_output"),
    ):
        card.write_text(wrong)
        with pytest.raises(UserError, match=message):
            load_model(str(card))


def test_a_card_of_a_model_of_timm_with_a_single_output(tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text('architecture = "timm:test_resnet"\nweights = "random"\nsingle_output = "logit"\n' + CARD)
    model, x = load_model(str(card)).eval(), torch.rand(2, 3, 160, 160)
    assert model(x).shape == (2, 2) and not bool(model(x)[:, 0].any())


def test_the_command_line_takes_it_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch, robustlab\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 1), torch.nn.Sigmoid())\n"
        "    return robustlab.two_classes(net, 'probability', classes=('cat', 'dog'))\n"
    )
    model = load_model(f"{tmp_path / 'mine.py'}:make")
    assert model.classes == ("cat", "dog")
    options = {"output": tmp_path / "run", "curve": [], "audit": 0, "listener": Listener(say=lambda text: None)}
    run = robustlab.evaluate(model, (X, model(X).argmax(1)), "fgsm", **options)
    assert run.info["aggregates"]["models"][0]["clean_accuracy"]["value"] == 1
    assert not [line for line in run.lines if line.error]
