"""Heatmaps: where a classifier looks. Importing this package imports neither torch nor captum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustlab.base.lazy import exports

if TYPE_CHECKING:
    from robustlab.explain.heatmaps import Heatmaps, activation_map, grad_cam
    from robustlab.explain.layers import Layer, find_layer

__all__ = ["Heatmaps", "Layer", "activation_map", "find_layer", "grad_cam"]

__getattr__ = exports(
    __name__,
    [
        "robustlab.explain.heatmaps:Heatmaps",
        "robustlab.explain.heatmaps:activation_map",
        "robustlab.explain.heatmaps:grad_cam",
        "robustlab.explain.layers:Layer",
        "robustlab.explain.layers:find_layer",
    ],
)
