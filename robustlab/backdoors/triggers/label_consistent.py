"""A patch on images of the target class that were made hard to learn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from robustlab.attacks.pgd import PGD
from robustlab.backdoors.triggers.badnets import BadNets
from robustlab.backdoors.triggers.base import Role, Trigger, check_share
from robustlab.base.draws import keys, uniform
from robustlab.data import Loaded


@dataclass(frozen=True)
class LabelConsistent(Trigger):
    """Clean label: poisons are disturbed, then patched (Turner et al. 2019, arXiv:1912.02771); tests are patched only.

    classifier: the base is what all steps of PGD on it make of the images (linf, 20 steps of eps / 4 from a random
    start). Without one the base is the images mixed with noise, keyed by seed and id, with the share `mix`. eps: the
    paper has 8, 16 and 32 of 255. UserError: a bad parameter, a patch that does not fit.

    The paper's classifier is adversarially trained: give one such. Its base from a GAN, its patch in all corners and
    the faint patch are not here, and the mixed base is not the paper's.

    >>> LabelConsistent().clean_label
    True
    """

    classifier: nn.Module | None = field(default=None, repr=False)
    eps: float = 16 / 255
    mix: float = 0.3
    patch: BadNets = field(default_factory=BadNets)
    clean_label: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("eps", self.eps)
        check_share("mix", self.mix)

    def check(self, data: Loaded) -> None:
        self.patch.check(data)

    def put(self, data: Loaded, seed: int, role: Role) -> Tensor:
        x = data.images
        if role != "test" and self.classifier is not None:
            how = {"ids": data.ids, "seed": seed, "surrogate": self.classifier}  # crafting takes every step
            x = PGD(eps=self.eps)(self.classifier, x, data.labels, **how)
        elif role != "test":
            x = x + self.mix * (uniform(keys(seed, data.ids, "label-consistent"), tuple(x.shape[1:])) - x)
        return self.patch.stamped(x)
