"""What people pass to the library calls in place of tensors: taken where it is plain what is meant, or one message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.transforms.functional import to_pil_image

from robustlab.attacks import FMN, PGD, Square
from robustlab.base.errors import UserError
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.oracle import Oracle
from robustlab.runs import StoredRun
from robustlab.verification import verify

K = 5
X = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % K
NET = nn.Sequential(nn.Flatten(), nn.Linear(48, K))
with torch.random.fork_rng():
    torch.manual_seed(0)
    nn.init.normal_(NET[1].weight)  # type: ignore[arg-type]
PAIR = TensorDataset(X, Y)
A = PGD(eps="8/255", steps=2)
TARGETED = PGD(eps="8/255", steps=2, targeted=True)


class Items(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y.tolist(), strict=True))


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


# --- data -------------------------------------------------------------------------------------------------------------

TAKEN: dict[str, Any] = {
    "a list of two": [X, Y],
    "arrays": (X.numpy(), Y.numpy()),
    "read-only arrays": (read_only(X.numpy().copy()), read_only(Y.numpy().copy())),
    "big-endian arrays": (X.numpy().astype(">f4"), Y.numpy().astype(">i2")),
    "arrays read backwards": (X.numpy()[::-1].copy()[::-1], Y.numpy()[::-1].copy()[::-1]),
    "a list of images": (list(X), Y.tolist()),
    "a list of arrays": (list(X.numpy()), list(Y.numpy())),
    "nested lists": (X.tolist(), Y.tolist()),
    "labels (N, 1)": (X, Y[:, None]),
    "a list of lists": (X, [[k] for k in Y.tolist()]),
    "labels of other types": (X, Y.to(torch.uint8)),
    "whole floats": (X, Y.float()),
    "a Dataset": PAIR,
    "a Dataset of numbers": Items(*zip(X.numpy(), Y.tolist(), strict=True)),
    "a Dataset without a length": Stream(),
    "a DataLoader": DataLoader(PAIR, batch_size=8),
    "a DataLoader of several batches": DataLoader(PAIR, batch_size=3),
    "a DataLoader without batches": DataLoader(PAIR, batch_size=None),
    "images that ask for a gradient": (X.clone().requires_grad_(), Y),
}


def run(data: Any, where: Path, models: Any = NET, suite: Any = "fgsm", **options: Any) -> StoredRun:
    quiet = Listener(say=lambda text: None)
    return evaluate(models, data, suite, output=where, listener=quiet, **{"audit": 0, "keep": 0, "curve": []} | options)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (run((X, Y), tmp_path_factory.mktemp("plain") / "run").folder / "samples.jsonl").read_bytes()


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN.keys())
def test_data_that_are_taken(data: Any, tmp_path: Path, samples: bytes) -> None:
    state = torch.random.get_rng_state()
    assert (run(data, tmp_path / "run").folder / "samples.jsonl").read_bytes() == samples
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_run_is_verified_with_data_in_another_form(tmp_path: Path) -> None:
    folder = run(PAIR, tmp_path / "run", {"net": NET}, save_adversarial=True).folder
    assert verify(folder, models={"net": NET}, data=(X.numpy(), Y.tolist())).disagreements == 0
    with pytest.raises(UserError, match="not the data that was attacked"):
        verify(folder, models={"net": NET}, data=DataLoader(PAIR, batch_size=4, sampler=range(7, -1, -1)))


REFUSED: dict[str, tuple[Any, str]] = {
    "three": ((X, Y, Y), r"pair \(images, labels\) was expected, got 3"),
    "images alone": (X, r"a Dataset or DataLoader of such pairs; got torch.Tensor"),
    "None": (None, "got None"),
    "a number": (3, "got 3"),
    "a mapping": ({"images": X, "labels": Y}, "got builtins.dict"),
    "a path": (Path("photos"), "'folder:photos'"),
    "None in a pair": ((X, None), "labels must be whole numbers .* got None"),
    "one-hot": ((X, F.one_hot(Y, K)), r"labels.argmax\(1\)"),
    "one-hot floats": ((X, F.one_hot(Y, K).float().tolist()), r"labels.argmax\(1\)"),
    "fractions": ((X, Y + 0.6), "whole numbers, one an image, got 0.6"),
    "NaN": ((X, torch.full((8,), float("nan"))), "whole numbers, one an image, got nan"),
    "infinity": ((X, [float("inf")] * 8), "got inf"),
    "huge floats": ((X, [1e30] * 8), "class numbers, got 1e"),
    "huge integers": ((X, [2**70] * 8), "labels must be whole numbers"),
    "texts": ((X, ["cat"] * 8), r"labels must be whole numbers of shape \(8,\)"),
    "ragged": ((X, [[1], [1, 2]]), "labels must be whole numbers"),
    "too few": ((X, Y[:7]), "8 images and 7 labels"),
    "too many": ((X, [*Y.tolist(), 1]), "8 images and 9 labels"),
    "one number for all": ((X, 3), r"shape \(8,\), one an image"),
    "beyond K": ((X, Y + K), "from 0 to 4, since the model has 5 classes; got 5 to 9"),
    "from one": ((X, Y + 1), "got 1 to 5. Where yours count from 1, subtract 1"),
    "negative": ((X, Y - 7), "class numbers from 0 to"),
    "no label": ((X, Y * 0 - 1), "have no label"),
    "complex": ((X, Y.to(torch.complex64)), "whole numbers"),
    "uint8": (((X * 255).byte(), Y), "Divide by 255"),
    "up to 255": ((X * 255, Y), r"Divide by 255: images / 255"),
    "normalised": (((X - 0.5) * 4, Y), "--mean and --std"),
    "NaN images": ((X * float("nan"), Y), "NaN or infinite"),
    "integers": ((X.long(), Y), "floats"),
    "one image": ((X[0], Y[:1]), r"images\[None\]"),
    "no channel": ((X[:, 0], Y), r"images\[:, None\]"),
    "a vector": ((X.flatten(), Y), r"\(N, C, H, W\)"),
    "no pixel": ((X[:, :, :0], Y), "at least one pixel"),
    "images of two sizes": (([X[0], X[1, :, :3]], Y[:2]), "different shapes"),
    "PIL": (([to_pil_image(X[0])], Y[:1]), r"images must be floats|PIL|\(N, C, H, W\)"),
    "on meta": ((X.to("meta"), Y), "'meta', which holds no values"),
    "empty": ((X[:0], Y[:0]), "selection is empty"),
    "empty Dataset": (Items(), "Items is empty"),
    "Dataset of PIL": (Items((to_pil_image(X[0]), 1)), r"PIL image. Use torchvision.transforms.ToTensor\(\)"),
    "Dataset of three": (Items((X[0], 1, {})), r"An item of the Items must be a pair \(image, label\), got 3"),
    "Dataset of mappings": (Items({"image": X[0]}), "got builtins.dict"),
    "Dataset of images": (TensorDataset(X), "got 1 things"),
    "Dataset of two sizes": (Items((X[0], 1), (X[1, :, :3], 1)), "Resize, CenterCrop"),
    "Dataset of texts": (Items((X[0], "cat")), "labels of the Items must be whole numbers; got 'cat'"),
    "loader of one-hot": (DataLoader(TensorDataset(X, F.one_hot(Y, K))), r"argmax\(1\)"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_data_that_are_refused(data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- the other arguments of evaluate ----------------------------------------------------------------------------------

LAZY = nn.Sequential(nn.Flatten(), nn.LazyLinear(K))
META = nn.Sequential(nn.Flatten(), nn.Linear(48, K, device="meta"))
HALF = nn.Sequential(nn.Flatten(), nn.Linear(48, K)).half()
MODELS: dict[str, tuple[Any, str]] = {
    "none": ([], "No model"),
    "None": (None, "got None"),
    "a class": (nn.Linear, r"The class Linear was given as a model, not an instance of it: Linear\(\)"),
    "a number": ([NET, 3], "got 3"),
    "a function": (lambda x: x, "an nn.Module"),
    "an unknown name": ("road-signs/cmm", "Did you mean 'road-signs/cnn'"),
    "numbered": ({1: NET}, "name of a model is a text, got 1"),
    "lazy": (LAZY, r"1.weight of the model has no size yet .* model\(images\[:2\]\)"),
    "meta": (META, "device 'meta', which holds no values"),
    "half": (HALF, r"torch.float16, the images torch.float32: convert the model, model.float\(\)"),
    "double": (nn.Sequential(nn.Flatten(), nn.Linear(48, K)).double(), r"torch.float64, .* model.float\(\)"),
}
OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown one": ({"stpes": 3}, "has no option 'stpes'"),
    "nearly": ({"batchsize": 3}, "Did you mean 'batch_size'"),
    "seed": ({"seed": "x"}, "seed must be a whole number of at least 0, got 'x'"),
    "batch size": ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    "half a batch": ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
    "audit": ({"audit": True}, "audit must be a whole number of at least 0, got True"),
    "labels": ({"labels": "mine"}, "labels must be one of given, predicted; got 'mine'"),
    "outputs": ({"outputs": "probs"}, "outputs must be one of logits, probabilities; got 'probs'"),
    "precision": ({"precision": "float16"}, "precision must be one of float32, bfloat16; got 'float16'"),
    "full": ({"full": "no"}, "full must be one of True, False; got 'no'"),
    "device": ({"device": "gpu"}, "cpu, cuda or cuda:N"),
    "curve": ({"curve": "8/255"}, r"curve must be a list of budgets"),
    "a point of the curve": ({"curve": ["x"]}, "curve must be a number or a fraction"),
    "limit": ({"limit": 2.5}, "limit must be a whole number of at least 1, got 2.5"),
    "suite": ({"suite": A}, r"suite is a card's name or path, a list such as .*; got PGD"),
    "an unknown suite": ({"suite": "linf-standart"}, "Did you mean 'linf-standard'"),
}


@pytest.mark.parametrize(("models", "message"), MODELS.values(), ids=MODELS.keys())
def test_models_that_are_refused(models: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run((X, Y), tmp_path / "run", models)


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS.keys())
def test_options_that_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run((X, Y), tmp_path / "run", **options)


def test_an_output_that_is_no_path() -> None:
    with pytest.raises(UserError, match="output is the path of a folder, got 3"):
        evaluate(NET, (X, Y), "fgsm", output=3)  # type: ignore[arg-type]


# --- attacks ----------------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[], Tensor]] = {
    "arrays": lambda: A(NET, X.numpy(), Y.numpy()),  # type: ignore[arg-type]
    "lists": lambda: A(NET, list(X), Y.tolist()),  # type: ignore[arg-type]
    "labels (N, 1)": lambda: A(NET, X, Y[:, None]),
    "ids": lambda: A(NET, X, Y, ids=list(range(8))),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_calls_that_are_taken(call: Callable[[], Tensor]) -> None:
    plain = A(NET, X, Y, ids=torch.arange(8)) if call is CALLS["ids"] else A(NET, X, Y)
    assert torch.equal(call(), plain)


def test_targets() -> None:
    other = (Y + 1) % K
    plain = TARGETED(NET, X, Y, targets=other)
    assert torch.equal(TARGETED(NET, X, Y, targets=other.tolist()), plain)
    few = Y != 3
    all_same = torch.full_like(Y[few], 3)
    assert torch.equal(TARGETED(NET, X[few], Y[few], targets=3), TARGETED(NET, X[few], Y[few], targets=all_same))
    one = TARGETED(NET, X[:1], 0, targets=np.int64(3))  # type: ignore[arg-type]
    assert torch.equal(one, TARGETED(NET, X[:1], Y[:1], targets=3))


BAD_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "uint8": (lambda: A(NET, (X * 255).byte(), Y), "Divide by 255"),
    "labels beyond K": (lambda: A(NET, X, Y + K), "labels must be class numbers from 0 to 4, .* got 5 to 9"),
    "beyond K, from scores": (lambda: Square(steps=2)(Oracle(NET, "scores"), X, Y + K), "got 5 to 9"),
    "beyond K, transferred": (lambda: A(NET, X, Y + K, surrogate=NET), "got 5 to 9"),
    "negative": (lambda: A(NET, X, Y - 1), "from 0 to K - 1; got -1 to 3"),
    "one-hot": (lambda: A(NET, X, F.one_hot(Y, K)), r"argmax\(1\)"),
    "target beyond K": (lambda: TARGETED(NET, X, Y, targets=99), "targets must be class numbers from 0 to 4"),
    "targets as texts": (lambda: TARGETED(NET, X, Y, targets="cat"), "targets must be whole numbers"),  # type: ignore[arg-type]
    "too few targets": (lambda: TARGETED(NET, X, Y, targets=Y[:3]), "8 images and 3 targets"),
    "target is label": (lambda: TARGETED(NET, X, Y, targets=3), "A target equals its label"),
    "too few ids": (lambda: A(NET, X, Y, ids=Y[:3]), "8 images and 3 ids"),
    "seed": (lambda: A(NET, X, Y, seed="x"), "seed must be a whole number"),  # type: ignore[arg-type]
    "batch size": (lambda: A(NET, X, Y, batch_size=0), "batch_size must be at least 1"),
    "a name": (lambda: A("road-signs/cnn", X, Y), r"robustlab.load_model\('road-signs/cnn'\)"),  # type: ignore[arg-type]
    "a class": (lambda: A(nn.Flatten, X, Y), r"not an instance of it: Flatten\(\)"),  # type: ignore[arg-type]
    "lazy": (lambda: A(nn.Sequential(nn.Flatten(), nn.LazyLinear(K)), X, Y), "has no size yet"),
    "meta": (lambda: A(META, X, Y), "holds no values"),
    "half": (lambda: A(HALF, X, Y), r"The model cannot take the images. Its weights are torch.float16"),
    "linf eps": (lambda: PGD(eps=8), "Did you mean 8/255"),
    "linf eps of a distance": (lambda: FMN(norm="linf", eps=8), "Did you mean 8/255"),
    "eps as text": (lambda: PGD(eps="abc"), "eps must be a number or a fraction"),  # type: ignore[arg-type]
    "no eps": (lambda: PGD(eps=None), "eps must be a number"),  # type: ignore[arg-type]
    "steps": (lambda: PGD(steps=2.5), "steps of at least 1, got 2.5"),  # type: ignore[arg-type]
    "restarts": (lambda: PGD(restarts="2"), "restarts of at least 1, got '2'"),  # type: ignore[arg-type]
    "norm": (lambda: PGD(norm="Linf"), "linf, l2, l1, got 'Linf'. Did you mean 'linf'"),  # type: ignore[arg-type]
    "loss": (lambda: PGD(loss="CE"), "loss must be one of"),
    "step size": (lambda: PGD(step_size="x"), "step_size must be a number"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_calls_that_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_the_classes_of_one_call_are_not_those_of_the_next() -> None:
    oracle = Oracle(NET)
    with pytest.raises(UserError):
        A(oracle, X, Y + K)
    A(oracle, X, Y)


def test_weights_of_half_the_size_that_the_model_feeds_itself_are_its_own_affair(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(48, K)).bfloat16()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x.bfloat16()).float()
            return out

    assert A(Own(), X, Y).dtype == torch.float32
    assert run((X, Y), tmp_path / "run", Own()).info["config"]["data"]["n"] == 8
