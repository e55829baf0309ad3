"""Text is read and written as UTF-8, and never as the machine happens to be set up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def without_encoding(source: str) -> Iterator[int]:
    """Lines that open, read or write a text file and do not say how it is encoded."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(each.arg in ("encoding", None) for each in node.keywords):
            continue
        called = ast.unparse(node.func)
        # `files.write_text` is our own, and writes UTF-8.
        if called.endswith((".read_text", ".write_text")) and called != "files.write_text" and not (
                called.endswith(".read_text") and node.args):
            yield node.lineno
        if called in ("open", "os.fdopen"):
            mode = [*node.args[1:2], *(each.value for each in node.keywords if each.arg == "mode")]
            if not (mode and isinstance(mode[0], ast.Constant) and "b" in mode[0].value):
                yield node.lineno


@pytest.mark.parametrize("package", ["port", "reference", "pipelines"])
def test_text_files_say_their_encoding(package: str) -> None:
    found = [f"{path.relative_to(REPOSITORY)}:{line}" for path in sorted((REPOSITORY / package).rglob("*.py"))
             for line in without_encoding(path.read_text(encoding="utf-8"))]
    assert not found, "text files without encoding=:\n" + "\n".join(found)


@pytest.mark.parametrize(("source", "found"), [
    ("path.read_text()", [1]), ("path.read_text(encoding='utf-8')", []), ("path.read_text('utf-8')", []),
    ("path.write_text(page)", [1]), ("files.write_text(path, page)", []), ("open(path)", [1]),
    ("open(path, 'rb')", []), ("open(path, mode='w')", [1]), ("open(path, 'w', encoding='utf-8')", [])])
def test_what_counts(source: str, found: list[int]) -> None:
    assert list(without_encoding(source)) == found
