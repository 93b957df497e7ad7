"""A row attack on one batch in lockstep: all rows take all steps, and nothing is judged. For training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustlab.attacks.row_attack import RowAttack
from robustlab.attacks.rows import Draw, Observation, Rows
from robustlab.oracle import ask, undisturbed


def lockstep(
    attack: RowAttack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    key: Tensor,
    losses: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The last points of one try at each image: what `drive(..., keep="last")` gives, without waiting for a GPU.

    x: (B, C, H, W) in [0, 1]. y: (B,). key: (B,) int64, the ids of the draws. An untargeted attack with one view of its
    query. losses: what is maximised, of logits (B, K) to (B,), if not the attack's own loss. K steps cost K forward
    passes and K gradients by the images; the model is in eval mode with frozen parameters meanwhile, and then as it was
    found.

    >>> from robustlab.attacks import PGD
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> x = torch.rand(4, 3, 2, 2)
    >>> near = lockstep(PGD(eps=0.1, steps=3), net, x, torch.tensor([0, 1, 2, 0]), torch.arange(4))
    >>> bool(((near - x).abs() <= 0.1 + 1e-6).all())
    True
    """
    none = torch.full_like(y, -1)
    rows = Rows(x, y, none, key, torch.zeros_like(y), torch.zeros_like(y), torch.arange(len(y), device=y.device))
    draw = Draw(0)
    with undisturbed(model), torch.enable_grad():
        state = attack.start(rows, draw)
        for _ in range(attack.steps):
            query = state["query"].detach().requires_grad_(True)
            logits = ask(model, query).float()
            loss = attack.objective(logits, rows, state) if losses is None else losses(logits)
            (gradient,) = torch.autograd.grad(loss.sum(), query)
            with torch.no_grad():
                shown = Observation(logits.detach(), loss.detach(), gradient, none > 0)
                state = attack.tell(rows, {**state, "query": query.detach()}, shown, draw)
            rows.age = rows.age + 1
        return attack.crafted(state).detach()
