"""Train and measure the zoo: `python benchmarks/zoo.py [NAME...]`.

Every entry is trained with `robustlab.train`, rounded to float16, and then measured as it is shipped: clean accuracy on
the first 2,000 test images, and accuracy under PGD-20 (linf 8/255, one start) on the first 500. The robust networks
start from the plain ones, so the order matters. Resumes where it was stopped; `--measure` only measures again.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from robustlab import load_data, load_model, train
from robustlab.attacks import PGD
from robustlab.base.files import write_file
from robustlab.base.intervals import wilson
from robustlab.models.card import Measured, ModelCard, card_text, read_model_card
from robustlab.models.classifier import Classifier
from robustlab.models.weights import packed_weights
from robustlab.models.zoo import ZOO
from robustlab.threat.model import parse_eps
from robustlab.training import Recipe
from robustlab.training.curve import epoch_line

EPS = "8/255"
NFGSM = {"method": "n-fgsm", "eps": EPS, "k": 2.0, "alpha": 1.0, "ramp": 2.0}
ENTRIES: dict[str, tuple[str, str, Recipe]] = {
    "road-signs/cnn": (
        "cnn",
        "A small convolutional network, undefended",
        Recipe(epochs=10, lr=0.1, train_size=20_000, val_size=1000, check_size=200),
    ),
    "road-signs/cnn-robust": (
        "cnn",
        "The same network after adversarial training (N-FGSM, linf 8/255)",
        Recipe(
            epochs=8, lr=0.1, train_size=20_000, val_size=1000, check_size=300, init="road-signs/cnn", defense=NFGSM
        ),
    ),
    "road-signs/resnet20": (
        "resnet20",
        "A residual network of 20 layers, undefended",
        Recipe(epochs=8, lr=0.1, train_size=20_000, val_size=1000, check_size=200),
    ),
    "road-signs/resnet20-robust": (
        "resnet20",
        "The same network after adversarial training (N-FGSM, linf 8/255)",
        Recipe(
            epochs=6,
            lr=0.1,
            train_size=20_000,
            val_size=1000,
            check_size=300,
            init="road-signs/resnet20",
            defense=NFGSM,
        ),
    ),
}


def measure(model: Classifier, clean_n: int = 2000, robust_n: int = 500) -> list[Measured]:
    """Clean accuracy, and accuracy under PGD-20 with one start, on the first test images."""
    data = load_data("road-signs", "test", max(clean_n, robust_n))
    with torch.no_grad():
        right = torch.cat([model(x).argmax(1) for x in data.images.split(250)]) == data.labels
    first = data.take(torch.arange(robust_n))
    outcome = PGD(eps=parse_eps(EPS), steps=20).run(model, first.images, first.labels, ids=first.ids, batch_size=250)
    with torch.no_grad():
        left = torch.cat([model(x).argmax(1) for x in outcome.images.split(250)]) == first.labels
    return [
        _measured("clean accuracy", int(right[:clean_n].sum()), clean_n),
        _measured("robust accuracy", int((left & right[:robust_n]).sum()), robust_n, "linf", EPS, "PGD-20"),
    ]


def _measured(metric: str, k: int, n: int, norm: str = "", eps: str = "0", attack: str = "") -> Measured:
    low, high = wilson(k, n)
    return Measured(metric, k / n, round(low, 4), round(high, 4), n, "test", norm, eps, attack)


def ship(name: str, summary: str, output: Path) -> ModelCard:
    """Round a trained model to float16, measure what is left, and write it into the zoo."""
    short = name.partition("/")[2]
    target = ZOO / f"{name}.toml"
    target.parent.mkdir(parents=True, exist_ok=True)
    trained = load_model(str(output / "model.toml")).module
    write_file(target.with_suffix(".safetensors"), packed_weights(trained, half=True))
    card = replace(
        read_model_card(output / "model.toml"),
        name=name,
        summary=summary,
        weights=f"{short}.safetensors",
        command=f"robustlab train {name}",
        measured=[],
    )
    write_file(target, card_text(card))  # so that it can be loaded as users load it
    model = load_model(str(target))
    card = replace(card, hash=model.hash(), measured=measure(model))
    write_file(target, card_text(card))
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[], help="zoo entries; default: all, in order")
    parser.add_argument("--output", type=Path, default=Path("reports/zoo"), help="where the training folders go")
    parser.add_argument("--measure", action="store_true", help="measure the shipped checkpoints again, train nothing")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 1:
        print(f"The machine is busy (load {load:.1f}): the seconds in the cards will be too many.", file=sys.stderr)
    for name in arguments.names or ENTRIES:
        architecture, summary, recipe = ENTRIES[name]
        if arguments.measure:
            card = read_model_card(ZOO / f"{name}.toml")
            card = replace(card, measured=measure(load_model(str(ZOO / f"{name}.toml"))))
            write_file(ZOO / f"{name}.toml", card_text(card))
        else:
            output = arguments.output / name.replace("/", "-")
            show = lambda entry, name=name: print(name, epoch_line(entry), flush=True)  # noqa: E731
            train(architecture, "road-signs", recipe, output=output, name=name, resume=True, on_epoch=show)
            card = ship(name, summary, output)
        for m in card.measured:
            print(
                f"{name}: {m.metric} {m.value:.1%} ({m.low:.1%}-{m.high:.1%}, n={m.n}) {m.attack} {m.eps}", flush=True
            )


if __name__ == "__main__":
    main()
