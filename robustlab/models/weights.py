"""Reading and writing the parameters of a module: safetensors, or a .pth file that may hold nothing but tensors."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robustlab.errors import UserError
from robustlab.files import replacing

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")  # nn.DataParallel and DistributedDataParallel; torch.compile


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors in a `.safetensors` or `.pth` file, without wrappers and wrappers' prefixes.

    A .pth file is read with `weights_only=True`, so that nothing in it can run. Raises UserError.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no weights file {str(path)!r}.")
    content: Any
    if path.suffix == ".safetensors":
        try:
            content = load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is not a whole safetensors file: {error}.") from error
    else:
        content = _read_pickle(path)
    while isinstance(content, Mapping) and not _is_state(content):
        inner = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            raise UserError(
                f"{path} holds no state_dict: expected names with tensors, or such a table under one of"
                f" {', '.join(_WRAPPERS)}; found the keys {_some([str(key) for key in content])}."
            )
        content = content[inner]
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state_dict. Save model.state_dict().")
    state = {str(key): value for key, value in content.items()}
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(value, Tensor) for value in content.values())


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # what torch warns of, the messages below say
            return torch.load(path, map_location="cpu", weights_only=True)
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
    """Fill a module with tensors by name, which were read from `path`; see `load_weights`."""
    wanted = module.state_dict()
    # files written before PyTorch 0.4.1 lack BatchNorm's counter, which no prediction depends on
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted]
    unlike = [
        f"{key} (file {tuple(given[key].shape)}, model {tuple(wanted[key].shape)})"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    if missing or unexpected or unlike:
        found = [("missing", missing), ("unexpected", unexpected), ("of another shape", unlike)]
        lines = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in found if keys]
        raise UserError(
            f"{path} does not fit the model ({len(wanted)} tensors). {'; '.join(lines)}. Are architecture, its options"
            " and the number of classes those it was trained with?"
        )
    whole = OrderedDict(given)
    # some modules ask which version of theirs wrote the names; they are those of the present one
    whole._metadata = wanted._metadata  # type: ignore[attr-defined]
    module.load_state_dict(whole, strict=False)


def save_weights(module: nn.Module, path: Path, *, half: bool = False) -> None:
    """Write a module's state_dict as safetensors, whole or not at all. half: floats rounded to float16."""
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    with replacing(path) as file:
        file.write(save(state))


def _some(names: list[str], most: int = 6) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
