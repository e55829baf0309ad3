"""The one thing pyproject.toml cannot say: the presets of params.yaml go into the wheel."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithPresets(build_py):
    """Python files, and a copy of params.yaml in the package that reads it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file("params.yaml", str(Path(self.build_lib, "pipelines", "params.yaml")))


setup(cmdclass={"build_py": WithPresets})
