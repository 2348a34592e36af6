"""Puts the shipped data and notebooks into the wheel; everything else of the build stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("data", "notebooks")
INSIDE = "varlab/_shipped"  # the same name stands in varlab/resources.py


class BuildWithShipped(build_py):
    """In an editable installation the package finds them at the top level of the checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                target = Path(self.build_lib, INSIDE, name)
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(name, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.part"))


setup(cmdclass={"build_py": BuildWithShipped})
