"""`search="auto"`: a search copy of the attacked model, a new one for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.memory import of_the_machine
from robustlab.models.search_copy import make_search_copy
from robustlab.oracle import Oracle, forked, full_float32

COMPARED = 8  # images on which copy and model are compared; that and the copying cost about as much as 40 passes
PAYS = 256  # passes of one image, from which on the time of making a copy comes back
Search = Callable[[Tensor], Tensor] | Literal["auto"] | None


def searched(
    search: Search, oracle: Oracle, x: Tensor, batch_size: int, looks: int
) -> Callable[[Tensor], Tensor] | None:
    """What to search on: `search` itself, or for "auto" a search copy; None for the attacked model.

    looks: how often an image of x (n, C, H, W) is shown to the model at most. No copy is kept for a later call, so that
    none can be older than the weights. There is none of what is not a module, of a target that shows less than its
    gradient, has a query budget or is randomised, where the copy does not agree with the model, and where the work is
    too short.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> x = torch.rand(4, 3, 2, 2)
    >>> searched("auto", Oracle(net), x, 128, 100) is None, searched("auto", Oracle(net), x, 128, 1) is None
    (False, True)
    """
    if search != "auto":
        if search is not None and not callable(search):
            raise UserError(f'search must be "auto", a faster copy of the model or None, got {search!r}.')
        return search
    model = oracle.model
    open_ = oracle.gives == "gradient" and oracle.query_budget is None and oracle.evaluations == 1
    if not isinstance(model, nn.Module) or not open_ or len(x) * looks < PAYS:
        return None
    # a model's own random numbers go on as if nobody had made a copy; in TF32 a faithful copy would seem to differ
    with torch.inference_mode(False), forked(x.device, "search"), full_float32():
        try:
            return make_search_copy(model, x[: min(COMPARED, batch_size)]).module
        except Exception as error:  # raised by the model: the attack on the model itself will say so
            if of_the_machine(error):
                raise
            return None
