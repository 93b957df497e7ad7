"""Road signs: a small differentiable world, rendered on demand, in which every nuisance factor is known.

A scene (`draw`) is a class, a distance, angles, light and so on, keyed by (seed, split, index); `render` looks at the
sign's face (`faces`, `prepare`) through a camera. The data set is `render(draw(...))`, rounded to 8 bits: see
`robustlab.data.road_signs`.
"""

from __future__ import annotations

from robustlab.worlds.road_signs.faces import CLASSES, faces
from robustlab.worlds.road_signs.render import Prepared, prepare, render
from robustlab.worlds.road_signs.scenes import FACTORS, Ranges, Scenes, draw

__all__ = ["CLASSES", "FACTORS", "VERSION", "Prepared", "Ranges", "Scenes", "draw", "faces", "prepare", "render"]

VERSION = 1  # of what is drawn: to be raised with every change of a pixel, since trained models depend on it
