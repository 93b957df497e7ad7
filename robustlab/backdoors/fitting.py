"""Short trainings whose folder is not kept, and what a model says of images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from robustlab.base.intervals import Share, share
from robustlab.base.processes import ALONE
from robustlab.data import Data
from robustlab.models.classifier import Classifier
from robustlab.models.loading import load_model
from robustlab.training.loop import Trained, train
from robustlab.training.recipe import Recipe
from robustlab.training.session import Told

Watch = Callable[[nn.Module], None]


@contextmanager
def fitted(
    architecture: str,
    data: Data,
    val: Data,
    recipe: Recipe,
    seed: int,
    *,
    name: str = "model",
    device: str = "auto",
    watch: Watch = lambda model: None,
) -> Iterator[tuple[Classifier, Trained]]:
    """A trained model on the CPU; its folder, `Trained.output`, is there inside the block only.

    watch: is handed the model after each epoch.
    """
    with tempfile.TemporaryDirectory() as temporary:
        done = train(
            architecture,
            (data, val),
            recipe,
            output=Path(temporary) / "model",
            name=name,
            seed=seed,
            device=device,
            told=Told(model=watch),
            drawn=False,
            world=ALONE,  # the processes of a run share its parts, and each trains alone
        )
        yield load_model(str(done.output)), done


def agreement(answers: Tensor, wanted: Tensor) -> Share:
    """The share of answers that are the wanted ones.

    >>> import torch
    >>> agreement(torch.tensor([1, 2]), torch.tensor([1, 1]))["value"]
    0.5
    """
    return share(int((answers == wanted).sum()), len(wanted))
