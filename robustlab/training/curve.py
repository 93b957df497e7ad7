"""The learning curve, drawn and in words: loss and accuracy by epoch, clean and under PGD, on both splits."""

from __future__ import annotations

import io
from typing import Any


def epoch_line(entry: dict[str, Any]) -> str:
    """One epoch as a line; an accuracy on a part of the images says on how many.

    >>> epoch_line({"epoch": 2, "lr": 0.1, "train_accuracy": 0.75, "train_n": 40, "seconds": 1.5})
    'epoch 2: lr 0.100, train_accuracy 0.750 (n = 40), seconds 1.500'
    """
    measured = []
    for key, value in entry.items():
        if isinstance(value, float):
            n = entry.get(key.removesuffix("accuracy") + "n")
            measured.append(f"{key} {value:.3f}{'' if n is None else f' (n = {n})'}")
    return f"epoch {entry['epoch']}: {', '.join(measured)}"


def drawn_curve(history: list[dict[str, Any]], best_epoch: int) -> dict[str, bytes]:
    """curve.png and curve.svg. Under- and overfitting show as the distance between the two line styles."""
    import matplotlib
    from matplotlib.figure import Figure

    epochs = [entry["epoch"] for entry in history]
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for kind, colour, label in (("", "#0072b2", "clean"), ("_robust", "#d55e00", "PGD-10")):
            for split, style in (("train", "--"), ("val", "-")):
                # a loss of 0 has no place on a logarithmic axis
                values = [max(entry[f"{split}{kind}_{what}"], 1e-5) for entry in history]
                images = f"{history[-1][f'{split}{kind}_n']} {'training' if split == 'train' else 'validation'} images"
                axes.plot(epochs, values, style, color=colour, marker=".", label=f"{label}, {images}")
        axes.axvline(best_epoch, color="0.6", linewidth=1, linestyle=":", label="kept epoch")
        axes.set_xlabel("epoch")
        axes.set_title(what)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if what == "accuracy":
            axes.set_ylim(0, 1.02)
        else:
            axes.set_yscale("log")
            lines = axes.get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    # without a date and with fixed ids the same history gives the same bytes
    found = {}
    with matplotlib.rc_context({"svg.hashsalt": "robustlab", "svg.fonttype": "none"}):
        for name, options in (("curve.png", {"dpi": 120}), ("curve.svg", {"metadata": {"Date": None}})):
            file = io.BytesIO()
            figure.savefig(file, format=name[-3:], **options)
            found[name] = file.getvalue()
    return found
