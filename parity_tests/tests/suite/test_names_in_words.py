"""A dotted name between backticks, in a docstring or a comment, is something that is there.

Nothing is imported: modules, what they define and what they import are read from their text.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = ("port", "reference", "pipelines")
DOTTED = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\([^`]*\))?`")
FILES = {"py", "json", "yaml", "safetensors", "mat", "bz2", "index", "txt", "npz"}
# First words of names that are not ours.
FOREIGN = {
    "torch", "tf", "tfd", "snt", "np", "numba", "functools", "sys", "subprocess", "autograd", "Tensor", "F",
    # modules of the original program, after "Source:"
    "math_ops", "tensor_ops", "prob", "neural", "attention", "object_decoder", "capsule",
}
# Placeholders for a section of a configuration and a key in it, and for the owner of a method.
PLACEHOLDERS = {"section.name", "section.key", "owner.name"}
# Where the sections of a configuration and the keys in them are defined.
SETTINGS = ("pipelines/support/sections.py", "pipelines/support/settings.py", "port/training/schedule.py",
            "port/data/sources.py", "port/*/config*.py", "port/*/settings.py")
SECTIONS = {"train", "prepare", "evaluate", "model", "ablation", "presets", "cnn", "part_encoder", "part_decoder",
            "obj_encoder", "obj_decoder", "autoencoder", "routing", "class_routing", "wanted"}
# Names that are there only as what somebody may write by mistake.
NOT_THERE = {"train.learning_rate": "an example of a wrong name"}


def members(body: list[ast.stmt]) -> dict[str, object]:
    """Name → what it leads to: the members of a class, the path of an import, or None."""
    found: dict[str, object] = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = members(node.body)
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = None
            for inner in ast.walk(node):  # attributes that a method gives to its object
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                    found.setdefault(inner.attr, None)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            found |= {name.id: None for name in ast.walk(node)
                      if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            found |= members(node.body)
    return found


@functools.cache
def modules() -> dict[str, dict[str, object]]:
    """Dotted path of each module → what it holds."""
    found = {}
    for package in (*PACKAGES, "parity_tests"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = members(ast.parse(path.read_text(encoding="utf-8")).body)
    return found


@functools.cache
def keys() -> frozenset[str]:
    """Every name that a section of a configuration has: fields, keys of tables, and what the presets say."""
    found = set(re.findall(r"^ *(\w+):", (REPOSITORY / "params.yaml").read_text(encoding="utf-8"), re.M))
    for path in [path for pattern in SETTINGS for path in REPOSITORY.glob(pattern)]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign):
                found.add(getattr(node.target, "id", ""))
            if isinstance(node, ast.Dict):
                found |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return frozenset(found)


def leads_somewhere(module: str, names: list[str]) -> bool:
    """Whether a module holds a name, and that the next one, as far as their text says."""
    if not names:
        return True
    if f"{module}.{names[0]}" in modules():
        return leads_somewhere(f"{module}.{names[0]}", names[1:])
    if names[0] not in modules()[module]:
        return False
    found = modules()[module][names[0]]
    if isinstance(found, str):
        ours = found.partition(".")[0] in (*PACKAGES, "parity_tests")
        return not ours or from_the_top([*found.split("."), *names[1:]])
    return not isinstance(found, dict) or not names[1:] or names[1] in found


def from_the_top(names: list[str]) -> bool:
    """Whether a whole path leads somewhere."""
    return names[0] in modules() and leads_somewhere(names[0], names[1:])


def is_there(name: str, module: str) -> bool:
    """Whether a dotted name is a file, a setting, somebody else's, or leads somewhere as written in a module."""
    names = name.split(".")
    if names[-1] in FILES or names[0] in FOREIGN or name in PLACEHOLDERS or name in NOT_THERE:
        return True
    if names[0] in SECTIONS and (names[-1] in keys() or names[0] == "presets"):
        return True
    if names[0] in modules():
        return from_the_top(names)
    return leads_somewhere(module, names) or any(
        leads_somewhere(other, names[1:]) for other in modules()
        if other.endswith(f".{names[0]}") and other.partition(".")[0] != "parity_tests")


@pytest.mark.parametrize("package", PACKAGES)
def test_names_in_words_are_there(package: str) -> None:
    wrong = []
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        wrong += [f"{path.relative_to(REPOSITORY)}:{number}: {name}"
                  for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
                  for name in DOTTED.findall(line) if not is_there(name, module)]
    assert not wrong, "names of nothing:\n" + "\n".join(wrong)


@pytest.mark.parametrize(("name", "there"), [
    ("port.em.routing.route", True), ("port.em.routing.rout", False), ("port.em_routing.route", False),
    ("port.optim.RMSProp", True), ("warp.resampler", True), ("warp.resample", False), ("em_layers.route", False),
    ("part_decoder.PartDecoder.forward", True), ("part_decoder.PartDecoder.backward", False),
    ("train.rung", True), ("train.identity", False), ("config.json", True), ("torch.func", True)])
def test_what_is_there(name: str, there: bool) -> None:
    assert is_there(name, "port.core.ops") == there
