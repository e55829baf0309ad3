"""Which files of ours hold code that a program may run, read off their text definition by definition.

A file that is imported for one function brings what that function uses, and not everything that its file imports.
Names are followed wherever they stand, so a local one that has the name of a function counts as it, and a class counts
whole: what is found may be too much. Where a module's name is made up (`f"port.evaluation.{name}"`), every module of
that folder counts whose last name stands in the file as text.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator

from parity_tests.goldens import REPOSITORY

PACKAGES = ("port", "reference", "parity_tests", "pipelines")


@functools.cache
def file_of(module: str) -> str | None:
    """The file of a module of ours, from the repository's root; None for a name inside one."""
    path = module.replace(".", "/")
    for name in (f"{path}.py", f"{path}/__init__.py"):
        if module.split(".")[0] in PACKAGES and (REPOSITORY / name).is_file():
            return name
    return None


def imports_of(nodes: list[ast.AST]) -> dict[str, tuple[str, str | None]]:
    """Name → module and the name in it, of imports of ours; None where the module itself is meant."""
    found: dict[str, tuple[str, str | None]] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if file_of(alias.name):
                    found[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0], None)
        elif isinstance(node, ast.ImportFrom) and node.module and file_of(node.module):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found[alias.asname or alias.name] = (inner, None) if file_of(inner) else (node.module, alias.name)
    return found


class File:
    """A file's definitions by name, its imports, and the statements that run when it is imported."""

    def __init__(self, name: str) -> None:
        body = ast.parse((REPOSITORY / name).read_text()).body
        self.defined: dict[str, list[ast.AST]] = {}
        self.imports = imports_of(body)
        self.running: list[ast.AST] = []
        self.texts = {one.value for node in body for one in ast.walk(node)
                      if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value.isidentifier()}
        for node in body:
            names: list[str] = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
            elif not isinstance(node, ast.Import | ast.ImportFrom) and "__main__" not in ast.unparse(node):
                self.running.append(node)
                self.imports |= imports_of(list(ast.walk(node)))
            for one in names:
                self.defined.setdefault(one, []).append(node)


read = functools.cache(File)


def named_by_strings(node: ast.AST, texts: set[str]) -> Iterator[str]:
    """Modules of ours that `importlib.import_module` is told, where a name is made up those of `texts`."""
    for one in ast.walk(node):
        if not isinstance(one, ast.Call) or not one.args or not ast.unparse(one.func).endswith("import_module"):
            continue
        told = one.args[0]
        made = isinstance(told, ast.JoinedStr)
        start = told.values[0] if made else told
        if isinstance(start, ast.Constant) and isinstance(start.value, str):
            yield from filter(file_of, (start.value + text for text in texts) if made else [start.value])


def chains(node: ast.AST) -> Iterator[list[str]]:
    """Names with the attributes taken of them: `a.b.c` as a, b, c."""
    inside = set()
    for one in ast.walk(node):
        if id(one) in inside or not isinstance(one, ast.Name | ast.Attribute):
            continue
        attributes, base = [], one
        while isinstance(base, ast.Attribute):
            attributes.append(base.attr)
            base = base.value
            inside.add(id(base))
        if isinstance(base, ast.Name):
            yield [base.id, *reversed(attributes)]


def named(module: str, name: str | None, more: list[str]) -> tuple[str, str | None]:
    """File and definition that a module, or a name in it, with the attributes taken of it stands for."""
    while name is None and more and file_of(f"{module}.{more[0]}"):
        module, more = f"{module}.{more[0]}", more[1:]
    if name is None and more:
        name = more[0]
    file = read(file_of(module))
    if name is not None and name not in file.defined and name in file.imports:  # passed on, by a package's face
        return named(*file.imports[name], [])
    return file_of(module), name


@functools.cache
def uses(source: str, name: str | None) -> frozenset[tuple[str, str | None]]:
    """What a definition names: others of its file, and of ours elsewhere; None is all of a file, "" its statements."""
    file = read(source)
    nodes = file.running if name == "" else file.defined.get(name, []) if name is not None else [
        one for nodes in file.defined.values() for one in nodes]
    found: set[tuple[str, str | None]] = {(source, "")}
    for node in nodes:
        here = file.imports | imports_of(list(ast.walk(node)))
        found |= {(file_of(told), None) for told in named_by_strings(node, file.texts)}
        for base, *more in chains(node):
            if base in here:
                found.add(named(*here[base], more))
            elif base in file.defined:
                found.add((source, base))
    return frozenset(found)


def reached(module: str, name: str | None = None, skipped: Callable[[str], bool] = lambda file: False) -> set[str]:
    """Files with code that `python -m module` may run.

    Args:
        module: the program.
        name: of a function in it, where only that one is called.
        skipped: says of a file that what it holds is not run.
    """
    start = file_of(module)
    assert start, module
    done = {(start, name)}
    queue = list(done)
    while queue:
        for one in uses(*queue.pop()):
            if one not in done and not skipped(one[0]):
                done.add(one)
                queue.append(one)
    return {source for source, _ in done}
