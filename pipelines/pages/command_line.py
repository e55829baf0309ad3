"""Every command and program with its arguments, from the programs themselves."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
from pathlib import Path
from typing import Any

from pipelines import cli
from pipelines.pages.text import cell, table
from pipelines.support import console

ROOT = Path(__file__).resolve().parents[2]
# Folders whose modules may be run; helper processes of other programs are not for people.
FOLDERS = ("pipelines", "parity_tests")
HELPERS = ("pipelines.cli", "pipelines.bench.worker", "pipelines.checkpoints.child", "parity_tests.harness.graphs")


def commands() -> dict[str, Any]:
    """Command of `scae` → click's object for it."""
    return dict(cli.main.command.commands)


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or callable(value) or not isinstance(value, str | int | float):
        return "–"
    return f"`{value}`" if value is not True else "on"


def command_section(name: str, command: Any) -> str:
    """One command: how it is called, what it does, its arguments and options."""
    rows, usage = [], [f"scae {name}"]
    with command.make_context(f"scae {name}", [], resilient_parsing=True) as context:
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                shown = parameter.metavar or parameter.name.upper()
                usage.append(shown)
            else:
                shown = parameter.get_help_record(context)[0]  # names, and what the option takes
            shown = shown.replace("|", "\\|")  # would end the cell
            rows.append((f"`{shown}`", cell(parameter.help or ""), _default(parameter)))
    return "\n\n".join([f"## scae {name}", command.help or "", f"```text\n{' '.join(usage)} [OPTIONS]\n```",
                        table(("argument or option", "meaning", "default"), rows)])


def programs() -> list[str]:
    """Modules that are run with `python -m`, by name."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
            tests = path.is_relative_to(ROOT / "parity_tests" / "tests")
            if re.search(r"^main = Program\(", text, re.M) and not tests and name not in HELPERS:
                found.append(name)
    return found


def help_of(name: str) -> str:
    """What `python -m NAME --help` prints."""
    module = f"{name}.__main__" if (ROOT / name.replace(".", "/")).is_dir() else name
    columns, printed = os.environ.get("COLUMNS"), io.StringIO()
    try:
        os.environ["COLUMNS"] = "100"
        with contextlib.redirect_stdout(printed):
            importlib.import_module(module).main(["--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return printed.getvalue().rstrip()


def commands_page() -> str:
    """The page of `scae`."""
    head = """# The `scae` command

`scae` is installed with the package; inside a checkout it stands in `.venv`. Every command prints what it wrote, ends
with one of the [exit codes](exit_codes.md), and takes `--help`. The last column says what holds when an option is not
given.

This page is written by `python -m pipelines.pages` from the program when the site is built.
"""
    return "\n".join([head, *(command_section(name, command) for name, command in commands().items())])


def programs_page() -> str:
    """The page of the modules that are run by name."""
    head = """# Programs behind the stages

Each DVC stage is a module of the same name that can be run by itself, and so can a few tools. What follows is what
each prints for `--help`; it is asked when the site is built.
"""
    return "\n".join([head, *(f"## {name}\n\n```text\n{help_of(name)}\n```\n" for name in programs())])


def exit_codes_page() -> str:
    """The page of exit codes."""
    return """# Exit codes

All `scae` commands and all stages end with one of these. They are read from `pipelines/support/console.py`. A program
that calls them needs no more than the code; a person reads the one line on the standard error stream.

""" + table(("code", "meaning"), [(f"`{code}`", cell(words[:1].upper() + words[1:]) + ".")
                                  for code, words in console.EXIT_CODES.items()])
