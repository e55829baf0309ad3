"""A folder for what torch compiles, where the one it would take cannot be written.

torch makes that folder while it is imported, far from any command that could say so in words: a variable
that points nowhere, a folder of another user or a user without a name would end `import port`.
"""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def usable(folder: Path) -> bool:
    """Whether a file can be written there; the folder is made, as torch would."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            return file.write(b"0") == 1
    except OSError:
        return False


def folder() -> Path:
    """Where torch keeps what it compiled, as it finds the place itself; the folder need not be there yet."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"


def prepare() -> str | None:
    """Point torch to a folder of this process alone, where its own cannot be used; removed at the end.

    Returns:
        That folder, None where torch keeps its own.
    """
    given = os.environ.get(VARIABLE)
    try:
        own = f"torchinductor_{getpass.getuser()}" if not given else ""
        if usable(Path(given or tempfile.gettempdir()) / own):
            return None
    except (OSError, KeyError, ImportError):  # no temporary folder, or a user without a name
        pass
    try:
        made = tempfile.mkdtemp(prefix="torchinductor-")
    except OSError:
        return None  # nowhere at all: torch says so
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    os.environ[VARIABLE] = made
    return made


prepare()  # this is the first module that the package imports
