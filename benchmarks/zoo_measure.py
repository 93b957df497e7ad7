"""What zoo.py measures of a network: clean accuracy, and robust accuracy under the named suites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustlab import evaluate, load_data
from robustlab.attacks.suite import Suite, load_suite
from robustlab.base.intervals import wilson
from robustlab.data import Data
from robustlab.models.card import Measured
from robustlab.models.classifier import Classifier
from robustlab.training.checks import loss_and_accuracy

CLEAN = {"road-signs": 2000}  # the first so many test images; of data that are files, all
SUITES = ("linf-standard", "linf-strong")  # the strongest comes last: the zoo's table shows the last
# beside the suites, because the literature has numbers for it; Wong et al. 2020 (arXiv:2001.03994) step by 0.01
MORE = {"mnist": ("PGD-50, 5 restarts", "pgd:steps=50,restarts=5,step_size=0.01")}


@dataclass(frozen=True)
class Measuring:
    """How networks are measured. runs: where the run folders go; n: how many test images are attacked."""

    root: Path
    runs: Path
    n: int = 1000
    clean: int | None = None
    precision: str = "bfloat16"
    device: str = "auto"

    def of(self, name: str, model: Classifier, source: str) -> list[Measured]:
        """All numbers of a network on the test images of `source`. A run that was cut short goes on."""
        data = load_data(source, "test", self.clean or CLEAN.get(source), data_root=self.root)
        right = round(loss_and_accuracy(model, data.images, data.labels)[1] * len(data))
        low, high = wilson(right, len(data))
        clean = Measured("clean accuracy", right / len(data), round(low, 4), round(high, 4), len(data))
        few = data.take(torch.arange(min(self.n, len(data))))
        return [clean, *(self._under(name, model, few, card, spec) for card, spec in attacks(source))]

    def _under(self, name: str, model: Classifier, data: Data, called: str, spec: str) -> Measured:
        suite = _suite(spec, data)
        words = called.replace(",", "").replace(" ", "-").lower()
        folder = self.runs / name.replace("/", "-") / f"{words}-{len(data)}-{model.hash()[:8]}"
        how: dict[str, Any] = {"precision": self.precision, "device": self.device, "audit": 0, "curve": [], "keep": 0}
        run = evaluate({name: model}, data, suite, output=folder, resume=True, limit=None, **how)
        share = run.info["aggregates"]["models"][0]["robust_accuracy"]
        bounds = [round(share[key], 4) for key in ("low", "high")]
        return Measured(
            "robust accuracy", share["value"], *bounds, share["n"], "test", suite.threat.norm, suite.eps_typed, called
        )


def attacks(source: str) -> list[tuple[str, str]]:
    """What a network on these data is attacked with: the name in its card, and a suite's card or an attack's text."""
    return [*([MORE[source]] if source in MORE else []), *((suite, suite) for suite in SUITES)]


def _suite(spec: str, data: Data) -> Suite:
    if ":" in spec:
        return load_suite(attacks=[spec], default=data.threat)
    return load_suite(spec, default=data.threat)
