"""A stage depends on every file that it imports, and on no other family's folder.

DVC does not follow imports, so the folders stand in dvc.yaml; a stage that lacked one would not run again after
an edit there.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from parity_tests.goldens import REPOSITORY
from pipelines.support.values import load_params

PACKAGES = ("port", "reference", "parity_tests", "pipelines")
# Every configuration and every table of families names them all; a stage runs one.
FAMILIES = tuple(f"port/{name}/" for name in ("scae", "constellation", "capsnet", "em"))
# Imported where they are asked for, by another kind of preset or another command than the stage's.
BESIDE = ("pipelines/evaluation/", "pipelines/commands/", "pipelines/bench/", "pipelines/results/run_report.py",
          "pipelines/results/differences.py")


def file_of(module: str) -> str | None:
    """The file of a module of ours, from the repository's root; None for a name inside one."""
    path = module.replace(".", "/")
    for name in (f"{path}.py", f"{path}/__init__.py"):
        if (REPOSITORY / name).is_file():
            return name
    return None


@functools.cache
def imported(file: str) -> frozenset[str]:
    """Files of ours that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse((REPOSITORY / file).read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {name for module in modules if module.split(".")[0] in PACKAGES and (name := file_of(module))}
    return frozenset(found - {file})


def reached(file: str) -> set[str]:
    """Files that a file needs, and those need, but for another family's and those of `BESIDE`."""
    seen, queue = {file}, [file]
    while queue:
        for name in imported(queue.pop()):
            if name not in seen and not name.startswith((*FAMILIES, *BESIDE)):
                seen.add(name)
                queue.append(name)
    return seen


STAGES = {f"{file}:{name}": stage for file in ("dvc.yaml", "pipelines/dvc.yaml")
          for name, stage in load_params(REPOSITORY / file)["stages"].items()}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_what_it_imports(name: str) -> None:
    stage = STAGES[name]
    commands = stage["cmd"] if isinstance(stage["cmd"], list) else [stage["cmd"]]
    modules = [re.match(r"python -m (\S+)", command).group(1) for command in commands]
    code = [path for path in stage["deps"] if path.split("/")[0] in PACKAGES]
    needed = set().union(*(reached(file_of(module)) for module in modules))
    # The faces of the packages import everything; what counts is what a stage takes from them.
    needed = {file for file in needed if Path(file).name != "__init__.py"}
    if "port/training" not in code:  # what only reads settings, or files of results
        needed = {file for file in needed if not file.startswith("port/")}
    missing = sorted(file for file in needed if not any(file == path or file.startswith(f"{path}/") for path in code))
    assert not missing, f"{name} imports what it does not depend on: {missing}"


def test_an_edit_of_another_family_leaves_a_run_alone() -> None:
    """The image model's runs do not depend on the routing ancestors, nor those on it."""
    image, routing = (set(STAGES[f"pipelines/dvc.yaml:{name}"]["deps"]) for name in (
        "train", "train_routing"))
    assert "port/em" not in image and "port/capsnet" not in image and "port/scae" in image
    assert {"port/em", "port/capsnet"} <= routing and "port/scae" not in routing
