"""Images in other types than float32, and in other orders of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustlab.attacks import FMN, PGD, Square
from robustlab.base.errors import UserError
from robustlab.data import load_data
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.models.classifier import check
from robustlab.threat.geometry import distance
from robustlab.threat.model import allowed
from tests.attacks.conftest import answered, small_net

QUIET = Listener(say=lambda text: None)
STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "batch, height, width, channels": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "batch last": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "a slice of every second": lambda x: torch.stack([x, x], 1).flatten(0, 1)[::2],
    "cropped": lambda x: torch.nn.functional.pad(x, (2, 2, 2, 2))[:, :, 2:-2, 2:-2],
}


@pytest.mark.parametrize("order", STRIDES)
def test_the_order_of_memory_changes_nothing(order: str, tmp_path: Path) -> None:
    net = small_net()
    x, y = answered(net, 8)
    strange = STRIDES[order](x)
    assert torch.equal(strange, x)
    for attack in (PGD(eps=0.05, steps=4), Square(eps=0.05, steps=10)):
        assert torch.equal(attack(net, strange, y), attack(net, x, y))
    options: dict[str, Any] = {"audit": 0, "keep": 1, "curve": [], "save_adversarial": True, "listener": QUIET}
    runs = [evaluate(net, (i, y), "fgsm", output=tmp_path / str(k), **options) for k, i in enumerate((strange, x))]
    assert runs[0].lines == runs[1].lines


def test_an_expanded_image_and_data_in_another_order(tmp_path: Path) -> None:
    net = small_net()
    x, y = answered(net, 1)
    many, labels = x.expand(6, -1, -1, -1), y.expand(6)
    attack = PGD(eps=0.05, steps=4)
    assert torch.equal(attack(net, many, labels), attack(net, many.clone(), labels))
    data = load_data("road-signs", limit=4)
    strange = replace(data, images=STRIDES["channels_last"](data.images.double()))
    options: dict[str, Any] = {"audit": 0, "keep": 0, "curve": [], "listener": QUIET}
    runs = [
        evaluate("road-signs/cnn", d, "fgsm", output=tmp_path / str(k), **options)
        for k, d in enumerate((strange, data))
    ]
    assert runs[0].lines == runs[1].lines


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.5), ("l1", 4.0)])
def test_points_are_inside_after_the_way_back(norm: str, eps: float, dtype: torch.dtype) -> None:
    net = small_net()
    x = answered(net, 24)[0].to(dtype)
    with torch.no_grad():
        y = net(x.float()).argmax(1)
    for attack in (PGD(norm=norm, eps=eps, steps=6), FMN(norm=norm, eps=eps, steps=12)):
        outcome = attack.run(net, x, y)
        assert outcome.images.dtype == dtype
        assert outcome.images.min() >= 0 and outcome.images.max() <= 1
        away = distance(outcome.images.double() - x.double(), norm)
        assert (away[outcome.success if attack.keep == "smallest" else slice(None)] <= allowed(eps)).all()
        with torch.no_grad():
            success = net(outcome.images.float()).argmax(1) != y
        assert (success | ~outcome.success).all() and outcome.success.any()
    assert torch.equal(PGD(norm=norm, eps=0.0)(net, x, y), x)


@pytest.mark.parametrize("dtype", [torch.uint8])
def test_whole_numbers_get_one_message(dtype: torch.dtype, tmp_path: Path) -> None:
    net = small_net()
    x, y = answered(net, 4)
    whole = (x * 255).to(dtype)
    calls: list[Callable[[], Any]] = [
        lambda: PGD()(net, whole, y),
        lambda: check(net, whole, y),
        lambda: evaluate(net, (whole, y), "fgsm", output=tmp_path / "run", listener=QUIET),
        lambda: evaluate(net, (torch.zeros_like(whole), y), "fgsm", output=tmp_path / "run", listener=QUIET),
    ]
    for call in calls:
        with pytest.raises(UserError, match="by 255"):
            call()
