"""The pytest plug-in of an installed scae-port: `pytest --registry=PATH.py` in any repository.

A run that does not ask for it gets nothing from here: no option, no hook that does anything, no import beyond
this file. It stands outside the packages because pytest loads plug-ins before a tree's own `pythonpath` counts:
an import of `parity_tests` here would decide too early which copy of it is tested. docs/parity_in_your_ci.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import pytest

OPTION = "--registry"


def registry_file(arguments: Sequence[str]) -> str | None:
    """The registry file that a command line names; another tool's `--registry=URL` is none."""
    words = list(arguments)
    values = [word.partition("=")[2] for word in words if word.startswith(f"{OPTION}=")]
    values += [value for word, value in zip(words, words[1:]) if word == OPTION]
    return next((value for value in values if value.endswith(".py")), None)


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """The suite's own session (`parity_tests/conftest.py`: options, tiers, report), only when asked for.

    The name is the one under which pytest itself would register that file, so that it is not loaded twice.
    """
    path = registry_file(args)
    if path is None:
        return
    # Without a path only the registry file is run; `testpaths` would bring the conftest.py of other tests.
    if not early_config.known_args_namespace.file_or_dir:
        early_config.known_args_namespace.file_or_dir = [path]
    session = importlib.import_module("parity_tests.conftest")
    if not early_config.pluginmanager.hasplugin(session.__file__):
        early_config.pluginmanager.register(session, session.__file__)
