"""What `robustlab explain` computes: few large images at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustlab.evaluation.explaining import explain_images
from robustlab.models.cnn import cnn


class Counts(nn.Module):
    """How many images with a gradient were asked about at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.most = cnn(4, (3, 16, 16), width=4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, len(x) if x.requires_grad else 0)
        return self.net(x)  # type: ignore[no-any-return]


def test_the_gradients_of_few_large_images_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, none = Counts(), torch.rand(20, 3, 16, 16), torch.full((20,), -1)
    images = (x, none, torch.arange(20))
    for pixels, most in ((9 * 256, 9), (1 << 20, 20)):
        monkeypatch.setattr("robustlab.evaluation.explaining.PIXELS", pixels)
        model.most = 0
        explain_images(model, x[:1], none[:1], torch.arange(1), ["grad-cam", "saliency"], judged=images)
        assert model.most == most
