"""Training: recipes, the loop, and the folder it writes. Importing this package imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustlab.base.lazy import exports
from robustlab.training.recipe import Assignment, DefenseCard, Recipe, read_recipe, recipe_for

if TYPE_CHECKING:
    from robustlab.training.loop import Trained, train

__all__ = ["Assignment", "DefenseCard", "Recipe", "Trained", "read_recipe", "recipe_for", "train"]

__getattr__ = exports(__name__, ["robustlab.training.loop:Trained", "robustlab.training.loop:train"])
