"""Where a fit in a run folder goes on from, and the losses of its steps."""

from __future__ import annotations

import torch
from safetensors.torch import load, save

from robustlab.evaluation.listener import Listener
from robustlab.physical.fitted import State
from robustlab.physical.folder import StickerRun

EVERY = 25  # steps between checkpoints


class Checkpoints:
    """The checkpoints of one fit under its name in a run folder.

    state: what a stopped fit goes on from, as `fit` takes it; None at the beginning. losses: of all steps so far.
    """

    def __init__(self, run: StickerRun, name: str, listener: Listener) -> None:
        self._run, self._name, self._threads = run, name, torch.get_num_threads()
        content = run.state(name)
        state = load(content) if content else {}
        self.losses: list[float] = state.pop("curve", torch.zeros(0)).tolist()
        if state and int(state.pop("threads", torch.tensor(self._threads))) != self._threads:
            now = self._threads
            listener.warn(f"The fit began with another number of threads than {now}: its last digits may differ.")
        self.state: State | None = state or None

    def watch(self, step: int, loss: float, state: State) -> None:
        """What the fit tells each step to."""
        self.losses.append(loss)
        if step % EVERY == EVERY - 1:
            kept = state | {"curve": torch.tensor(self.losses), "threads": torch.tensor(self._threads)}
            self._run.write_state(self._name, save({key: value.contiguous() for key, value in kept.items()}))
