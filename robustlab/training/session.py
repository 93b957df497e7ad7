"""One training while it runs: the steps, what is measured after each epoch, and what a checkpoint holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from robustlab.base.draws import keys
from robustlab.base.errors import RunError, UserError
from robustlab.base.memory import of_the_machine
from robustlab.base.processes import ALONE, World, others_there
from robustlab.data import Data
from robustlab.models import ARCHITECTURES
from robustlab.models.classifier import Classifier
from robustlab.threat.model import ThreatModel
from robustlab.training.batches import learning_rate, shuffled
from robustlab.training.checks import collapse, guess_of, loss_and_accuracy, share_of, trouble, under_attack
from robustlab.training.feed import Feed
from robustlab.training.objective import Objective, quiet, together
from robustlab.training.recipe import Recipe
from robustlab.training.start import Start
from robustlab.training.train_folder import TrainFolder
from robustlab.training.weights import Average, worst_nearby
from robustlab.training.whole_batches import WholeBatches

Entry = dict[str, Any]


class Diverged(RunError):
    """The loss, or an answer of the model, has become NaN or infinite."""


@dataclass(frozen=True)
class Moment:
    """Where a training is: `batch` of `batches` in an epoch (from 1); seconds, and images in each, since it began."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    seconds: float
    rate: float


@dataclass(frozen=True)
class Told:
    """Who is told what happens: the entry of each epoch, each batch that is done, and warnings as they come up.

    model: is handed the model after each epoch, to look at in eval mode.
    """

    epoch: Callable[[Entry], None] = lambda entry: None
    batch: Callable[[Moment], None] = lambda moment: None
    warning: Callable[[str], None] = lambda text: None
    model: Callable[[nn.Module], None] = lambda model: None


class Session:
    """The state of one training: what a checkpoint holds, and the steps that change it.

    Of several processes each takes its share of every batch; weights, decisions and history are the same in all.
    """

    def __init__(
        self,
        start: Start,
        train_data: Data,
        val_data: Data,
        recipe: Recipe,
        threat: ThreatModel,
        seed: int,
        device: torch.device,
        told: Told,
        world: World = ALONE,
    ) -> None:
        self.told, self.world = told, world
        self.start, self.own, self.defense = start, start.own, start.defense
        self.recipe, self.seed, self.device = recipe, seed, device
        # convolutions on channels_last took 0.75-0.85 of the time on a CPU (cnn, resnet20), and suit tensor cores;
        # a module of one's own may take views that these strides do not allow
        self.strides = torch.contiguous_format if start.own else torch.channels_last
        model = self.model = start.model.to(device).to(memory_format=self.strides)
        self.train_data, self.val_data = _on(train_data, device), _on(val_data, device)
        self.threat = threat
        trained = [p for p in model.parameters() if p.requires_grad]
        self.kernels = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim <= 1]
        groups = [
            {"params": self.kernels, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer: torch.optim.Optimizer
        if recipe.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr)
        else:
            momentum = recipe.momentum
            self.optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=momentum, nesterov=momentum > 0)
        self.average = Average(model, recipe.ema) if recipe.ema else None
        asked = cast(nn.Module, torch.compile(model)) if recipe.compile else model
        self.objective = Objective(asked, self.defense, self.kernels, recipe.l1)
        self.feed = Feed(self.train_data, recipe, seed, self.strides, self.own, world)
        self.together = together(self.objective, world, all_used=start.architecture in ARCHITECTURES)
        self.whole_batches = WholeBatches(model, device) if world.size > 1 else nullcontext()
        self.guess = guess_of(self.val_data.labels)
        self.history: list[Entry] = []
        self.warnings: list[str] = list(dict.fromkeys([*train_data.notes, *val_data.notes, *start.warnings]))
        self.best_entry: Entry = {}
        self.best_state: dict[str, Tensor] = {}
        self.seconds = 0.0

    def run(self, folder: TrainFolder | None) -> None:
        """All epochs that are left, a checkpoint after each; then the best epoch's weights in the model.

        folder: of the first process; the others have none.
        """
        if (saved := self.world.agree(None if folder is None else folder.checkpoint())) is not None:
            self._restore(saved)
        for text in self.warnings:
            self.told.warning(text)
        for epoch in range(len(self.history) + 1, self.recipe.epochs + 1):
            if self._collapsed():
                break
            entry = self._entry(epoch)
            self.seconds += entry["seconds"]
            self.history.append(entry)
            if found := self._warnings():
                entry["warning"] = " ".join(found)
                self.warnings += found
            if not self.best_entry or self._score(entry) >= self._score(self.best_entry):
                self.best_entry = entry
                self.best_state = {key: value.clone() for key, value in self.measured.state_dict().items()}
            if folder is not None:
                folder.save_checkpoint(self._state())
            self.told.epoch(entry)
            self.told.model(self.measured)
            for text in found:
                self.told.warning(text)
        self.keep_best()

    def _entry(self, epoch: int) -> Entry:
        """One epoch, and what was measured after it; a module of one's own that fails is a `RunError`."""
        began = time.perf_counter()
        try:
            with others_there():
                entry = {"epoch": epoch, **self._epoch(epoch), **self._measure()}
            if math.isnan(entry["train_loss"] + entry["val_loss"]):
                raise Diverged(f"The model answers NaN after epoch {epoch}. {self.recipe.calmer()}")
        except Exception as error:
            if not self.own or isinstance(error, RunError | UserError) or of_the_machine(error):
                raise
            raise RunError(
                f"{self.model.name} failed while it was trained: {type(error).__name__}: {error}. (In training mode, on"
                " a batch of images and back to the gradients.)"
            ) from error
        return entry | {"seconds": round(time.perf_counter() - began, 2)}

    def keep_best(self) -> None:
        """The best epoch's weights in the model, which is then on the CPU."""
        self.model.load_state_dict(self.best_state)
        self.model.to("cpu").to(memory_format=torch.contiguous_format)

    def _warnings(self) -> list[str]:
        """What is worth saying after an epoch, and was not said before."""
        return [*self._collapsed(), *trouble(self.history, self.recipe, self.train_data, self.val_data)]

    def _collapsed(self) -> list[str]:
        found = collapse(self.history, self.guess) if self.history and self.defense.threat is not None else None
        return [found] if found else []

    def _epoch(self, epoch: int) -> Entry:
        """One pass over the training data. epoch: from 1."""
        recipe, data = self.recipe, self.train_data
        batches = shuffled(data.ids, self.seed, epoch, recipe.batch_size)
        total = torch.zeros(2, device=self.device)
        rate, seen = 0.0, 0
        began = time.perf_counter()
        devices = [self.device] if self.device.type == "cuda" else []
        with quiet(), self.whole_batches, torch.random.fork_rng(devices):
            self.model.train()
            # dropout draws from torch's generator: seeded by the epoch, so that a resumed run draws the same
            process = [] if self.world.first else [self.world.rank]
            torch.manual_seed(int(keys(self.seed, torch.tensor([epoch]), "dropout", *process)) & 0x7FFFFFFF)
            for i, index in enumerate(batches):
                step = (epoch - 1) * len(batches) + i
                rate = learning_rate(
                    step, recipe.epochs * len(batches), recipe.lr, recipe.warmup, recipe.schedule, recipe.drops
                )
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                total += self._step(index, epoch, epoch - 1 + i / len(batches))
                seen += len(index)
                # on a GPU, looking at the loss waits for it; and all processes have to see the same
                often = (self.device.type == "cpu" and self.world.size == 1) or i % 8 == 7 or i + 1 == len(batches)
                if often and not bool(torch.isfinite(self.world.sum(total)).all()):
                    raise Diverged(
                        f"The training loss became NaN or infinite in epoch {epoch}, batch {i + 1} of {len(batches)},"
                        f" at lr = {rate:.3g}. {recipe.calmer()}"
                    )
                passed = time.perf_counter() - began
                self.told.batch(Moment(epoch, recipe.epochs, i + 1, len(batches), passed, seen / max(passed, 1e-9)))
        for tensor in [*self.model.buffers(), *self.measured.buffers()]:
            self.world.spread(tensor)  # what is no BatchNorm may have seen this process's images only
        loss, accuracy = (self.world.sum(total) / len(data)).tolist()
        return {"lr": rate, "batch_loss": loss, "batch_accuracy": accuracy}

    def _step(self, index: Tensor, epoch: int, progress: float) -> Tensor:
        """One step of the optimiser; (summed loss, number right) on this process's share of what it learned from.

        With AWP, at the weights that it moved to.
        """
        recipe, defense = self.recipe, self.defense
        batch = self.feed.batch(index, epoch, progress)
        # the mean over the processes of the losses so weighed is the mean over the whole batch
        weight = len(batch.y) * self.world.size / len(index)
        with self._autocast():
            near = defense.perturb(self.objective.model, batch)

        def loss(objective: nn.Module) -> tuple[Tensor, Tensor]:
            with self._autocast():  # one for each pass: it keeps rounded weights, which change in between
                logits, found = objective(batch, near)
            return logits, found * weight

        moved = recipe.awp and progress >= recipe.awp_warmup
        ascent = worst_nearby(self.model, self.kernels, recipe.awp, lambda: loss(self.objective)[1], self.world)
        with ascent if moved else nullcontext():
            logits, found = loss(self.together)
            self.optimizer.zero_grad()
            found.backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        right = (logits.detach().argmax(1) == batch.y).sum()
        return torch.stack([found.detach().float() * (len(index) / self.world.size), right.float()])

    def _autocast(self) -> torch.autocast:
        wanted = self.recipe.precision
        lower = wanted == "bfloat16" or (wanted == "auto" and self.device.type == "cuda")
        return torch.autocast(self.device.type, torch.bfloat16, enabled=lower)

    @property
    def measured(self) -> Classifier:
        """What is measured and kept: the average of the weights, where there is one."""
        return self.model if self.average is None else self.average.module

    def _measure(self) -> Entry:
        """Loss and accuracy of both splits: clean on as many images, and under PGD on the first `check_size`."""
        entry: Entry = {}
        for split, data in (("train", first_of(self.train_data, len(self.val_data))), ("val", self.val_data)):
            checked = first_of(data, self.recipe.check_size)
            own, world = share_of(data, self.world), self.world
            clean = loss_and_accuracy(self.measured, own.images, own.labels, world)
            robust = under_attack(self.measured, share_of(checked, world), self.threat, self.seed, world)
            entry |= {f"{split}_loss": clean[0], f"{split}_accuracy": clean[1], f"{split}_n": len(data)}
            entry |= {f"{split}_robust_loss": robust[0], f"{split}_robust_accuracy": robust[1]}
            entry[f"{split}_robust_n"] = len(checked)
        return entry

    def _score(self, entry: Entry) -> tuple[float, ...]:
        """What the kept epoch is best in. One answer for all images is robust, too, and so comes last."""
        clean, robust = entry["val_accuracy"], entry["val_robust_accuracy"]
        if self.defense.keeps_last:
            return (entry["epoch"],)
        return (clean > self.guess, robust, clean) if self.defense.threat is not None else (clean, -entry["val_loss"])

    def _state(self) -> dict[str, Any]:
        averaged = {} if self.average is None else {"average": self.average.state()}
        return averaged | {
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
        if self.average is not None:
            self.average.restore(saved["average"])
        self.history, self.warnings, self.seconds = saved["history"], saved["warnings"], saved["seconds"]
        self.best_state = saved["best_state"]
        self.best_entry = self.history[saved["best_epoch"] - 1]


def first_of(data: Data, limit: int | None) -> Data:
    return data if limit is None or limit >= len(data) else data.take(torch.arange(limit))


def _on(data: Data, device: torch.device) -> Data:
    """The data on a device; images that lie on the disk stay there."""
    images = data.images.to(device) if isinstance(data.images, Tensor) else data.images
    return replace(data, images=images, labels=data.labels.to(device), ids=data.ids.to(device))
