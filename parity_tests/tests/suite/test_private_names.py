"""A name with one leading underscore is used in its own file alone; what other projects hide is listed here."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = ("port", "reference", "parity_tests", "pipelines")
# Methods of named tuples, which carry the underscore so that fields may have any name.
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
# Private names that are used all the same, of other projects but for one, each with its reason.
FOREIGN = {
    "adam._adam_f": "our own: forms of one step; a public name in `core` needs a counterpart in the reference",
    "torch._foreach_": "one operation for a list of tensors; torch.optim has no public form for other rules",
    "torch._dynamo": "the compiler's counters and explanations",
    "_dynamo_marked_constant": "how a compiler is told that a function's answer is a constant of the graph",
    "torch.utils._python_dispatch": "documented as the way to see every operation; has not left its private module",
    "torch.utils._pytree": "torch.export registers classes there alone",
    "torch.autograd._engine_run_backward": "what `backward` and `grad` have in common",
    "torch.Tensor._make_wrapper_subclass": "documented way to make a tensor subclass without memory",
    "torch.utils.backend_registration._setup_privateuseone_for_python_backend": "a pretended device without C++",
    "function._schema": "an operator's arguments by name",
    "checkpoint._allowed_determinism_checks_to_fns": "the table of checkpointing's checks of devices",
    "layer._forward_hooks": "the hooks that are left on a layer",
    "sys._getframe": "the caller's line, without the cost of `inspect.stack`",
    "os._exit": "the end of a child without its parent's clean-up",
    "beartype._cache.cacheclear": "no public way to forget type hints",
    "_cache": "Numba's files on disk, which a test makes fail",
    "kept._source_stamp": "what Numba compares to see whether its files on disk are stale",
}


def reached_into(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each private name that is taken from elsewhere: by an attribute or an import.

    Own are the names that the file itself defines or assigns, and what is reached through self or cls.
    """
    tree = ast.parse(source)
    own = {getattr(node, "name", None) or getattr(node, "id", None) or getattr(node, "attr", None)
           for node in ast.walk(tree)
           if isinstance(node, (ast.FunctionDef, ast.ClassDef))
           or isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
           or isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _through_self(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _private(node.attr) and not _through_self(node) \
                and node.attr not in own | OF_NAMED_TUPLES:
            yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                path = f"{node.module or ''}.{alias.name}"
                if any(map(_private, path.split("."))):
                    yield node.lineno, path


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _through_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


@functools.cache
def everywhere() -> tuple[tuple[str, str], ...]:
    """File and line, and text, of each such name in the repository."""
    return tuple((f"{path.relative_to(REPOSITORY).as_posix()}:{line}", text)
                 for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))
                 for line, text in reached_into(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("package", PACKAGES)
def test_private_names_stay_in_their_file(package: str) -> None:
    found = [f"{place}: {text}" for place, text in everywhere()
             if place.startswith(f"{package}/") and not any(name in text for name in FOREIGN)]
    assert not found, "private names of other files:\n" + "\n".join(found)


@pytest.mark.parametrize("name", FOREIGN)
def test_every_exception_is_needed(name: str) -> None:
    """A line of the list that nothing uses any more goes."""
    assert any(name in text for _, text in everywhere())


@pytest.mark.parametrize("source, found", [
    ("from a import b\nb._c", ["b._c"]), ("from a import _b", ["a._b"]), ("from a._b import c", ["a._b.c"]),
    ("import a\na.b._c()", ["a.b._c"]), ("x._asdict()", []), ("from __future__ import annotations", []),
    ("class A:\n    def f(self):\n        return self._b", []),
    ("class A:\n    def _b(self):\n        pass\ndef f(a):\n    return a._b()", []),
    ("def f(a):\n    a._b = 1", ["a._b"])])
def test_what_counts_as_reaching_in(source: str, found: list[str]) -> None:
    assert [text for _, text in reached_into(source)] == found
