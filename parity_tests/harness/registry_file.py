"""A registry file as a file of tests: `parity/registry.py::test_op[…]` runs a check of test_given.py."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest


class RegistryFile(pytest.Module):
    """The generic checks under the name of the registry file, which holds no tests of its own."""

    def _getobj(self) -> ModuleType:
        from parity_tests import given  # late: the programs' libraries come with it
        try:
            given.load(self.path)
        except (FileNotFoundError, AttributeError, ValueError) as error:
            if not str(error).startswith("--registry"):
                raise  # of the file's own code
            raise self.CollectError(str(error)) from None
        return importlib.import_module("parity_tests.tests.suite.test_given")


class RegistryFiles:
    """A pytest plug-in of its own: hooks of a conftest.py do not reach files outside its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        """The registry file's checks; every other file is what it is."""
        return RegistryFile.from_parent(parent, path=module_path) if module_path == self.path else None
