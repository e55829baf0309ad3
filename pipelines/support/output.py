"""Results as JSON; `port.core.files` writes them whole or not at all, and `boundary` words what fails."""

from __future__ import annotations

import json
import os

from port.core import files


def write_json(path: str | os.PathLike, values) -> None:
    """A JSON file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    files.write_text(path, json.dumps(values, indent=1) + "\n")
