"""Checkpoints of made-up sizes and parcels of them, for the tests of a visit."""

from __future__ import annotations

from pathlib import Path

from pipelines.support.output import write_json
from pipelines.visit import parcel
from port.training import resume


def checkpoint(work: Path, name: str, step: int, sizes: dict[str, int]) -> Path:
    """A checkpoint whose files have these sizes in bytes, in parts of 15 MiB."""
    folder = work / "checkpoints" / name / f"step-{step:08d}"
    folder.mkdir(parents=True)
    write_json(folder / "state.json", {"step": step, "seconds": 1.0, "history": []})
    (folder / "streams.safetensors").write_bytes(b"streams")
    for stem, size in sizes.items():
        for i, at in enumerate(range(0, size, resume.FILE_LIMIT), 1):
            with open(folder / f"{stem}-{i:05d}.safetensors", "wb") as file:
                file.truncate(min(resume.FILE_LIMIT, size - at))
    return folder


def packed(tmp_path: Path) -> dict:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    (out / "log.txt").write_text("log")
    write_json(out / "summary.json", {})
    found = parcel.pack(tmp_path / "work", out)
    write_json(out / "summary.json", found)
    files = list(out.iterdir())
    assert len(files) <= parcel.FILES and all(path.stat().st_size < parcel.EACH for path in files)
    assert sum(path.stat().st_size for path in files) <= parcel.TOGETHER
    return found
