"""The training loop: plain training, or what a defense makes of each batch. Resumable, and repeatable after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.data import Data, load_data
from robustlab.defenses import make_defense
from robustlab.draws import keys
from robustlab.environment import resolve_device
from robustlab.errors import RunError, UserError
from robustlab.models import load_model
from robustlab.models.card import ModelCard
from robustlab.models.classifier import Classifier, check
from robustlab.models.loading import build
from robustlab.training.batches import augmented, learning_rate, shuffled
from robustlab.training.checks import collapse, loss_and_accuracy, under_attack
from robustlab.training.folder import TrainFolder, finish, model_card
from robustlab.training.recipe import Recipe
from robustlab.typed import check_whole

Entry = dict[str, Any]
DEFAULT_EPS = 8 / 255


@dataclass(frozen=True)
class Trained:
    """What training left: its folder, the card of the best model, and one entry of the history an epoch."""

    output: Path
    card: ModelCard
    history: list[Entry]
    best_epoch: int
    seconds: float
    warnings: list[str]


def train(
    architecture: str,
    data: str | tuple[Data, Data],
    recipe: Recipe | None = None,
    *,
    output: str | Path,
    name: str = "model",
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    data_root: str | Path | None = None,
    download: bool = False,
    size: int | tuple[int, int] | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    command: str = "",
    on_epoch: Callable[[Entry], None] | None = None,
) -> Trained:
    """Train a registered architecture and write model, card, history and curve into the folder `output`.

    data: a name for `load_data` (which also takes data_root, download, size, workers and skip_bad), or (training data,
    validation data). The kept checkpoint is that of the epoch with the
    best validation accuracy: under PGD where the recipe has a defense, else on clean images. on_epoch: is shown each
    entry of the history. With the same seed, machine and number of threads a resumed run ends with the same weights as
    an uninterrupted one. CUDA trains in bfloat16 autocast. Raises UserError, RunError.

    >>> import tempfile
    >>> recipe = Recipe(epochs=1, train_size=64, val_size=32, check_size=16)
    >>> done = train("cnn", "road-signs", recipe, output=Path(tempfile.mkdtemp()) / "run", device="cpu")
    >>> done.best_epoch, sorted(path.name for path in done.output.iterdir())
    (1, ['curve.png', 'curve.svg', 'history.json', 'model.safetensors', 'model.toml', 'run.json'])
    """
    recipe = recipe or Recipe()
    check_whole("seed", seed, 0)
    place = resolve_device(device)
    if recipe.defense:
        make_defense(recipe.defense)  # a bad table is said before data are read
    if isinstance(data, str):
        options: dict[str, Any] = {"data_root": data_root, "download": download}
        options |= {"size": size, "workers": workers, "skip_bad": skip_bad}
        train_data = load_data(data, "train", recipe.train_size, **options)
        if not isinstance(train_data.images, Tensor):  # files of any kind: as those that are trained on
            options |= {"size": tuple(train_data.images.shape[2:]), "channels": train_data.images.shape[1]}
        val_data = load_data(data, "val", recipe.val_size, **options)
    else:
        train_data, val_data = (_first(d, n) for d, n in zip(data, (recipe.train_size, recipe.val_size), strict=True))
    if bool((train_data.labels < 0).any()):
        raise UserError(
            f"{train_data.name} has no class folders, and so nothing to learn: put images into one a class."
        )
    if len(train_data) < 2:
        raise UserError(f"Training needs at least 2 images, got {len(train_data)}.")
    threat = train_data.threat
    eps = threat.eps if threat.norm == "linf" else DEFAULT_EPS
    if recipe.defense:  # the data set's own budget, unless the recipe or a flag says otherwise
        recipe = replace(recipe, defense={"eps": eps, **recipe.defense})
    defense = make_defense(recipe.defense) if recipe.defense else None
    model, options = _fresh(architecture, train_data, recipe, seed)
    for each in (train_data, val_data):
        check(model, each.images[:2], each.labels)
    config = {
        "architecture": architecture,
        "options": options,
        "init_hash": model.hash(),
        "data": train_data.name,
        "data_hash": [train_data.hash, val_data.hash],
        "n": [len(train_data), len(val_data)],
        "recipe": asdict(recipe),
        "seed": seed,
    }
    with TrainFolder(Path(output), config, command=command, resume=resume, overwrite=overwrite) as folder:
        if not folder.finished:
            session = _Session(
                model, train_data, val_data, recipe, defense, defense.eps if defense else eps, seed, place
            )
            session.run(folder, on_epoch)
            best, seconds = session.best_entry, session.seconds
            finish(
                folder,
                model,
                model_card(model, config, train_data, best, session.eps, place, seconds, name),
                history=session.history,
                best_epoch=best["epoch"],
                warnings=session.warnings,
                seconds=seconds,
                device=place,
            )
        card, history, best_epoch, seconds, warnings = folder.read()
    return Trained(folder.folder, card, history, best_epoch, seconds, warnings)


def _first(data: Data, limit: int | None) -> Data:
    return data if limit is None or limit >= len(data) else data.take(torch.arange(limit))


def _on(data: Data, device: torch.device) -> Data:
    """The data on a device; images that lie on the disk stay there."""
    images = data.images.to(device) if isinstance(data.images, Tensor) else data.images
    return replace(data, images=images, labels=data.labels.to(device), ids=data.ids.to(device))


def _fresh(architecture: str, data: Data, recipe: Recipe, seed: int) -> tuple[Classifier, dict[str, Any]]:
    """The classifier before the first step, and the options of its architecture."""
    channels, high, wide = data.images.shape[1:]
    shape = (channels, high, wide)
    options = {"dropout": recipe.dropout} if recipe.dropout else {}
    module = build(architecture, len(data.classes), shape, options, seed)
    # of a set that lies on the disk, the first thousand say enough
    images = data.images if isinstance(data.images, Tensor) else data.images[:1000]
    mean = [round(float(v), 4) for v in images.mean((0, 2, 3))]
    std = [round(max(float(v), 1e-3), 4) for v in images.std((0, 2, 3))]
    if recipe.init:
        start = load_model(recipe.init)
        try:
            module.load_state_dict(start.module.state_dict())
        except RuntimeError as error:
            raise UserError(
                f"init {recipe.init!r} does not fit a {architecture} for {len(data.classes)} classes of images"
                f" {shape}: {error}"
            ) from error
        mean, std = start.mean.flatten().tolist(), start.std.flatten().tolist()
    return Classifier(module, mean, std, classes=data.classes, shape=shape, name=architecture), options


class _Session:
    """The state of one training: what a checkpoint holds, and the steps that change it."""

    def __init__(
        self,
        model: Classifier,
        train_data: Data,
        val_data: Data,
        recipe: Recipe,
        defense: Any,
        eps: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.recipe, self.defense, self.seed, self.device = recipe, defense, seed, device
        # convolutions on channels_last took 0.75-0.85 of the time on a CPU (cnn, resnet20), and suit tensor cores
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.train_data, self.val_data = _on(train_data, device), _on(val_data, device)
        self.eps = eps
        self.kernels = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.SGD(
            [{"params": self.kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
        )
        self.history: list[Entry] = []
        self.warnings: list[str] = list(dict.fromkeys([*train_data.notes, *val_data.notes]))
        self.best_entry: Entry = {}
        self.best_state: dict[str, Tensor] = {}
        self.seconds = 0.0

    def run(self, folder: TrainFolder, on_epoch: Callable[[Entry], None] | None) -> None:
        """All epochs that are left, a checkpoint after each; then the best epoch's weights in the model."""
        if (saved := folder.checkpoint()) is not None:
            self._restore(saved)
        for epoch in range(len(self.history) + 1, self.recipe.epochs + 1):
            began = time.perf_counter()
            entry = {"epoch": epoch, **self._epoch(epoch), **self._measure(epoch)}
            entry["seconds"] = round(time.perf_counter() - began, 2)
            self.seconds += entry["seconds"]
            self.history.append(entry)
            if self.defense and (warning := collapse(self.history)):
                entry["warning"] = warning
                self.warnings.append(warning)
            if not self.best_entry or self._score(entry) >= self._score(self.best_entry):
                self.best_entry = entry
                self.best_state = {key: value.clone() for key, value in self.model.state_dict().items()}
            folder.save_checkpoint(self._state())
            if on_epoch is not None:
                on_epoch(entry)
        self.model.load_state_dict(self.best_state)
        self.model.to("cpu").to(memory_format=torch.contiguous_format)

    def _epoch(self, epoch: int) -> Entry:
        """One pass over the training data. epoch: from 1."""
        recipe, data = self.recipe, self.train_data
        batches = shuffled(data.ids, self.seed, epoch, recipe.batch_size)
        total = torch.zeros(2, device=self.device)
        rate = 0.0
        self.model.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            # dropout draws from torch's generator: seeded by the epoch, so that a resumed run draws the same
            torch.manual_seed(int(keys(self.seed, torch.tensor([epoch]), "dropout")) & 0x7FFFFFFF)
            for i, index in enumerate(batches):
                step = (epoch - 1) * len(batches) + i
                rate = learning_rate(step, recipe.epochs * len(batches), recipe.lr, recipe.warmup)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                total += self._step(index, epoch, epoch - 1 + i / len(batches))
        loss, accuracy = (total / len(data)).tolist()
        if not torch.isfinite(total).all():
            raise RunError(f"The training loss became NaN or infinite in epoch {epoch}. Lower lr, or raise warmup.")
        return {"lr": rate, "batch_loss": loss, "batch_accuracy": accuracy}

    def _step(self, index: Tensor, epoch: int, progress: float) -> Tensor:
        """One step of the optimiser; (summed loss, number right) on the batch as it was trained on."""
        recipe, ids = self.recipe, self.train_data.ids[index]
        x, y = self.train_data.images[index].to(self.device), self.train_data.labels[index]
        x = augmented(x, ids, self.seed, epoch, recipe.shift, recipe.flip)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            if self.defense is None:
                logits = self.model(x)
                loss = F.cross_entropy(logits, y)
            else:
                key = keys(self.seed, ids, "defense", epoch)
                logits, loss = self.defense.loss(self.model, x, y, key, progress)
        penalty = recipe.l1 * sum(p.abs().sum() for p in self.kernels) if recipe.l1 else 0.0
        self.optimizer.zero_grad()
        (loss + penalty).backward()
        self.optimizer.step()
        right = (logits.detach().argmax(1) == y).sum()
        return torch.stack([loss.detach().float() * len(y), right.float()])

    def _measure(self, epoch: int) -> Entry:
        """Loss and accuracy of both splits: clean on as many images, and under PGD on the first `check_size`."""
        entry: Entry = {}
        for split, data in (("train", _first(self.train_data, len(self.val_data))), ("val", self.val_data)):
            checked = _first(data, self.recipe.check_size)
            clean = loss_and_accuracy(self.model, data.images, data.labels)
            robust = under_attack(self.model, checked, self.eps, self.seed)
            entry |= {f"{split}_loss": clean[0], f"{split}_accuracy": clean[1], f"{split}_n": len(data)}
            entry |= {f"{split}_robust_loss": robust[0], f"{split}_robust_accuracy": robust[1]}
            entry[f"{split}_robust_n"] = len(checked)
        return entry

    def _score(self, entry: Entry) -> tuple[float, float]:
        clean, robust = entry["val_accuracy"], entry["val_robust_accuracy"]
        return (robust, clean) if self.defense else (clean, -entry["val_loss"])

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_state": self.best_state,
            "best_epoch": self.best_entry["epoch"],
            "history": self.history,
            "warnings": self.warnings,
            "seconds": self.seconds,
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history, self.warnings, self.seconds = saved["history"], saved["warnings"], saved["seconds"]
        self.best_state = saved["best_state"]
        self.best_entry = self.history[saved["best_epoch"] - 1]
