"""The entries of the zoo: which architecture on which data by which recipe. Sizes suit two CPU cores.

An entry that starts from another one comes after it. Data that are a file are looked for in the data root.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from robustlab.training import Recipe


@dataclass(frozen=True)
class Entry:
    """One network. shipped: with the package, as float16; the others are trained with the same command."""

    architecture: str
    data: str
    summary: str
    recipe: Recipe
    shipped: bool = True


NFGSM = {"method": "n-fgsm", "eps": "8/255", "k": 2.0, "alpha": 1.0, "ramp": 2.0}
SIGNS = Recipe(lr=0.1, train_size=20_000, val_size=1000, check_size=200)
FAST = Recipe(lr=0.1, val_size=1000, check_size=200, precision="bfloat16")
FASHION = replace(FAST, epochs=5, train_size=20_000, shift=1, init="fashion-mnist/cnn")
FASHION_DEFENSES = {  # name: what is said of it, the table, other fields of the recipe
    "fast-at": ("FGSM-RS", {"method": "fast-at", "eps": 0.1, "ramp": 2.0}, {}),
    "n-fgsm": ("N-FGSM", {"method": "n-fgsm", "eps": 0.1, "ramp": 2.0}, {}),
    "pgd-at": ("PGD-AT", {"method": "pgd-at", "eps": 0.1, "steps": 5, "ramp": 2.0}, {}),
    "trades": ("TRADES", {"method": "trades", "eps": 0.1, "steps": 5, "ramp": 2.0}, {}),
    "trades-awp": ("TRADES and AWP", {"method": "trades", "eps": 0.1, "steps": 5, "ramp": 2.0}, {"awp": 0.005}),
}
VIT = Recipe(
    lr=2e-3,
    train_size=20_000,
    val_size=1000,
    check_size=200,
    optimizer="adamw",
    weight_decay=0.05,
    clip=1.0,
    model={"width": 64, "depth": 4, "heads": 4},
)

ENTRIES: dict[str, Entry] = {
    "road-signs/cnn": Entry(
        "cnn", "road-signs", "A small convolutional network, undefended", replace(SIGNS, epochs=10)
    ),
    "road-signs/cnn-robust": Entry(
        "cnn",
        "road-signs",
        "The same network after adversarial training (N-FGSM, linf 8/255)",
        replace(SIGNS, epochs=8, check_size=300, init="road-signs/cnn", defense=NFGSM),
    ),
    "road-signs/resnet20": Entry(
        "resnet20", "road-signs", "A residual network of 20 layers, undefended", replace(SIGNS, epochs=8)
    ),
    "road-signs/resnet20-robust": Entry(
        "resnet20",
        "road-signs",
        "The same network after adversarial training (N-FGSM, linf 8/255)",
        replace(SIGNS, epochs=6, check_size=300, init="road-signs/resnet20", defense=NFGSM),
    ),
    "road-signs/vit": Entry("vit", "road-signs", "A small vision transformer, undefended", replace(VIT, epochs=18)),
    "road-signs/vit-n-fgsm": Entry(
        "vit",
        "road-signs",
        "The same transformer after adversarial training (N-FGSM, linf 8/255)",
        replace(VIT, epochs=8, init="road-signs/vit", defense=NFGSM),
    ),
    "fashion-mnist/cnn": Entry(
        "cnn",
        "fashion-mnist",
        "A small convolutional network, undefended",
        replace(FAST, epochs=6, train_size=40_000, shift=1),
    ),
    **{
        f"fashion-mnist/cnn-{name}": Entry(
            "cnn",
            "fashion-mnist",
            f"The same network after adversarial training ({said}, linf 0.1)",
            replace(FASHION, defense=table, **others),
            shipped=name == "trades",
        )
        for name, (said, table, others) in FASHION_DEFENSES.items()
    },
    "mnist/cnn": Entry(
        "cnn", "mnist", "A small convolutional network, undefended", replace(FAST, epochs=4, train_size=20_000, shift=1)
    ),
    "mnist/cnn-fast-at": Entry(
        "cnn",
        "mnist",
        "The same architecture after adversarial training (FGSM-RS, linf 0.3)",
        replace(
            FAST,
            epochs=10,
            train_size=30_000,
            shift=0,
            warmup=0.4,
            schedule="cyclic",
            defense={"method": "fast-at", "eps": 0.3},
        ),
    ),
    "mnist/cnn-pgd-at": Entry(
        "cnn",
        "mnist",
        "The network of FGSM-RS after adversarial training with PGD (PGD-AT, linf 0.3)",
        replace(
            FAST,
            epochs=5,
            train_size=20_000,
            shift=0,
            lr=0.05,
            init="mnist/cnn-fast-at",
            defense={"method": "pgd-at", "eps": 0.3, "steps": 7, "step_size": 0.1},
        ),
    ),
    "gtsrb/cnn": Entry("cnn", "npz:gtsrb32.npz", "A small convolutional network, undefended", replace(FAST, epochs=6)),
    "gtsrb/cnn-pgd-at": Entry(
        "cnn",
        "npz:gtsrb32.npz",
        "The same network after adversarial training (PGD-AT, linf 8/255)",
        replace(
            FAST,
            epochs=6,
            train_size=20_000,
            init="gtsrb/cnn",
            defense={"method": "pgd-at", "eps": "8/255", "steps": 5, "ramp": 2.0},
        ),
    ),
    "x-rays/cnn": Entry(
        "cnn",
        "npz:pneumoniamnist.npz",
        "A small convolutional network for chest X-rays (PneumoniaMNIST), undefended",
        replace(FAST, epochs=15),
    ),
    "x-rays/cnn-pgd-at": Entry(
        "cnn",
        "npz:pneumoniamnist.npz",
        "The same network after adversarial training (PGD-AT, linf 8/255)",
        replace(
            FAST,
            epochs=12,
            init="x-rays/cnn",
            defense={"method": "pgd-at", "eps": "8/255", "steps": 5, "ramp": 3.0},
        ),
    ),
}
