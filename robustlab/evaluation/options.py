"""How a run is done: one dataclass for the library call and for the command's flags. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter

from robustlab.base.errors import UserError, spelled
from robustlab.base.typed import check_choice, check_device, check_whole
from robustlab.defenses.detectors import read_detector
from robustlab.threat.model import parse_eps


@Parameter(name="*", group=Group("How it runs", sort_key=4))
@dataclass(frozen=True)
class Options:
    """All but device and batch_size are part of the configuration, which decides what comes out."""

    labels: Literal["given", "predicted"] = "given"
    """What counts as right: the labels of the data, or each model's own answers on the clean images."""

    outputs: Literal["logits", "probabilities"] = "logits"
    """What the models return. Of probabilities (a softmax, or one sigmoid a class) attacks see the exact logits; right
    or wrong is still what the models answer."""

    seed: int = 0
    """Key of all random draws."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    batch_size: int | None = None
    """Rows in the working batch (default: 128, on a GPU 512, fewer of large images; halved where memory runs out)."""

    chunk_size: int | None = None
    """Samples in a unit of work, the smallest piece that --resume need not repeat (default: 512, or fewer if large)."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the search copy; what it finds is always judged by the given model in float32."""

    search_copy: bool = True
    """Search on a copy made for speed, where it agrees with the model."""

    compile: bool = False
    """Compile the search copy."""

    full: bool = False
    """Run every attack on every correctly classified sample, not only on what is still robust."""

    eot: int | None = None
    """Draws of a randomised model that each gradient is averaged over (default: 20 where two evaluations of a model
    differ, else 1; --eot overrides the card). Its answer is then the majority of 10 evaluations."""

    curve: Annotated[list[str] | None, Parameter(consume_multiple=1, negative="--no-curve")] = None
    """Budgets of the security curve (default: 1/4, 1/2, 1, 3/2 and 2 times eps, or 32 up to 2 times eps where an attack
    such as fmn gives the distances; --no-curve for none)."""

    detector: Annotated[list[str] | None, Parameter(negative=())] = None
    """A detector of adversarial images, before an attack that does not know it and one that does: confidence, energy or
    feature-squeezing, or name:key=value,...; may be given several times."""

    keep: int = 1
    """Kept example images for each model, attack, class and outcome; at most 64 of an outcome."""

    audit: int = 48
    """Correctly classified samples, drawn by the seed, on which the attack itself is audited; 0 for no audit."""

    save_adversarial: bool = False
    """Store every adversarial image, the curve's too, for `robustlab verify` (float32: 12 KB for one of 3x32x32)."""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("chunk_size", 1), ("eot", 1), ("keep", 0), ("audit", 0), ("seed", 0)):
            check_whole(spelled(name), getattr(self, name), least)
        check_device(self.device)
        for name, kind in get_type_hints(type(self)).items():
            if choices := (True, False) if kind is bool else get_args(kind) if get_origin(kind) is Literal else ():
                check_choice(spelled(name), getattr(self, name), choices)
        if self.curve is not None and not isinstance(self.curve, list | tuple):
            raise UserError(
                f"{spelled('curve')} must be a list of budgets, such as ['4/255', '8/255'], got {self.curve!r}."
            )
        if not self.search_copy and (self.compile or self.precision != "float32"):
            what = spelled("compile", True) if self.compile else spelled("precision", self.precision)
            off = spelled("search_copy", False)
            raise UserError(f"{what} is about the search copy, which {off} turns off: give one of them.")
        if self.detector is not None and not isinstance(self.detector, list | tuple):
            raise UserError(f"{spelled('detector')} must be a list of detectors, got {self.detector!r}.")
        for text in self.detector or ():
            read_detector(text)
            if list(self.detector or ()).count(text) > 1:
                raise UserError(f"{spelled('detector', text)} is given twice.")
        for eps in self.curve or ():
            parse_eps(eps, spelled("curve"))
