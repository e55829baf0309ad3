"""Stage `raw`: which raw files a preset's data come from, so that DVC notices when they change.

    python -m pipelines.raw --preset mnist

Raw data lie outside the repository, or in a folder that git ignores, and need not be there before they are
fetched: DVC cannot depend on them. This stage always runs and leaves results/raw/<preset>/files.json, the
SHA-256 of each file; `prepare` depends on that and runs again only where it says something else. Where the
raw files are gone, what was recorded stands; where nothing was recorded, they are fetched.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from pipelines.prepare import load, places_of, root_of
from pipelines.support import settings
from pipelines.support.command_line import Params, Preset, Program, Results, Set
from pipelines.support.output import write_json
from port.data import root


def run(preset: settings.Preset, results: str | os.PathLike = settings.RESULTS) -> Path:
    """Record the raw files of a preset.

    Raises:
        DataError: there are none and they could not be fetched.
        BadInput: unknown settings.
    """
    wanted = preset.prepare()
    path = settings.folder_of("raw", preset.name, results=results) / "files.json"

    def there() -> dict[str, Path]:
        return root.files_of(wanted.source, root_of(wanted), places_of(wanted))
    if not there() and wanted.source in root.FILES:
        if recorded(path, wanted.source):
            return path
        load(wanted)
    write_json(path, {"source": wanted.source, "files": {name: sha256(file)
                                                         for name, file in sorted(there().items())}})
    return path


def recorded(path: Path, source: str) -> bool:
    """Whether the raw files of a source are known from before."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return known["source"] == source and bool(known["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def command(preset: Preset = "digits", overrides: Set = None, params: Params = "params.yaml",
            results: Results = "results") -> None:
    """Which raw files a preset's data come from, so that DVC notices when they change."""
    run(settings.load_preset(preset, overrides, params), results)


main = Program("python -m pipelines.raw", command)


if __name__ == "__main__":
    raise SystemExit(main())
