"""Weights from other people's scripts, where it is plain what is meant; and from people who mean no good."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.models import load_model
from robustlab.models.weights import load_weights, read_weights

State = dict[str, Tensor]


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def of(seed: int, prefix: str = "") -> State:
    return {prefix + key: value for key, value in net(seed).state_dict().items()}


# what a file holds, and the `#KEY` that is asked of it: what comes out is net(0)
PLAIN: dict[str, tuple[Any, str]] = {
    "lightning": ({"state_dict": of(0, "model."), "epoch": 3, "callbacks": {}}, ""),
    "lightning, with a loss": ({"state_dict": of(0, "net.") | {"loss.weight": torch.ones(3)}}, ""),
    "a backbone and a head": (of(0, "backbone.") | {"head.weight": torch.ones(3)}, ""),
    "deep": ({"state_dict": of(0, "system.student.module.")}, ""),
    "detectron": ({"model": of(0), "optimizer": {"state": {}}, "iteration": 3}, ""),
    "timm": ({"state_dict": of(0), "arch": "x", "args": {}, "metric": 0.5}, ""),
    "tables in a table": ({"checkpoint": 1, "model": {"state_dict": of(0, "module.")}}, ""),
    "only an average": ({"ema": {"module": of(0), "decay": 0.9}}, ""),
    "timm's average": ({"state_dict_ema": of(0, "module.")}, ""),
    "a table of settings beside": ({"model": {"name": "x"}, "state_dict": of(0)}, ""),
    "plain, said": ({"state_dict": of(0), "state_dict_ema": of(1)}, "#state_dict"),
    "average, said": ({"state_dict": of(1), "state_dict_ema": of(0)}, "#state_dict_ema"),
    "average by prefix, said": ({"state_dict": of(1, "model.") | of(0, "ema_model.")}, "#ema_model"),
    "another key, said": ({"generator": of(1), "critic": of(0)}, "#critic"),
    "half": ({key: v.half() if v.is_floating_point() else v for key, v in of(0).items()}, ""),
    "bfloat16": ({key: v.bfloat16() if v.is_floating_point() else v for key, v in of(0).items()}, ""),
    "double": ({key: v.double() if v.is_floating_point() else v for key, v in of(0).items()}, ""),
}


@pytest.mark.parametrize("form", PLAIN)
def test_what_is_plain_is_taken(form: str, tmp_path: Path) -> None:
    content, key = PLAIN[form]
    torch.save(content, tmp_path / "w.pth")
    model = net(7)
    load_weights(model, f"{tmp_path}/w.pth{key}")
    for got, meant in zip(model.state_dict().values(), of(0).values(), strict=True):
        assert got.dtype == meant.dtype and torch.allclose(got, meant, atol=4e-3 if "float" in form else 1e-3)
    assert model.eval()(torch.rand(2, 3, 4, 4)).dtype == torch.float32


def _itself() -> dict[str, Any]:
    table: dict[str, Any] = {}
    table["state_dict"] = {"model": table}
    return table


def _nested(depth: int) -> Any:
    value: Any = of(0)
    for _ in range(depth):
        value = {"model": value}
    return value


def _quantised() -> State:
    return of(0) | {"0.weight": torch.zeros(4, 3, 3, 3, dtype=torch.int8)}


UNCLEAR: dict[str, tuple[Any, str, str]] = {
    "two averages of one": (
        {"state_dict": of(0), "state_dict_ema": of(1)},
        "",
        r"2 sets .*Say which: .*#state_dict or",
    ),
    "two prefixes": (
        {"state_dict": of(0, "model.") | of(1, "ema.")},
        "",
        r"under model\., ema\.\. Say which: .*#model",
    ),
    "no such key": ({"state_dict": of(0)}, "#ema", r"has nothing under 'ema'; it has 0\.weight"),
    "itself": (_itself(), "", "tables in tables, 8 deep or without end"),
    "deep": (_nested(50), "", "tables in tables, 8 deep or without end"),
    "a number in it": (of(0) | {"epoch": 3, "name": "x"}, "", r"2 entries that are no tensors.*: epoch \(int\)"),
    "no tensors": ({"a": 1, "model": {"b": 2}}, "", "found the keys a, model"),
    "nothing": ({}, "", "found the keys none"),
    "a list": ([of(0)], "", "holds a list"),
    "a tensor": (torch.ones(3), "", "holds a Tensor"),
    "meta": ({key: value.to("meta") for key, value in of(0).items()}, "", "without data"),
    "sparse": (
        of(0) | {"3.weight": torch.zeros(3, 16).to_sparse()},
        "",
        r"kind: 3\.weight \(file float32, sparse",
    ),
    "quantised": (_quantised(), "", r"of another kind: 0\.weight \(file int8, model float32\)"),
    "complex": (of(0) | {"3.bias": torch.zeros(3, dtype=torch.complex64)}, "", r"3\.bias \(file complex64, model"),
    "absurd": (of(0) | {"3.weight": torch.zeros(1).expand(10**6, 10**6)}, "", "of another shape"),
}


@pytest.mark.parametrize("form", UNCLEAR)
def test_what_is_not_is_one_message(form: str, tmp_path: Path) -> None:
    content, key, message = UNCLEAR[form]
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        load_weights(net(), f"{tmp_path}/w.pth{key}")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _header(size: int) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(struct.pack("<Q", size) + b"{" * 100), None)[1]


def _claim(path: Path) -> None:
    """Tensors of a terabyte in a file of some bytes."""
    header = b'{"0.weight":{"dtype":"F32","shape":[1000000,262144],"data_offsets":[0,1048576000000]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def _packed(path: Path) -> None:
    """The zip file of torch.save with a tensor of 64 MiB of zeros that takes some KiB."""
    buffer = io.BytesIO()
    torch.save({"0.weight": torch.zeros(1 << 24)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))


def _legacy(path: Path) -> None:
    """The old format, whose storage claims more than the file holds."""
    buffer = io.BytesIO()
    torch.save({"0.weight": torch.zeros(64)}, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(buffer.getvalue().replace(b"K@", b"\x8a\x05\x00\x00\x00\x00\x01"))


BOMBS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "pipe": ("a named pipe", _pipe),
    "device": ("a device", _zeros),
    "folder": ("a folder", Path.mkdir),
    "terabyte of zeros": ("cannot be read|not a whole|does not fit", _terabyte),
    "header of terabytes": ("not a whole|cannot be read", _header(1 << 42)),
    "header of 100 MB": ("not a whole|cannot be read", _header(100_000_000)),
    "claims a terabyte": ("not a whole|cannot be read", _claim),
    "packed": ("claims more than its|not a whole", _packed),
    "legacy": ("cannot be read|not a whole", _legacy),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_one_message(bomb: str, suffix: str, tmp_path: Path) -> None:
    message, make = BOMBS[bomb]
    path = tmp_path / f"w{suffix}"
    make(path)
    with pytest.raises(UserError, match=message):
        load_weights(net(), path)


CARDS = {
    "classes": ("classes = 1000000000", "at most 100,000"),
    "shape": ("shape = [3, 1000000, 1000000]", "from 1 to 65,536"),
    "wide": ("options = {width = 8000}", "does not fit"),
    "wider": ("options = {width = 1000000000}", "above 8,192"),
    "negative": ("options = {width = -3}", "does not take the options|of another shape|does not fit"),
    "text": ('options = {width = "x"}', "does not take the options"),
    "deep": ("options = " + "[" * 100_000, "not valid TOML"),
    "large": ("summary = '" + "x" * (5 << 20) + "'", "at most 4,194,304"),
}


@pytest.mark.parametrize("name", CARDS)
def test_cards_that_claim_too_much(name: str, tmp_path: Path) -> None:
    line, message = CARDS[name]
    save_file(of(0), tmp_path / "w.safetensors")
    lines = {"classes": "classes = 3", "shape": "shape = [3, 8, 8]", line.split(" ")[0]: line}
    text = "\n".join(['architecture = "cnn"', 'weights = "w.safetensors"', *lines.values()])
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_model(f"{tmp_path}/card.toml")


def test_a_card_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "card.toml")
    with pytest.raises(UserError, match="no model card"):
        load_model(f"{tmp_path}/card.toml")


def test_a_file_whose_name_has_a_hash(tmp_path: Path) -> None:
    torch.save(of(0), tmp_path / "w#1.pth")
    assert read_weights(tmp_path / "w#1.pth").keys() == of(0).keys()
    with pytest.raises(UserError, match="no weights file"):
        read_weights(tmp_path / "none.pth#1")
