"""What a visit brings home: at most eight flat files below 16 MiB, and the way back out of them.

    summary.json        what was done and measured, and the SHA-256 of every other file
    log.txt             what the phases said
    small.tar.gz        everything small: histories, environments, the checkpoints' state, measurements
    tensors-1.tar, …    weights and optimizer slots, several files of the checkpoints in each

Paths in the tars are those below the work folder. A checkpoint's files are below 15 MiB already
(`port.training.resume.write_tensors`), so none has to be cut. What does not fit is left out in the order of need:
first slots (the run then cannot go on, but its weights can be evaluated), and the summary says so. Where more
runs were trained than fit, further parcels of some of them are written as long as the machine is held:

    python -m pipelines.visit.parcel mnist-3 mnist-4 --out $OUT

and where more is taken along than fits, it is taken in parcel by parcel, before the visit begins:

    python -m pipelines.visit.parcel --unpack brought/mnist-3
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pipelines.support.command_line import Program, several
from pipelines.support.output import write_json
from pipelines.support.run_folders import run_of
from pipelines.support.values import BadInput, load_params
from pipelines.training import rows
from port.training import resume, sound

FILES, EACH, TOGETHER = 8, 16 * 2**20, 64 * 2**20
SMALL, PREFIX = "small.tar.gz", "tensors-"
ALWAYS = 3            # summary, log, small
TAR = 15.9 * 2**20    # of one tar, with its headers
TENSORS = ("model", "optimizer")
BESIDE = ("ablation-", "soak_")  # begin the names of checkpoints of rows and soaks
SMALL_LIMIT = 4 * 2**20  # a file above it is left out: it cannot be what this module calls small


@dataclass(frozen=True)
class Group:
    """Files that are of use only together.

    Attributes:
        name: for the summary, as `mnist-0 slots`.
        files: their paths.
    """

    name: str
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes in a tar, headers included."""
        return sum(padded(path) for path in self.files)


def padded(path: Path) -> int:
    """Bytes of a file in a tar: a header, and whole blocks of 512."""
    return 512 + -(-path.stat().st_size // 512) * 512


def newest_checkpoints(work: Path) -> list[Path]:
    """The last checkpoint of every run in a work folder, the one written last first."""
    # Asked once a run: a training that goes on meanwhile may replace the only one.
    found = [there[-1] for folder in (work / "checkpoints").glob("*")
             if folder.is_dir() and (there := resume.checkpoints(folder))]
    return sorted(found, key=lambda path: -path.stat().st_mtime)


def is_beside(checkpoint: Path) -> bool:
    """Whether a checkpoint is a row's of an ablation or a soak's, of which nothing but its end says anything."""
    return checkpoint.parent.name.startswith(BESIDE)


def groups_of(checkpoints: Sequence[Path]) -> list[Group]:
    """Weights of every run, then slots of every run, the one written last first in both.

    Of rows and soaks come the weights of those that wait to be measured, then the whole state of those under way.
    """
    def tensors(checkpoint: Path, *stems: str) -> tuple[Path, ...]:
        return tuple(sorted(path for stem in stems for path in checkpoint.glob(f"{stem}*.safetensors")))
    alone = [checkpoint for checkpoint in checkpoints if not is_beside(checkpoint)]
    found = [Group(f"{checkpoint.parent.name} {checkpoint.name} {words}", tensors(checkpoint, stem))
             for stem, words in zip(TENSORS, ("weights", "slots")) for checkpoint in alone]
    beside = sorted((checkpoint for checkpoint in checkpoints if is_beside(checkpoint)),
                    key=lambda checkpoint: (not waits(checkpoint), checkpoint.parent.name.startswith("soak_")))
    return found + [Group(f"{checkpoint.parent.name} {checkpoint.name} {'weights' if waits(checkpoint) else 'state'}",
                          tensors(checkpoint, *TENSORS[:1 if waits(checkpoint) else 2])) for checkpoint in beside]


def waits(checkpoint: Path) -> bool:
    """Whether a row is trained and only has to be measured."""
    return (checkpoint.parent / rows.TRAINED).is_file()


def forget_halves(work: Path) -> None:
    """Remove checkpoints of rows and soaks that came without a part: the run begins anew, and does not refuse to."""
    for checkpoint in filter(is_beside, newest_checkpoints(work)):
        if not waits(checkpoint):
            with contextlib.suppress(OSError):
                try:
                    sound.check_files(checkpoint)
                except sound.Damaged:
                    sound.discard(checkpoint)


def small_files(work: Path, checkpoints: Sequence[Path]) -> list[Path]:
    """What the results and measurements say, and of the checkpoints what is not weights or slots."""
    folders = [work / name for name in ("results/train", "results/soak", "runs", "measured")]
    found = [path for folder in (*folders, *work.glob("results/ablation*")) for path in folder.rglob("*")
             if path.suffix in (".json", ".csv") and "live" not in path.parts and "model" not in path.parts]
    found += [path for checkpoint in checkpoints for path in (*checkpoint.iterdir(), *checkpoint.parent.glob("*.json"))
              if not path.name.startswith(TENSORS)]
    return sorted(path for path in found if path.is_file() and path.stat().st_size <= SMALL_LIMIT)


def bins(files: Sequence[Path]) -> list[list[Path]]:
    """Files shared out among tars, the largest first, each into the first that has room."""
    found: list[tuple[float, list[Path]]] = []
    for path in sorted(files, key=padded, reverse=True):
        for i, (room, held) in enumerate(found):
            if padded(path) <= room:
                held.append(path)
                found[i] = (room - padded(path), held)
                break
        else:
            found.append((TAR - 2**14 - padded(path), [path]))
    return [held for _, held in found]


def pack(work: Path, out: Path, runs: Sequence[str] = ()) -> dict:
    """Write the parcel; the summary's part is returned, to be written by whoever owns the summary.

    Args:
        work: of the visit.
        out: folder that is brought home; holds summary.json and log.txt already.
        runs: the checkpoints of these alone, as `mnist-0`; none given, of all.

    Returns:
        `files` with their digests; `brought`, the files of each group by its name; `left_out`, the names of
        groups.

    Raises:
        FileNotFoundError: training replaced a checkpoint meanwhile; the earlier parcel is as it was.
    """
    checkpoints = [path for path in newest_checkpoints(work)
                   if not runs or run_of(path.parent) in runs]
    staging = work / "parcel.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with tarfile.open(staging / SMALL, "w:gz") as tar:
        for path in small_files(work, checkpoints):
            tar.add(path, path.relative_to(work))
    used = sum(path.stat().st_size for path in (staging / SMALL, *out.glob("*.txt"), *out.glob("*.json")))
    taken, brought, left_out = [], {}, []
    for group in groups_of(checkpoints):
        if not group.files:
            continue
        more = [*taken, *group.files]
        if len(bins(more)) <= FILES - ALWAYS and sum(map(padded, more)) + used + 2**18 <= TOGETHER:
            taken = more
            brought[group.name] = [str(path.relative_to(work)) for path in group.files]
        else:
            left_out.append(group.name)
    for number, files in enumerate(bins(taken), 1):
        with tarfile.open(staging / f"{PREFIX}{number}.tar", "w") as tar:
            for path in files:
                tar.add(path, path.relative_to(work))
    for checkpoint in checkpoints:  # one that went meanwhile may have given nothing, without an error
        if not (checkpoint / "state.json").is_file() or not list(checkpoint.glob(f"{TENSORS[0]}*.safetensors")):
            raise FileNotFoundError(f"{checkpoint} was replaced")
    written = {}
    for path in sorted(staging.iterdir()):
        written[path.name] = {"bytes": path.stat().st_size, "sha256": digest(path)}
        if path.stat().st_size >= EACH:
            raise BadInput(f"{path.name} has {path.stat().st_size} bytes, too many to be brought home")
    for old in out.glob(f"{PREFIX}*"):
        if old.name not in written:
            old.unlink()
    for name in written:  # perhaps from one file system to another
        shutil.copyfile(staging / name, out / f"{name}.tmp")
        os.replace(out / f"{name}.tmp", out / name)
    shutil.rmtree(staging)
    return {"files": written, "brought": brought, "left_out": left_out}


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(folder: Path, work: Path) -> dict:
    """Put what a visit brought into a work folder, beside what is there; newer checkpoints stay.

    A file that is missing or damaged costs what it held: a checkpoint of which a part is not there is left
    out whole, so that nothing goes on from half of one.

    Returns:
        Its summary, with what could not be used as `lost`.

    Raises:
        BadInput: no such parcel, or none of its files can be used.
    """
    if not (folder / "summary.json").is_file():
        raise BadInput(f"{folder}: no summary.json; name the folder that a visit's files came back in")
    summary = load_params(folder / "summary.json")
    lost = [name for name, facts in (summary.get("files") or {}).items()
            if not (folder / name).is_file() or digest(folder / name) != facts["sha256"]]
    staging = work / "unpacked.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name in summary.get("files") or {}:
        if name not in lost:
            with tarfile.open(folder / name) as tar:
                tar.extractall(staging, filter="data")
    for name, paths in (summary.get("brought") or {}).items():
        if not all((staging / path).is_file() for path in paths):
            lost.append(name)
            shutil.rmtree((staging / paths[0]).parent, ignore_errors=True)
    found = [path for path in sorted(staging.rglob("*")) if path.is_file()]
    for path in found:
        target = work / path.relative_to(staging)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    shutil.rmtree(staging)
    if not found:
        raise BadInput(f"{folder}: nothing of it can be used; missing or damaged: "
                       f"{', '.join(lost) or 'everything'}")
    return summary | {"lost": lost}


def command(runs: Annotated[list[str] | None, typer.Argument(metavar="PRESET-SEED",
                                                             help="Runs of the visit to write a parcel of.")] = None,
            out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that is brought home.")] = None,
            brought: Annotated[list[Path] | None, several(
                "--unpack", metavar="DIR", help="Parcels of an earlier visit, to be put into the work folder.")] = None,
            work: Annotated[Path, typer.Option(metavar="DIR", help="Of the visit.")] = Path("runs") / "visit") -> None:
    """Write a parcel of some runs of a visit, beside the one that the visit wrote, or take parcels in."""
    if not brought and not (runs and out):
        raise BadInput("name runs and --out to write a parcel, or --unpack with the folder of one to take in")
    for folder in brought or ():
        lost = unpack(folder, work)["lost"]
        print(f"unpacked: {folder}" + (f"; lost: {', '.join(lost)}" if lost else ""), flush=True)
    there = sorted({run_of(path.parent) for path in newest_checkpoints(work)})
    for run in runs or ():
        if run not in there:
            raise BadInput(f"{run}: no checkpoint of it in {work}; there are {', '.join(there) or 'none'}")
    if runs and out:
        out.mkdir(parents=True, exist_ok=True)
        packed = pack(work, out, runs)
        write_json(out / "summary.json", packed)
        print(f"brought: {', '.join(packed['brought'])}", flush=True)


main = Program("python -m pipelines.visit.parcel", command)


if __name__ == "__main__":
    raise SystemExit(main())
