"""Puts the cards into the wheel; everything else is in pyproject.toml.

The cards lie in attacks/ and defenses/ at the top of the checkout, and in the wheel in robustlab/recipes/, where
`robustlab.base.cards` looks first. Copying them here, rather than mapping the folders to packages, leaves an editable
install a plain path, which type checkers and editors can follow.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithCards(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for kind in ("attacks", "defenses"):
            target = Path(self.build_lib, "robustlab", "recipes", kind)
            target.mkdir(parents=True, exist_ok=True)
            for card in sorted([*Path(kind).glob("*.toml"), *Path(kind).glob("*.md")]):
                shutil.copyfile(card, target / card.name)


setup(cmdclass={"build_py": BuildWithCards})
