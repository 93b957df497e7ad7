"""Exported programs: the `.pt2` files that `torch.export.save` writes.

Reading one can run code that somebody put into it: `torch.export.load` unpickles what it finds there and evaluates
expressions. Take such a file, like a FILE.py, only from people whose code you would run.
"""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from robustlab.base.errors import UserError
from robustlab.models.classifier import Classifier

_AGAIN = "Export the model again: torch.export.save(torch.export.export(model.eval(), (images,)), FILE)."


class Exported(nn.Module):
    """An exported program as a module that takes any number of images.

    A program may be bound to one batch size, or to a range of them: more images go through it in pieces, fewer are
    filled up with copies of the last one, whose outputs are dropped. least, most: that range; most None for no bound.
    It has one mode, the one in which it was exported, so `train` and `eval` change nothing.
    """

    def __init__(self, program: nn.Module, least: int = 1, most: int | None = None) -> None:
        super().__init__()
        self.program, self.least, self.most = program, least, most
        for module in self.modules():
            module.training = False

    def train(self, mode: bool = True) -> Self:
        return self

    def forward(self, x: Tensor) -> Any:
        outs = [self._piece(piece) for piece in x.split(self.most or max(len(x), 1))]
        return torch.cat(outs) if all(isinstance(out, Tensor) for out in outs) else outs[0]

    def _piece(self, x: Tensor) -> Any:
        missing = self.least - len(x)
        if missing <= 0:
            return self.program(x)
        out = self.program(torch.cat([x, x[-1:].detach().expand(missing, *x.shape[1:])]))
        return out[: len(x)] if isinstance(out, Tensor) else out


def load_exported(path: Path) -> Classifier:
    """The classifier in a `.pt2` file; its image size is read from the program, where that is fixed. Raises UserError.

    Needs a program of one input, the images, that was exported in eval mode; its class names are not known. One that is
    bound to a single image is several times slower than one exported with
    `dynamic_shapes=({0: torch.export.Dim("n")},)`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "net.pt2"
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    >>> torch.export.save(torch.export.export(net, (torch.rand(1, 3, 2, 2),)), path)
    >>> model = load_exported(path)
    >>> model.shape, model(torch.rand(5, 3, 2, 2)).shape
    ((3, 2, 2), torch.Size([5, 3]))
    """
    program = _read(path)
    signature = program.graph_signature
    if len(signature.user_inputs) != 1:
        raise UserError(
            f"{path} takes {len(signature.user_inputs)} inputs ({', '.join(map(str, signature.user_inputs))}); a"
            " classifier takes one, the images. Export a module whose forward takes images only."
        )
    if any(_trains(node) for node in program.graph.nodes):
        raise UserError(f"{path} was exported in training mode (BatchNorm or dropout is at work in it). {_AGAIN}")
    dims = next(node for node in program.graph.nodes if node.name == signature.user_inputs[0]).meta["val"].shape
    if len(dims) != 4:
        raise UserError(f"{path} takes inputs of {len(dims)} dimensions; images have four: (N, C, H, W).")
    fixed = [int(n) for n in dims[1:] if isinstance(n, int)]
    shape = (fixed[0], fixed[1], fixed[2]) if len(fixed) == 3 else None
    return Classifier(Exported(program.module(), *_batch(program, dims[0])), shape=shape)


def _batch(program: ExportedProgram, size: Any) -> tuple[int, int | None]:
    """The fewest and the most images that a program takes at a time."""
    if isinstance(size, int):
        return size, size
    bounds = program.range_constraints.get(size.node.expr)
    if bounds is None:  # an expression, such as twice some number: the program itself says what it refuses
        return 1, None
    return max(1, int(bounds.lower)), int(bounds.upper) if bounds.upper.is_Integer else None


def _trains(node: Node) -> bool:
    """Whether an operator was told to behave as in training, which an exported program does for good."""
    schema = getattr(node.target, "_schema", None)
    named = zip(schema.arguments, node.args, strict=False) if schema is not None else ()
    return any(argument.name in ("train", "training") and value is True for argument, value in named)


def _read(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise UserError(f"There is no exported program {str(path)!r}.")
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if any("/code/" in name for name in names):
        raise UserError(f"{path} holds a TorchScript module, which is not supported. {_AGAIN}")
    if any("/data/aotinductor/" in name for name in names):
        raise UserError(f"{path} holds compiled code, through which no gradient flows. {_AGAIN}")
    log = logging.getLogger("torch.export")
    disabled, log.disabled = log.disabled, True  # it logs a traceback of what is said below in one sentence
    try:
        return torch.export.load(path)
    except Exception as error:  # whatever the damaged or foreign part of a file makes the reader raise
        raise UserError(
            f"{path} cannot be read as an exported program ({type(error).__name__}: {error}). Expected a whole file"
            f" that torch.export.save wrote under about this version of PyTorch ({torch.__version__}). {_AGAIN}"
        ) from error
    finally:
        log.disabled = disabled
