"""MAITE's models and data sets in robustlab, and ours with MAITE's own tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import PGD, Square
from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.interop.maite import from_dataset, from_model, to_dataset, to_model
from robustlab.models.classifier import Classifier
from robustlab.oracle import NoGradientError
from robustlab.runs import StoredRun
from robustlab.threat.model import ThreatModel

K, N = 4, 24


@pytest.fixture
def classifier() -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, K))
        net(torch.rand(64, 3, 8, 8))
    return Classifier(net.eval(), [0.5], [0.25], classes=list("abcd"), name="net")


@pytest.fixture
def data(classifier: Classifier) -> Data:
    """Images with the classifier's own answers as labels, in 8 bits."""
    x = torch.randint(256, (N, 3, 8, 8), generator=torch.Generator().manual_seed(1)) / 255
    with torch.no_grad():
        y = classifier(x).argmax(1)
    return Data("squares", "test", x, y, torch.arange(N) * 3, tuple("abcd"), "0" * 32, ThreatModel())


@pytest.fixture(scope="module")
def tasks() -> Any:
    return pytest.importorskip("maite.tasks")


class Accuracy:
    """A metric of MAITE's kind."""

    metadata = {"id": "accuracy"}

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right: list[bool] = []

    def update(self, predictions: Sequence[Any], targets: Sequence[Any], metadata: Sequence[Any], /) -> None:
        self.right += [int(np.argmax(p)) == int(np.argmax(t)) for p, t in zip(predictions, targets, strict=True)]

    def compute(self) -> dict[str, Any]:
        return {"accuracy": sum(self.right) / len(self.right)}


class Plain:
    """A model of MAITE's kind that computes with NumPy on values of 0 to 255."""

    def __init__(self, classes: int = K) -> None:
        self.metadata = {"id": "plain"}
        self.weights = np.random.default_rng(0).normal(size=(192, classes)).astype(np.float32)

    def __call__(self, batch: Sequence[Any], /) -> Sequence[Any]:
        flat = np.stack([np.asarray(image).reshape(-1) for image in batch])
        assert flat.dtype == np.float32 and (flat.max() > 1 or not flat.any())
        return list((flat - 127.5) @ self.weights / 255)


# --- with MAITE's own tools -------------------------------------------------------------------------------------------


def test_what_we_hand_over_follows_the_protocols(classifier: Classifier, data: Data, tasks: Any) -> None:
    from maite.protocols import generic

    model, dataset = to_model(classifier), to_dataset(data)
    assert isinstance(model, generic.Model) and isinstance(dataset, generic.Dataset)
    assert model.metadata == {"id": "net", "index2label": dict(enumerate("abcd"))}
    assert dataset.metadata == {"id": "squares-test", "index2label": dict(enumerate("abcd"))}


@pytest.mark.parametrize("batch_size", [1, 5, N])
def test_maite_predicts_and_evaluates_with_our_model(
    batch_size: int, classifier: Classifier, data: Data, tasks: Any
) -> None:
    wrong = data.labels.clone()
    wrong[:6] = (wrong[:6] + 1) % K
    dataset = to_dataset(Data(**{**vars(data), "labels": wrong}), pixel_range=(0, 255))
    model = to_model(classifier, pixel_range=(0, 255), outputs="probabilities")
    given = {"model": model, "dataset": dataset, "batch_size": batch_size}
    predicted = np.concatenate([np.stack(batch) for batch in tasks.predict(**given)[0]])
    with torch.no_grad():
        assert np.allclose(predicted, classifier(data.images).softmax(1).numpy(), atol=1e-5)
    found, _, shown = tasks.evaluate(metric=Accuracy(), return_augmented_data=True, **given)
    assert found == {"accuracy": (N - 6) / N}
    assert [each["id"] for _, _, metadata in shown for each in metadata] == [3 * i for i in range(N)]


# --- there and back ---------------------------------------------------------------------------------------------------


def run(models: Any, data: Any, where: Path, suite: Any) -> StoredRun:
    off: dict[str, Any] = {"audit": 0, "keep": 0, "curve": [], "search_copy": False}
    return evaluate({"net": models}, data, suite, output=where, listener=Listener(say=lambda text: None), **off)


@pytest.mark.parametrize(
    ("gradient", "suite"), [(False, ["square:steps=60"]), (True, ["pgd:steps=4", "square:steps=60"])]
)
def test_there_and_back_changes_no_number(
    gradient: bool, suite: list[str], classifier: Classifier, data: Data, tmp_path: Path
) -> None:
    back = from_model(to_model(classifier, outputs="logits"), pixel_range=(0, 1), outputs="logits", gradient=gradient)
    same = from_dataset(to_dataset(data), pixel_range=(0, 1))
    assert back.classes == classifier.classes and same.classes == data.classes and back.name == "net"
    assert torch.equal(same.images, data.images) and torch.equal(same.labels, data.labels)
    with torch.no_grad():
        assert torch.equal(back(data.images), classifier(data.images))
    direct, around = Data(**{**vars(data), "ids": same.ids}), run(back, same, tmp_path / "around", suite)
    ours = run(classifier, direct, tmp_path / "direct", suite)
    lines = [[line for line in each.lines] for each in (ours, around)]
    assert lines[0] == lines[1] and 0 < sum(line.succeeded for line in lines[0]) < N


def test_attacks_through_tensors_are_the_same(classifier: Classifier, data: Data) -> None:
    back = from_model(to_model(classifier, outputs="logits"), pixel_range=(0, 1), outputs="logits", gradient=True)
    attack = PGD(eps=4 / 255, steps=5)
    assert torch.equal(*(attack(each, data.images, data.labels) for each in (classifier, back)))


def test_probabilities_come_back_as_logits(classifier: Classifier, data: Data) -> None:
    model = to_model(classifier, pixel_range=(-1, 1), outputs="probabilities")
    back = from_model(model, pixel_range=(-1, 1), outputs="softmax", gradient=True)
    with torch.no_grad():
        there, here = back(data.images), classifier(data.images)
        assert torch.allclose(there.softmax(1), here.softmax(1), atol=1e-5)
        assert torch.allclose(there - there[:, :1], here - here[:, :1], atol=1e-3)


# --- their models -----------------------------------------------------------------------------------------------------


def test_a_numpy_model_has_no_gradient_and_can_be_attacked_by_its_scores(data: Data, tmp_path: Path) -> None:
    for gradient in (False, True):
        model = from_model(Plain(), pixel_range=(0, 255), outputs="logits", gradient=gradient)
        with pytest.raises(NoGradientError, match="no gradient.*square"):
            run(model, data, tmp_path / "no", ["pgd:steps=2"])
    model = from_model(Plain(), pixel_range=(0, 255), outputs="logits")
    with torch.no_grad():
        y = model(data.images).argmax(1)
    assert Square(eps=16 / 255, steps=60).run(model, data.images, y).success.any()
    assert model.classes is None and model.name == "plain"


def test_torch_modules_inside_are_in_eval_mode_and_in_the_hash(classifier: Classifier, data: Data) -> None:
    class Holder:
        metadata = {"id": "holder"}

        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def __call__(self, batch: Sequence[Any], /) -> Sequence[Any]:
            return self.net(torch.stack([torch.as_tensor(each) for each in batch]))  # type: ignore[no-any-return]

    held = Holder(classifier.module.train())
    model = from_model(held, pixel_range=(0, 1), outputs="logits", gradient=True)
    before = model.hash()
    outcome = PGD(steps=2).run(model, data.images, data.labels)
    assert outcome.backwards.sum() > 0 and held.net.training and model.hash() == before
    with torch.no_grad():
        next(iter(held.net.parameters())).add_(1)
    assert model.hash() != before
    plain, other = Plain(), Plain()
    other.weights = other.weights + 1
    assert len({from_model(each, pixel_range=(0, 255), outputs="logits").hash() for each in (plain, other)}) == 2


# --- their data sets --------------------------------------------------------------------------------------------------


class Holder:
    """A MAITE model whose module lies wherever `held` puts it."""

    metadata = {"id": "holder"}

    def __init__(self, name: str, held: Any, net: nn.Module) -> None:
        self.net = lambda x: net(x)  # a function shows nothing
        setattr(self, name, held)

    def __call__(self, batch: Any) -> Any:
        return list(self.net(torch.stack(list(batch))))


@pytest.mark.parametrize("name", ["type", "keys", "items", "pop", "a.b"])  # names that a ModuleDict cannot have
@pytest.mark.parametrize(
    "put",
    [lambda net: net, lambda net: [{"x": (net,)}], lambda net: SimpleNamespace(inner=net), lambda net: net.forward],
)
def test_modules_are_found_wherever_they_are(name: str, put: Callable[[nn.Module], Any]) -> None:
    hashes, x = set(), torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for value in (0.1, 0.2):
        net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(48, 4))
        nn.init.constant_(net[2].weight, value)
        nn.init.zeros_(net[2].bias)
        model = from_model(Holder(name, put(net), net), pixel_range=(0, 1), outputs="logits", gradient=True)
        hashes.add(model.hash())
        assert torch.equal(model.eval()(x), model(x)) and model(x).max() > 0
    assert len(hashes) == 2


def test_arrays_inside_count_in_the_hash_and_a_cycle_ends() -> None:
    def of(value: float) -> str:
        held = SimpleNamespace(weights=[np.full(3, value)])
        held.back = held
        return from_model(Holder("held", held, nn.Identity()), pixel_range=(0, 1), outputs="logits").hash()

    assert of(1.0) == of(1.0) != of(2.0)


def test_a_model_that_shows_no_weights_is_said() -> None:
    with pytest.warns(UserWarning, match="'holder' shows no weights"):
        from_model(Holder("held", None, nn.Identity()), pixel_range=(0, 1), outputs="logits")


class Few:
    """A data set of MAITE's kind: the samples that are given."""

    def __init__(self, *samples: Any, **metadata: Any) -> None:
        self.samples, self.metadata = samples, {"id": "few", **metadata}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, at: int, /) -> Any:
        return self.samples[at]


def sample(value: float = 0.0, label: int = 0, **more: Any) -> Any:
    return more.get("image", np.full((3, 2, 2), value)), more.get("target", np.eye(K)[label]), {"id": "x"}


def test_a_data_set_of_any_kind_of_array() -> None:
    dataset = Few(
        (torch.full((3, 2, 2), 255, dtype=torch.uint8), torch.eye(K)[3], {"id": 7}),
        ([[[0, 0], [0, 0]]] * 3, [0.1, 0.7, 0.1, 0.1], {"id": "b"}),
        index2label={0: "a", 1: "b", 2: "c", 3: "d"},
    )
    found = from_dataset(dataset, pixel_range=(0, 255))
    assert found.images.amax((1, 2, 3)).tolist() == [1.0, 0.0] and found.images.dtype == torch.float32
    assert found.labels.tolist() == [3, 1] and found.classes == tuple("abcd") and found.ids.tolist() == [0, 1]
    assert len(from_dataset(dataset, pixel_range=(0, 255), limit=1)) == 1
    changed = Few(*dataset.samples[:1], sample(0.0, 2), index2label=dataset.metadata["index2label"])
    assert from_dataset(changed, pixel_range=(0, 255)).hash != found.hash
    assert from_dataset(changed, pixel_range=(0, 510)).hash != from_dataset(changed, pixel_range=(0, 255)).hash


# --- bad input --------------------------------------------------------------------------------------------------------

MAP = {1: "a", 2: "b"}
BAD_SETS: list[tuple[Any, dict[str, Any], str]] = [
    (Few(), {}, "is empty"),
    (Few(sample()), {"pixel_range": (255, 0)}, "lowest and the highest"),
    (Few(sample()), {"pixel_range": 255}, "lowest and the highest"),
    (Few(sample()), {"limit": 0}, "limit"),
    (Few(sample(2.0)), {}, "Pixels go from 2 to 2, and pixel_range says 0 to 1"),
    (Few(sample(float("nan"))), {}, "Pixels go from nan"),
    (Few(sample(image=np.zeros((8, 8, 3)))), {}, r"looks like \(H, W, C\)"),
    (Few(sample(image=np.zeros((2, 2)))), {}, r"Image 0 must be an array \(C, H, W\)"),
    (Few(sample(), sample(image=np.zeros((3, 4, 4)))), {}, "one size"),
    (Few(sample(target=2)), {}, "One-hot of a label"),
    (Few(sample(target=np.full(K, 0.25))), {}, "no single class"),
    (Few(sample(target=[float("nan")] * K)), {}, "no single class"),
    (Few(sample(), sample(target=np.eye(3)[0])), {}, "one length"),
    (Few((np.zeros((3, 2, 2)), 1)), {}, "must be .image, target, metadata."),
    (Few(sample(), index2label=MAP), {}, "must name the classes 0 to K - 1"),
    (Few(sample(), index2label={0: "a"}), {}, "has 1 names, targets 4 classes"),
    (Few(sample(), id=3), {}, "has metadata with an id"),
    ([sample()], {}, "has metadata with an id"),
]


@pytest.mark.parametrize(("dataset", "options", "message"), BAD_SETS, ids=[message[:25] for *_, message in BAD_SETS])
def test_a_bad_data_set_is_said(dataset: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dataset(dataset, **{"pixel_range": (0, 1), **options})


def answering(answer: Callable[[int], Any]) -> Any:
    class Answering:
        metadata = {"id": "answering"}

        def __init__(self) -> None:
            self.weights = np.zeros(1)

        def __call__(self, batch: Sequence[Any], /) -> Any:
            return answer(len(batch))

    return Answering()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda n: None, "this one returned NoneType"),
        (lambda n: [np.zeros(K)], "for 3 images this one returned 1"),
        (lambda n: [np.zeros((1, K))] * n, r"of the shapes \(1, 4\)"),
        (lambda n: [np.zeros(K + i) for i in range(n)], r"\(4,\), \(5,\), \(6,\)"),
        (lambda n: ["cat"] * n, "could not convert"),
    ],
)
def test_a_bad_answer_of_a_model_is_said(answer: Callable[[int], Any], message: str) -> None:
    model = from_model(answering(answer), pixel_range=(0, 1), outputs="logits")
    with pytest.raises(UserError, match=message):
        model(torch.zeros(3, 3, 2, 2))


def test_what_is_no_model_or_data_is_said(classifier: Classifier, data: Data) -> None:
    nameless = answering(lambda n: None)
    nameless.metadata = {}
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: from_model(nn.Linear(2, 2), pixel_range=(0, 1), outputs="logits"), "metadata with an id"),
        (lambda: from_model(Plain, pixel_range=(0, 1), outputs="logits"), "the class Plain"),
        (lambda: from_model(nameless, pixel_range=(0, 1), outputs="logits"), "metadata with an id"),
        (lambda: from_model(Few(), pixel_range=(0, 1), outputs="logits"), "cannot be called"),
        (lambda: from_model(Plain(), pixel_range=(0, 1), outputs="labels"), "outputs must be one of"),  # type: ignore[arg-type]
        (lambda: to_model(classifier.module), "Of a module: Classifier"),  # type: ignore[arg-type]
        (lambda: to_model(classifier, outputs="softmax"), "outputs must be one of"),  # type: ignore[arg-type]
        (lambda: to_dataset((data.images, data.labels)), "what load_data returns"),  # type: ignore[arg-type]
        (lambda: to_dataset(Data(**{**vars(data), "labels": data.labels - 9})), "without a label"),
        (lambda: to_model(classifier)([np.full((3, 8, 8), 255.0)]), "Pixels go from 255 to 255"),
        (lambda: to_model(classifier)([np.zeros((8, 8))]), "one size"),
        (lambda: to_model(classifier)(["cat"]), "one size"),
        (lambda: to_model(classifier)([np.zeros((3, 8, 8)), np.zeros((3, 9, 9))]), "one size"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()


def test_our_model_takes_tensors_arrays_and_an_empty_batch(classifier: Classifier) -> None:
    classifier.train()
    model = to_model(classifier, outputs="logits")
    x = torch.rand(3, 8, 8).requires_grad_()
    out = model([x])
    assert isinstance(out[0], Tensor) and out[0].requires_grad and classifier.training
    array = model([x.detach().numpy().astype(np.float64)])
    assert isinstance(array[0], np.ndarray) and np.allclose(array[0], out[0].detach().numpy(), atol=1e-6)
    mirrored = model([x.detach().numpy()[:, :, ::-1], np.zeros((3, 8, 8), np.uint8)])
    assert np.allclose(mirrored[0], model([x.detach().flip(2)])[0].numpy(), atol=1e-6)
    assert list(model([])) == []
    assert (
        len(
            list(
                iter(
                    to_dataset(
                        Data(
                            *([*"ab"]),
                            x.detach()[None],
                            torch.zeros(1).long(),
                            torch.zeros(1).long(),
                            ("a",),
                            "0",
                            ThreatModel(),
                        )
                    )
                )
            )
        )
        == 1
    )  # type: ignore[call-overload]
