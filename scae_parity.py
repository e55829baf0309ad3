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


def asked_for(arguments: Sequence[str]) -> bool:
    """Whether a command line names a registry file; another tool's `--registry=URL` is none."""
    words = list(arguments)
    values = [word.partition("=")[2] for word in words if word.startswith(f"{OPTION}=")]
    values += [value for word, value in zip(words, words[1:]) if word == OPTION]
    return any(value.endswith(".py") for value in values)


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """The suite's own session (`parity_tests/conftest.py`: options, tiers, report), only when asked for.

    The name is the one under which pytest itself would register that file, so that it is not loaded twice.
    """
    if not asked_for(args):
        return
    session = importlib.import_module("parity_tests.conftest")
    if not early_config.pluginmanager.hasplugin(session.__file__):
        early_config.pluginmanager.register(session, session.__file__)
