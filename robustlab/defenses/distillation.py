"""Defensive distillation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.defenses.base import Defense
from robustlab.defenses.batch import Batch
from robustlab.models.classifier import Classifier
from robustlab.models.loading import load_model
from robustlab.oracle import ask, undisturbed


@dataclass(frozen=True)
class Distillation(Defense):
    """A network learns the answers of a teacher at a high temperature (Papernot et al. 2016, arXiv:1511.04508).

    temperature: both divide their logits by it while they learn, and not afterwards, so the gradients of the
    cross-entropy vanish in float32. That stops attacks that follow them, and no other (Carlini and Wagner 2017,
    arXiv:1608.04644): attack it with `apgd-dlr`. teacher: a model name or card; without one the network learns the
    labels at the same temperature, as a teacher has to.
    """

    positive: ClassVar[tuple[str, ...]] = ("temperature",)

    temperature: float = 20.0
    teacher: str = ""

    def record(self, data: Data) -> dict[str, Any]:
        """The hash of the teacher, which has to know the classes and the images; see `Defense.record`."""
        if not self.teacher:
            return {}
        with undisturbed(self._teacher), torch.no_grad():
            outputs = ask(self._teacher, data.images[:1]).shape[1]
        if outputs != len(data.classes):
            raise UserError(
                f"The teacher {self.teacher} has {outputs} outputs, and {data.name} {len(data.classes)} classes."
            )
        if self._teacher.shape not in (None, tuple(data.images.shape[1:])):
            raise UserError(
                f"The teacher {self.teacher} takes images {self._teacher.shape}, and {data.name} has others."
            )
        return {"teacher_hash": self._teacher.hash()}

    @cached_property
    def _teacher(self) -> Classifier:
        return load_model(self.teacher)

    def loss(self, model: nn.Module, batch: Batch, near: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the loss at the temperature; see `Defense.loss`."""
        logits = model(near)
        soft = logits.float() / self.temperature
        if not self.teacher:
            return logits, batch.cross_entropy(soft)
        teacher = self._teacher.to(near.device)
        with undisturbed(teacher), torch.no_grad():
            answers = ask(teacher, near).float()
        return logits, -((answers / self.temperature).softmax(1) * soft.log_softmax(1)).sum(1).mean()
