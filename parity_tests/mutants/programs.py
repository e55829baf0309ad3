"""A program from outside the packages with other text in one of its files: all that imported it is imported anew.

A name that was imported before (`from attention import weights`) would keep the sound function. So the module
stands under its own dotted name, and every loaded module of the program that leads to it, also by other modules,
is taken out of `sys.modules` for as long. Libraries and this project's packages stay as they are.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

from parity_tests.mutants.planting import PatchedFinder

OURS = {"parity_tests", "port", "reference", "pipelines", "scae_parity"}
STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
INSTALLED = {"site-packages", "dist-packages"}


def module_name(path: Path) -> str:
    """The dotted name under which a file is imported: that of the loaded module, else by the import path.

    Raises:
        ValueError: it can not be imported, or another file is imported in its place.
    """
    for name, module in list(sys.modules.items()):
        if name != "__main__" and file_of(module) == path:
            return name
    parts = path.parent if path.name == "__init__.py" else path.with_suffix("")
    folders = {Path(entry).resolve() for entry in sys.path}
    root = path.parent
    while root not in folders or (root / "__init__.py").is_file():
        if root == root.parent:
            raise ValueError(f"{path} lies in no folder of sys.path, so that nothing can import it")
        root = root.parent
    name = ".".join(parts.relative_to(root).parts)
    other = file_of(sys.modules.get(name))
    if other is not None:
        raise ValueError(f"{path} is not what is imported as {name}, which is {other}")
    return name


def file_of(module: object) -> Path | None:
    """The file of Python that a module was loaded from; None where there is none."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or not os.path.isabs(file):
        return None
    return Path(file).resolve() if os.path.isfile(file) else None


def programs(package: str) -> dict[str, ModuleType]:
    """Loaded modules that belong to somebody's program: no library's but those of this package, and not ours."""
    found = {}
    for name, module in list(sys.modules.items()):
        top, path = name.partition(".")[0], file_of(module)
        if path is None or top in OURS or name == "__main__":
            continue
        if top == package or not (path.is_relative_to(STANDARD) or INSTALLED & set(path.parts)):
            found[name] = module
    return found


def imports(name: str, module: ModuleType) -> set[str]:
    """Dotted names that a module imports anywhere in its file, and the modules whose functions it holds."""
    path = file_of(module)
    held = list(vars(module).values())
    found = {value.__module__ for value in held if isinstance(value, type | FunctionType)}
    # A package holds its modules as soon as anybody has imported them.
    found |= {value.__name__ for value in held if isinstance(value, ModuleType)
              and not value.__name__.startswith(f"{name}.")}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                with contextlib.suppress(ImportError):
                    base = importlib.util.resolve_name("." * node.level + base, package)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {each for each in found if isinstance(each, str)} - {name}


def importers(name: str) -> set[str]:
    """The module and every loaded module that leads to it; of a package that does, all of its modules."""
    loaded = programs(name.partition(".")[0])
    needs = {each: imports(each, module) for each, module in loaded.items()}
    found, last = {name}, set()
    while found != last:
        last = set(found)
        found |= {each for each, needed in needs.items() if needed & last}
        packages = tuple(f"{each}." for each in found if hasattr(loaded.get(each), "__path__"))
        found |= {each for each in loaded if each.startswith(packages)}
    return found & (set(loaded) | {name})


@contextlib.contextmanager
def imported_with(name: str, path: Path, text: str) -> Iterator[None]:
    """Within the block the file holds this text, for all of the program; afterwards all is as before."""
    package, folders = name.partition(".")[0], list(sys.path)
    saved = {each: sys.modules.pop(each) for each in importers(name) if each in sys.modules}
    others = set(sys.modules)
    # An import sets the module's name in the package that it lies in.
    names = [(parent, leaf, vars(parent)[leaf]) for parent, leaf in map(place, saved) if leaf in vars(parent)]
    finder = PatchedFinder(name, path, text)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(name)
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path[:] = folders
        for each in set(programs(package)) - others:
            module = sys.modules.pop(each)
            parent, leaf = place(each)
            if vars(parent).get(leaf) is module:
                delattr(parent, leaf)
        sys.modules.update(saved)
        for parent, leaf, value in names:
            setattr(parent, leaf, value)


def place(name: str) -> tuple[ModuleType, str]:
    """The package of a module, where it is loaded, and the module's name in it."""
    parent, _, leaf = name.rpartition(".")
    return sys.modules.get(parent) or ModuleType("none"), leaf
