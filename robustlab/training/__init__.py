"""Training: recipes, the loop, and the folder it writes. Importing this package imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from robustlab.training.recipe import DefenseCard, Plan, Recipe, read_recipe, recipe_for

if TYPE_CHECKING:
    from robustlab.training.loop import Trained, train

__all__ = ["DefenseCard", "Plan", "Recipe", "Trained", "read_recipe", "recipe_for", "train"]


def __getattr__(name: str) -> Any:
    if name in ("Trained", "train"):
        return getattr(import_module("robustlab.training.loop"), name)
    raise AttributeError(f"module 'robustlab.training' has no attribute '{name}'")
