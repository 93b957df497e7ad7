"""Heatmaps: where a classifier looks. Importing this package imports neither torch nor captum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustlab.base.lazy import exports
from robustlab.explain.methods import METHODS, draw

if TYPE_CHECKING:
    from robustlab.explain.activations import Channels, activation_map, strongest_channels
    from robustlab.explain.cams import grad_cam
    from robustlab.explain.channels import TopImages, channel_changes, strengths, top_images
    from robustlab.explain.gradients import integrated_gradients, saliency
    from robustlab.explain.guided import guided_grad_cam
    from robustlab.explain.heatmaps import Heatmaps, LayerHeatmaps
    from robustlab.explain.layers import Layer, find_layer
    from robustlab.explain.occluding import occlusion
    from robustlab.explain.sanity import Check, checks
    from robustlab.explain.shifts import shift

__all__ = [
    "METHODS",
    "Channels",
    "Check",
    "Heatmaps",
    "Layer",
    "LayerHeatmaps",
    "TopImages",
    "activation_map",
    "channel_changes",
    "checks",
    "draw",
    "find_layer",
    "grad_cam",
    "guided_grad_cam",
    "integrated_gradients",
    "occlusion",
    "saliency",
    "shift",
    "strengths",
    "strongest_channels",
    "top_images",
]

__getattr__ = exports(
    __name__,
    [
        "robustlab.explain.activations:Channels",
        "robustlab.explain.activations:activation_map",
        "robustlab.explain.activations:strongest_channels",
        "robustlab.explain.cams:grad_cam",
        "robustlab.explain.channels:TopImages",
        "robustlab.explain.channels:channel_changes",
        "robustlab.explain.channels:strengths",
        "robustlab.explain.channels:top_images",
        "robustlab.explain.gradients:integrated_gradients",
        "robustlab.explain.gradients:saliency",
        "robustlab.explain.guided:guided_grad_cam",
        "robustlab.explain.heatmaps:Heatmaps",
        "robustlab.explain.heatmaps:LayerHeatmaps",
        "robustlab.explain.layers:Layer",
        "robustlab.explain.layers:find_layer",
        "robustlab.explain.occluding:occlusion",
        "robustlab.explain.sanity:Check",
        "robustlab.explain.sanity:checks",
        "robustlab.explain.shifts:shift",
    ],
)
