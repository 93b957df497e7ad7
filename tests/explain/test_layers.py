"""Which layer is found, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.explain import Layer, find_layer
from robustlab.models.classifier import Classifier


def found(net: nn.Module, *size: int) -> Layer:
    return find_layer(net.eval(), torch.rand(3, *(size or (3, 16, 16))))


def head(inputs: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 4)]


def test_names_are_those_of_the_users_own_module() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), *head(5))
    assert found(net).name == found(Classifier(net, [0.5], [0.5])).name == "1"
    assert found(net).classes == 4


class Attends(nn.Module):
    """Heads whose attention is a module of its own: its output (N, heads, T, T) looks like a map."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.qk = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 16)
        self.attention, self.head = nn.Softmax(-1), nn.Linear(8, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x).flatten(2).mT], 1)
        q, k = self.qk(self.norm(x)).unflatten(2, (2, 2, 4)).permute(2, 0, 3, 1, 4)
        x = x + (self.attention(q @ k.mT) @ x.unflatten(2, (2, 4)).transpose(1, 2)).transpose(1, 2).flatten(2)
        return self.head(x[:, 0])  # type: ignore[no-any-return]


def test_an_attention_matrix_is_no_map() -> None:
    layer = found(Attends())
    assert (layer.name, layer.grid, layer.outside) == ("qk", (4, 4), 1)


class ChannelsLast(nn.Module):
    """A norm over the last dimension gives (N, h, w, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))  # type: ignore[no-any-return]


def test_channels_are_not_taken_for_places() -> None:
    assert found(ChannelsLast()).name == "conv"


class Unused(nn.Module):
    """The last map to be computed is thrown away, and one module is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.ReLU(inplace=True)
        self.aside, self.head = nn.Conv2d(6, 2, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.b(self.relu(self.a(x))))
        self.aside(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_what_the_logits_do_not_use_is_passed_over_and_the_last_call_counts() -> None:
    layer = found(Unused())
    assert (layer.name, layer.grid) == ("relu", (12, 12))


def test_odd_sizes_keep_their_proportions() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=3), nn.Conv2d(4, 4, 3, stride=2, padding=1), *head(4))
    assert found(net, 1, 41, 23).grid == (7, 4)


class Program(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), *head(5)).eval()
        self.inner = torch.export.export(net, (torch.rand(3, 3, 16, 16),)).module()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> nn.Module:
        return self  # an exported program has no modes to change


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 9), nn.ReLU(), nn.Linear(9, 4))


@pytest.mark.parametrize("net", [linear, pytest.param(Program, marks=pytest.mark.slow)])
def test_no_map_at_all(net: Callable[[], nn.Module]) -> None:
    with pytest.raises(UserError, match="No layer of the model gives a map of the image.*linear layers"):
        found(net())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rellu", "no layer 'rellu'. Did you mean 'relu'?.*head"),
        ("head", r"output of the layer 'head' is of shape \(3, 4\)"),
        ("spare", "'spare' is not called"),
        ("lstm", "output of the layer 'lstm' is a tuple"),
        ("tokens", r"output of the layer 'tokens' is of shape \(3, 7, 6\)"),
    ],
)
def test_a_layer_that_cannot_be_drawn_is_said(name: str, message: str) -> None:
    class Net(Unused):
        def __init__(self) -> None:
            super().__init__()
            self.spare, self.lstm, self.tokens = nn.ReLU(), nn.LSTM(6, 6, batch_first=True), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.a(x))
            self.lstm(self.tokens(x.flatten(2).mT[:, :7]))
            return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    with pytest.raises(UserError, match=message):
        find_layer(Net(), torch.rand(3, 3, 16, 16), name)


def test_what_returns_no_logits_is_said() -> None:
    with pytest.raises(UserError, match=r"logits of shape \(3, K\).*\(3, 5, 14, 14\)"):
        found(nn.Sequential(nn.Conv2d(3, 5, 3)))
