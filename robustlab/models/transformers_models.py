"""hf:FOLDER and hf:NAME: image classifiers of the package transformers, with the preprocessing of their processor.

A folder is one that `save_pretrained` writes, of the model and of its image processor. Code that lies in a repository
is never run, and no file is read that could run code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from robustlab.base.errors import UserError, spelled
from robustlab.base.lazy import optional
from robustlab.base.memory import of_the_machine
from robustlab.base.words import first_line, some
from robustlab.models.classifier import Classifier
from robustlab.models.processors import preprocessing
from robustlab.models.weights import read_weights

Shape = tuple[int, int, int]


def load_transformers(
    name: str,
    weights: str | Path | None = None,
    download: bool = False,
    *,
    outputs: int | None = None,
    shape: Shape | None = None,
    options: Mapping[str, Any] | None = None,
) -> Classifier:
    """An image classifier of transformers: images in [0, 1] (N, C, H, W) -> logits (N, K).

    name: the path of a folder, or a name on Hugging Face's hub, which must lie in its cache unless `download` is set.
    weights: a file; `random`, a function of nothing but the configuration; default: those of the folder. Normalisation,
    order of the channels and image size are what the image processor makes of images (see `preprocessing`), class names
    those of the configuration. Where the processor crops or stretches, the model's notes say it. outputs, shape: must
    be the model's. options: none are taken. Raises UserError.
    """
    if options:
        raise UserError(f"hf:{name} takes no options: its config.json says how it is built. Change that.")
    if Path(name).is_dir() and not Path(name, "config.json").is_file():
        raise UserError(
            f"hf:{name} is a folder without config.json. Give one that save_pretrained of transformers wrote."
        )
    hub, only_here = optional("transformers", "hf"), {"trust_remote_code": False, "local_files_only": not download}
    with _quiet(hub.utils.logging), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with _said(name, "configuration", download):
            config = hub.AutoConfig.from_pretrained(name, **only_here)
        _check(name, config, hub, outputs)
        with _said(name, "image processor (preprocessor_config.json)", download):
            processor = hub.AutoImageProcessor.from_pretrained(name, **only_here)
        found = preprocessing(processor, getattr(config, "num_channels", 3), f"hf:{name}")
        with _said(name, "model", download):
            module = _module(name, weights, config, hub, only_here)
    names = [str(config.id2label.get(k, k)) for k in range(config.num_labels)]
    unnamed = len(names) < 2 or names == [f"LABEL_{k}" for k in range(len(names))]
    if found.reversed:
        module = _Reversed(module)
    model = Classifier(module, found.mean, found.std, classes=None if unnamed else names, shape=found.shape)
    model.notes = found.notes
    return model


def _check(name: str, config: Any, hub: Any, outputs: int | None) -> None:
    """A UserError where the configuration is of something else than an image classifier of one class an image."""
    if type(config) not in hub.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        written = some(config.architectures or [f"of the type {config.model_type}"], 2)
        raise UserError(f"hf:{name} is no image classifier of transformers but {written}.")
    single = outputs == config.num_labels == 1  # trained as several yes or no, of which there is one
    taken = (None, "single_label_classification", *(["multi_label_classification"] if single else []))
    if (kind := getattr(config, "problem_type", None)) not in taken:
        raise UserError(f"hf:{name} is trained for {kind}, and one class an image is expected.")
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(f"hf:{name} is quantised, so that it has no gradient. Give the model that it was made of.")
    if "/" in str(getattr(config, "_attn_implementation", None)):
        raise UserError(
            f"hf:{name} names code on the hub for its attention ({config._attn_implementation}), which is never run:"
            " remove attn_implementation from its config.json."
        )
    if outputs not in (None, config.num_labels):
        raise UserError(f"hf:{name} has {config.num_labels} classes, and {outputs} were given.")


def _module(name: str, weights: str | Path | None, config: Any, hub: Any, only_here: Mapping[str, Any]) -> nn.Module:
    """The module with its weights, of which none is missing; transformers brings them to its present names."""
    auto = hub.AutoModelForImageClassification
    how = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    if weights is None:  # weights_only: a .bin file that holds more than tensors is refused
        module, info = auto.from_pretrained(name, weights_only=True, **how, **only_here)
    else:
        module = auto.from_config(config, trust_remote_code=False, dtype=torch.float32)
        if str(weights) == "random":
            return cast(nn.Module, module)
        module, info = type(module).from_pretrained(None, state_dict=read_weights(weights), **how)
    wrong = [*info["missing_keys"], *(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])]
    if wrong:
        raise UserError(
            f"{weights or 'hf:' + name} holds other weights than those of an image classifier: {len(wrong)} tensors are"
            f" missing or of another shape: {some(sorted(wrong), 6)}. The configuration is of"
            f" {some(config.architectures or ['no network'], 2)}: give a model that was trained to classify images."
        )
    return cast(nn.Module, module)


class _Reversed(nn.Module):
    """A module that takes the channels in the order blue, green, red."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> Any:
        return self.module(x.flip(1))


@contextmanager
def _said(name: str, what: str, download: bool) -> Iterator[None]:
    """What transformers raises, as a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of as many kinds as there are models
        if of_the_machine(error):
            raise
        if Path(name).is_dir() or not isinstance(error, OSError):
            raise UserError(f"The {what} of hf:{name} cannot be loaded: {first_line(error)}") from error
        if download:
            raise UserError(f"The {what} of hf:{name} could not be downloaded: {first_line(error)}") from error
        raise UserError(
            f"hf:{name}: there is no folder {name}, and the {what} of no such model is on this machine. Give a folder"
            f" that save_pretrained of transformers wrote, or let it be downloaded ({spelled('download', True)})."
        ) from error


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without the progress bars and the warnings of transformers; what matters here is checked."""
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
