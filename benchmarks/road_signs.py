"""Accuracy on road-signs by distance, yaw, light and occlusion: `python benchmarks/road_signs.py [MODEL]`."""

from __future__ import annotations

import sys

from robustlab import load_data, load_model
from robustlab.base.intervals import wilson
from robustlab.evaluation.judging import logits_of

BINS = {
    "distance": [3, 5, 10, 15, 20, 25, 30, 35.1],
    "yaw": [0, 10, 20, 30, 40, 50.1],
    "light": [0.03, 0.06, 0.12, 0.25, 0.5, 1.2],
    "occlusion": [0, 1e-6, 0.1, 0.15, 0.21],
}


def main(name: str) -> None:
    model, data = load_model(name), load_data("road-signs", "test")
    predicted = logits_of(model, data.images, 250).argmax(1)
    right = predicted == data.labels
    print(f"{name}: {right.double().mean():.4f} of {len(data)} test images of road-signs, seed 0")
    for factor, edges in BINS.items():
        size = data.factors[factor].abs()
        for low, high in zip(edges, edges[1:], strict=False):
            here = (size >= low) & (size < high)
            k, n = int(right[here].sum()), int(here.sum())
            interval = "-".join(f"{bound:.3f}" for bound in wilson(k, n))
            print(f"  {factor:<10} {low:>5g} to {high:<5g} {k / n:.3f} ({interval}, n = {n})")
    limits = {i for i, cls in enumerate(data.classes) if cls.startswith("speed limit")}
    wrong = zip(predicted[~right].tolist(), data.labels[~right].tolist(), strict=True)
    among = sum(p in limits and y in limits for p, y in wrong)
    print(f"  {among} of {int((~right).sum())} errors are among the speed limits")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "road-signs/cnn")
