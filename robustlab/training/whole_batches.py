"""BatchNorm over the batch of all processes, as one process would see it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class WholeBatches:
    """While it is entered, the BatchNorm layers of a module see the batches of all processes.

    A block like `with`; outside of it the module has its own layers again. Parameters, running statistics and their
    names stay the same objects. On GPUs torch's SyncBatchNorm does it, which a CPU has not.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        kinds = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
        self.places = [
            (parent, name, child, _whole(child, device))
            for parent in module.modules()
            for name, child in parent._modules.items()
            if type(child) in kinds and child is not None
        ]

    def __enter__(self) -> None:
        for parent, name, _, whole in self.places:
            setattr(parent, name, whole)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for parent, name, own, whole in self.places:
            own.training = whole.training
            setattr(parent, name, own)


def _whole(own: nn.Module, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(own))
    whole = WholeBatchNorm.__new__(WholeBatchNorm)
    whole.__dict__.update(own.__dict__)  # the same parameters and buffers, also where one is replaced
    return whole


class WholeBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm of any number of dimensions whose batch is that of all processes, of shares of any size."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Whatever `own` takes."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values, mean, var, count = _Normalise.apply(input.float(), self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            rate = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(var * count / (count - 1), rate)
        if self.affine:
            shape = [1, -1, *[1] * (input.ndim - 2)]
            values = torch.addcmul(self.bias.view(shape), values, self.weight.view(shape))
        else:
            values = values.clone()  # what comes next may write into it
        return cast(Tensor, values.to(input.dtype))


class _Normalise(torch.autograd.Function):
    """Normalised values, and the mean, the variance and the number of values of each channel over all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        over = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        sums = torch.cat([x.sum(over), x.new_full((1,), x.numel() / x.shape[1])])
        dist.all_reduce(sums)
        count = sums[-1]
        mean = sums[:-1] / count
        values = x - mean.view(shape)
        var = values.square().sum(over)
        dist.all_reduce(var)
        var /= count
        scale = (var + eps).rsqrt().view(shape)
        values *= scale
        ctx.save_for_backward(values, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return values, mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *of_the_rest: Tensor) -> tuple[Tensor, None]:
        values, scale, count = ctx.saved_tensors
        over = [0, *range(2, values.ndim)]
        means = torch.stack([gradient.sum(over), (gradient * values).sum(over)])
        dist.all_reduce(means)
        first, second = (means / count).view(2, *scale.shape)
        return scale * (gradient - first - values * second), None
