"""The tutorial as a Jupyter notebook: its Python blocks and commands as cells, its text between them.

The page stays the one source. The notebook is JSON of format 4.5, so that nothing of Jupyter is needed to write it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pipelines.pages.command_line import ROOT

PLACE = "tutorial.ipynb"
SOURCE = ROOT / "docs" / "tutorial.md"
COMMANDS = ("scae ", "dvc ")
# A fenced block of Python, an indented block, or a picture on a line of its own.
PIECE = re.compile(r"^```python\n(?P<python>.*?)^```$|(?P<indented>(?:^    \S[^\n]*\n?)+)"
                   r"|^!\[[^\]]*\]\((?P<picture>[^)\s]+)\)$", re.M | re.S)


def cells(text: str) -> list[dict[str, Any]]:
    """Cells of a page, in order; an indented block that is no command stays text."""
    found: list[dict[str, Any]] = []
    words = ""

    def code(source: str) -> None:
        nonlocal words
        if words.strip():
            found.append(cell("markdown", words, len(found)))
        words = ""
        found.append(cell("code", source, len(found)))
    end = 0
    for match in PIECE.finditer(text):
        words += text[end:match.start()]
        end = match.end()
        lines = [line.strip() for line in (match["indented"] or "").splitlines()]
        if match["python"]:
            code(match["python"])
        elif lines and all(line.startswith(COMMANDS) for line in lines):
            code("\n".join(f"!{line}" for line in lines))
        elif match["picture"]:  # that of the page was drawn once; the notebook shows its own
            code(f'from IPython.display import Image\n\nImage("tutorial/{Path(match["picture"]).name}")')
        else:
            words += match[0]
    if text[end:].strip():
        found.append(cell("markdown", words + text[end:], len(found)))
    return found


def cell(kind: str, source: str, number: int) -> dict[str, Any]:
    """One cell; links to other pages become their words, since the notebook lies alone."""
    if kind == "markdown":
        source = re.sub(r"(?<!!)\[([^\]]*)\]\((?![a-z]+://)[^)]*\)", r"\1", source)
    made: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source.strip("\n")}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def notebook() -> str:
    """The tutorial, as the text of its file."""
    return json.dumps({"cells": cells(SOURCE.read_text(encoding="utf-8")), "metadata": {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"
