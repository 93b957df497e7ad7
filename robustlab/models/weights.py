"""Reading and writing the parameters of a module: safetensors, or a .pth file that may hold nothing but tensors."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustlab.base.errors import UserError
from robustlab.base.reading import check_safetensors, open_regular
from robustlab.base.words import some

# under which keys training scripts keep a state_dict; and the moving average of the weights beside it
_PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params", "weights")
_AVERAGES = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "model_ema_state_dict", "params_ema", "ema")
_PREFIXES = ("module.", "_orig_mod.")  # nn.DataParallel and DistributedDataParallel; torch.compile
_WRAPPED = 8  # tables in tables; a table may also hold itself


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors in a `.safetensors` or `.pth` file, without wrappers and wrappers' prefixes.

    path: FILE, or FILE#KEY for one of several tables in it, or the tensors whose names begin with `KEY.`. A .pth file
    is read with `weights_only=True`, so that nothing in it can run. Tensors are not read before they are used. Raises
    UserError.
    """
    place, chosen = Path(path), ""
    if not place.exists() and "#" in place.name:
        place, chosen = place.with_name(place.name.rpartition("#")[0]), place.name.rpartition("#")[2]
    content: Any
    try:
        if place.suffix == ".safetensors":
            check_safetensors(place)
            content = load_file(place)
        else:
            content = _read_pickle(place)
    except FileNotFoundError:
        raise UserError(f"There is no weights file {str(path)!r}.") from None
    except (SafetensorError, MemoryError, OSError) as error:
        raise UserError(f"{place} is not a whole safetensors file: {error}.") from error
    content, chosen = _unwrapped(content, chosen, place)
    state = {str(key): value for key, value in content.items()}
    if empty := [key for key, value in state.items() if isinstance(value, Tensor) and value.is_meta]:
        raise UserError(f"{place} holds {len(empty)} tensors without data (of the device meta): {some(empty, 6)}.")
    if chosen:
        if not (inner := {k: v for k, v in state.items() if k.startswith(f"{chosen}.")}):
            raise UserError(f"{place} has nothing under {chosen!r}; it has {some(list(state), 6)}.")
        state = {key.removeprefix(f"{chosen}."): value for key, value in inner.items()}
    while prefix := next((p for p in _PREFIXES if state and all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _unwrapped(content: Any, chosen: str, path: Path) -> tuple[Mapping[Any, Any], str]:
    """The table of tensors in what a file holds, and `chosen` where no table of that name was on the way there."""
    for _ in range(_WRAPPED):
        if not isinstance(content, Mapping):
            raise UserError(f"{path} holds a {type(content).__name__}, not a state_dict. Save model.state_dict().")
        if chosen and isinstance(content.get(chosen), Mapping):
            content, chosen = content[chosen], ""
            continue
        if _is_state(content):
            return content, chosen
        plain, averages = ([key for key in keys if _holds(content.get(key))] for keys in (_PLAIN, _AVERAGES))
        found = [*plain, *averages]
        if len(found) > 1:
            means = f" ({', '.join(averages)}: a moving average over the training)" if averages else ""
            raise UserError(
                f"{path} holds {len(found)} sets of weights, {', '.join(found)}{means}. Say which: {path}#{found[0]} or"
                f" {path}#{found[1]}."
            )
        if not found:
            _refuse(content, path)
        content = content[found[0]]
    raise UserError(f"{path} holds tables in tables, {_WRAPPED} deep or without end. Save model.state_dict().")


def _refuse(content: Mapping[Any, Any], path: Path) -> NoReturn:
    """The UserError for a file that holds no table of tensors; it says what is there."""
    others = [f"{key} ({type(value).__name__})" for key, value in content.items() if not isinstance(value, Tensor)]
    if content and len(others) < len(content):
        raise UserError(
            f"{path} holds {len(others)} entries that are no tensors, beside {len(content) - len(others)} that are:"
            f" {some(others, 6)}. Save model.state_dict()."
        )
    raise UserError(
        f"{path} holds no state_dict: expected names with tensors, or such a table under one of"
        f" {', '.join((*_PLAIN, *_AVERAGES))}; found the keys {some([str(key) for key in content], 6) or 'none'}."
    )


def _is_state(content: Mapping[Any, Any]) -> bool:
    """Names and tensors only; what a module's get_extra_state adds may be anything."""
    values = [value for key, value in content.items() if not str(key).endswith("_extra_state")]
    return bool(values) and all(isinstance(value, Tensor) for value in values)


def _holds(content: Any, depth: int = _WRAPPED) -> bool:
    """Are there tensors in this table, or in one that it wraps?"""
    if not isinstance(content, Mapping) or not depth:
        return isinstance(content, Mapping)  # too deep: `_unwrapped` says so
    if any(isinstance(value, Tensor) for value in content.values()):
        return True
    return any(_holds(content.get(key), depth - 1) for key in (*_PLAIN, *_AVERAGES) if key in content)


def _read_pickle(path: Path) -> Any:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        zipped = zipfile.is_zipfile(file)
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > size:
                    raise UserError(
                        f"{path} was not read: it claims more than its {size:,} bytes hold. torch.save packs nothing."
                    )
        with warnings.catch_warnings(action="ignore"):  # what torch warns of, the messages below say
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UserError:
        raise
    except Exception as error:  # torch.load raises whatever the damaged part of a file makes it raise
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            raise UserError(
                f"{path} holds Python objects, and reading those could run code, so it was not read. Where you trust"
                " it, load it yourself and save the tensors: torch.save(model.state_dict(), FILE) or"
                " safetensors.torch.save_file(model.state_dict(), FILE)."
            ) from error
        raise UserError(
            f"{path} cannot be read as weights: it is damaged, cut off, or of another kind ({type(error).__name__})."
            " Expected .safetensors, or what torch.save(model.state_dict(), FILE) writes."
        ) from error


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Fill a module from a file; every name and shape that does not fit is named in one `UserError`."""
    load_state(module, read_weights(path), path)


def load_state(module: nn.Module, given: Mapping[str, Tensor], path: str | Path) -> None:
    """Fill a module with tensors by name, which were read from `path`; see `load_weights` and `check_fit`."""
    whole = OrderedDict(check_fit(module, given, path))
    # some modules ask which version of them wrote the names: the present one
    whole._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(whole, strict=False)


def check_fit(module: nn.Module, given: Mapping[str, Tensor], path: str | Path) -> Mapping[str, Tensor]:
    """The tensors of a file by the module's own names; a UserError names all that does not fit.

    Names may have a prefix (`model.`, `backbone.` ...) if all of the module's tensors are there under it alone.
    Floating-point numbers are rounded to the module's own type, half precision to float32.
    """
    wanted = module.state_dict()
    # files written before PyTorch 0.4.1 lack BatchNorm's counter, which no prediction depends on
    needed = {key: value for key, value in wanted.items() if not key.endswith("num_batches_tracked")}
    given = _without_prefix(given, needed, path)
    shaped = [key for key, value in wanted.items() if not is_lazy(value)]  # lazy ones take the shape of the file's
    pairs = [(key, given[key], wanted[key]) for key in shaped if isinstance(given.get(key), Tensor)]
    found = {
        "missing": [key for key in needed if key not in given],
        "unexpected": [key for key in given if key not in wanted],
        "of another shape": [
            f"{key} (file {tuple(there.shape)}, model {tuple(here.shape)})"
            for key, there, here in pairs
            if there.shape != here.shape
        ],
        "of another kind": [
            f"{key} (file {_said(there)}, model {_said(here)})"
            for key, there, here in pairs
            if there.shape == here.shape and _kind(there) != _kind(here)
        ],
    }
    if any(found.values()):
        lines = [f"{len(keys)} {what}: {some(keys, 6)}" for what, keys in found.items() if keys]
        raise UserError(
            f"{path} does not fit the model ({len(wanted)} tensors). {'; '.join(lines)}. Are architecture, its options"
            " and the number of classes those it was trained with?"
        )
    return given


def _without_prefix(given: Mapping[str, Tensor], needed: Mapping[str, Any], path: str | Path) -> Mapping[str, Tensor]:
    """The tensors under the one prefix under which all that the module needs is there; as they are without such."""
    if not needed or needed.keys() <= given.keys():
        return given
    longest = max(needed, key=len)
    prefixes = [key.removesuffix(longest) for key in given if key.endswith(f".{longest}")]
    fitting = [p for p in prefixes if all(_alike(given.get(p + key), value) for key, value in needed.items())]
    if len(fitting) > 1:
        first, second = (prefix.removesuffix(".") for prefix in fitting[:2])
        raise UserError(
            f"{path} holds {len(fitting)} sets of weights that fit the model, under {', '.join(fitting)}. Say which:"
            f" {path}#{first} or {path}#{second}."
        )
    if not fitting:
        return given
    return {key.removeprefix(fitting[0]): value for key, value in given.items() if key.startswith(fitting[0])}


def _alike(there: Any, here: Any) -> bool:
    return not isinstance(here, Tensor) or (isinstance(there, Tensor) and there.shape == here.shape)


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    """What must agree between a file's tensor and a module's: not the precision of floating-point numbers."""
    return "float" if tensor.is_floating_point() else tensor.dtype, tensor.layout


def _said(tensor: Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    return kind if tensor.layout == torch.strided else f"{kind}, {str(tensor.layout).removeprefix('torch.')}"


def packed_weights(module: nn.Module, *, half: bool = False) -> bytes:
    """A module's state_dict as a safetensors file. half: floats rounded to float16."""
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    return save(state)
