"""What a module's state_dict holds, as bytes for a hash: tensors of any kind, and what is no tensor.

Nothing is pickled: a pickle runs code, and depends on versions. What is left of an object without a value of its own is
its kind and its attributes, never its address in memory.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+|\b0x[0-9a-fA-F]{6,}")


def pieces(value: Any, seen: tuple[int, ...] = ()) -> Iterator[bytes]:
    """The bytes of a value, the same in every process. seen: what the value lies in, against circles.

    >>> a, b = ({"scale": torch.ones(2), "sizes": (3, 4)} for _ in range(2))
    >>> b"".join(pieces(a)) == b"".join(pieces(b)) != b"".join(pieces({**a, "sizes": (3, 5)}))
    True
    """
    if isinstance(value, Tensor):
        yield from _tensor(value, seen)
        return
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if id(value) in seen:
        yield f"<{kind} again>".encode()
        return
    inside = (*seen, id(value))
    if isinstance(value, bytes | bytearray):
        yield f"{kind} {len(value)}\n".encode() + bytes(value)
    elif isinstance(value, io.BytesIO):
        yield from pieces(value.getvalue(), inside)
    elif isinstance(value, Mapping):
        items = [(b"".join(pieces(key, inside)), each) for key, each in value.items()]
        yield from _sequence(
            kind, (part for key, each in sorted(items, key=lambda i: i[0]) for part in (key, each)), inside
        )
    elif isinstance(value, list | tuple):
        yield from _sequence(kind, value, inside)
    elif isinstance(value, set | frozenset):
        yield from _sequence(kind, sorted(b"".join(pieces(each, inside)) for each in value), inside)
    elif hasattr(value, "__getstate__") and isinstance(
        value, torch.ScriptObject
    ):  # the packed weights of quantised layers
        yield from _sequence(kind, [value.__getstate__()], inside)
    elif hasattr(value, "__array_interface__") and hasattr(value, "tobytes"):  # an array of NumPy's
        yield f"{kind} {value.dtype} {value.shape}\n".encode() + value.tobytes()
    else:
        text = repr(value)
        plain = f"{kind} {text}\n" if not _ADDRESS.search(text) else f"{kind}\n"
        yield plain.encode()
        if plain == f"{kind}\n" and hasattr(value, "__dict__"):
            yield from pieces(vars(value), inside)


def _sequence(kind: str, parts: Any, seen: tuple[int, ...]) -> Iterator[bytes]:
    yield f"{kind} (\n".encode()
    for each in parts:
        yield from pieces(each, seen)
    yield b")\n"


def _tensor(value: Tensor, seen: tuple[int, ...]) -> Iterator[bytes]:
    """Type, shape and bytes; of tensors that are not plain memory, those of what they are made of."""
    value = value.detach()
    yield f"{value.dtype} {tuple(value.shape)}\n".encode()
    if value.is_quantized:
        if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            scales: list[Any] = [value.q_scale(), value.q_zero_point()]
        else:
            scales = [value.q_per_channel_scales(), value.q_per_channel_zero_points(), value.q_per_channel_axis()]
        yield from _sequence("quantised", [*scales, value.int_repr()], seen)
    elif value.layout in (torch.sparse_coo,):
        value = value.coalesce()
        yield from _sequence("sparse", [value.indices(), value.values()], seen)
    elif value.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from _sequence("sparse", [value.crow_indices(), value.col_indices(), value.values()], seen)
    elif value.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from _sequence("sparse", [value.ccol_indices(), value.row_indices(), value.values()], seen)
    elif hasattr(value, "__tensor_flatten__"):  # a subclass with tensors inside
        names, context = value.__tensor_flatten__()
        yield from _sequence(type(value).__qualname__, [*(getattr(value, name) for name in names), context], seen)
    else:
        plain = value.to_dense() if value.is_mkldnn else value
        yield plain.cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy().tobytes()
