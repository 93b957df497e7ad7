"""The buffers of a module as they were: counters, observers and running means change when a model is merely asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Buffers:
    """What the buffers of a module hold now, to be put back later.

    Costs a copy of the buffers, in one piece of each type, and a comparison; only what has changed is written. Buffers
    of other than plain memory (sparse, quantised, without data) are put back where the module replaces them, not where
    it writes into them.

    >>> net = nn.BatchNorm2d(1)
    >>> before = Buffers(net)
    >>> _ = net(torch.rand(2, 1, 2, 2))
    >>> int(net.num_batches_tracked), before.restore(), int(net.num_batches_tracked)
    (1, True, 0)
    """

    def __init__(self, module: nn.Module) -> None:
        self.found = [(m, name, b) for m in module.modules() for name, b in m._buffers.items() if b is not None]
        self.groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in {id(b): b for _, _, b in self.found if _plain(b)}.values():
            self.groups.setdefault((tensor.dtype, tensor.device), []).append(tensor.data)
        self.held = {key: _joined(tensors) for key, tensors in self.groups.items()}

    def restore(self, look: bool = True) -> bool:
        """Put them back; has any of them changed? A look at a GPU waits for it: without one all there are written."""
        changed = False
        for module, name, tensor in self.found:
            if module._buffers.get(name) is not tensor:
                module._buffers[name] = tensor
                changed = True
        for key, tensors in self.groups.items():
            held = self.held[key]
            write = not look and key[1].type == "cuda" and all(map(_writable, tensors))
            if not write and torch.equal(
                _joined(tensors).view(torch.uint8), held.view(torch.uint8)
            ):  # as bytes: NaN is NaN
                continue
            changed = True
            for tensor, before in zip(tensors, held.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(before.view(tensor.shape))
        return changed


def _plain(tensor: Tensor) -> bool:
    lazy = isinstance(tensor, nn.UninitializedBuffer)
    return not lazy and tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta


def _writable(tensor: Tensor) -> bool:
    return not tensor.is_inference() and 0 not in tensor.stride()


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@contextmanager
def kept_state(model: object) -> Iterator[None]:
    """The buffers of a module are put back, also after an exception. A callable that is no module is left alone."""
    if not isinstance(model, nn.Module):
        yield
        return
    before = Buffers(model)
    try:
        yield
    finally:
        before.restore(look=False)
