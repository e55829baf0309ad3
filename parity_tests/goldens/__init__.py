"""Find recordings of the original program: committed fixtures first, then the shared folder.

Folders are discovered by their manifests, never by a list, so that recordings nobody has seen yet
are compared as soon as they lie there.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[1]
REPOSITORY = HERE.parent
# What a full checkout with recordings has; a missing one is reported as skipped, with its place.
EXPECTED = ("tiny_alpha", "rgb_tiny", "mnist_coupled", "constellation", *(f"options/{name}" for name in (
    "constellation_mlp",
    "enc_linear", "similarity", "no_feature", "vote_soft", "sparsity_kl", "output_scale",
    "no_stopgrad", "no_templates_fed", "no_deform_fixed_scale", "caps_dropout", "hiddens_list")))
EXPECTED_OPS = ("ops", "options/hierarchy", "options/mode_probe", "options/attention_dropout",
                "options/background_image", "options/constellation_student")


class MissingGolden(FileNotFoundError):
    """A recording that is not there; the message says which and where it belongs."""


def roots() -> list[Path]:
    """Folders searched, in order of precedence."""
    named = os.environ.get("SCAE_GOLDENS")
    places = [HERE / "fixtures" / "goldens", Path(named) if named else None,
              REPOSITORY.parent / "shared" / "goldens"]
    return [place for place in places if place is not None and place.is_dir()]


@dataclass(frozen=True)
class Golden:
    """One folder of recordings.

    Attributes:
        name: path below the root, such as `options/vote_soft`.
        folder: where it lies.
    """

    name: str
    folder: Path

    @property
    def manifest(self) -> dict | list:
        """The parsed manifest.json."""
        return _json(self.folder / "manifest.json")

    def has(self, file: str) -> bool:
        """Whether the folder holds `file`."""
        return (self.folder / file).is_file()

    def load(self, file: str) -> dict[str, np.ndarray]:
        """All arrays of an npz file.

        Raises:
            MissingGolden: naming the file and where it belongs.
        """
        path = self.folder / file
        if not path.is_file():
            raise MissingGolden(f"golden {self.name} has no {file}; it belongs at {relative(path)}")
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    def load_if_there(self, file: str) -> dict[str, np.ndarray]:
        """All arrays of an npz file, or none."""
        return self.load(file) if self.has(file) else {}


@functools.cache
def _json(path: Path) -> dict | list:
    return json.loads(path.read_text())


def relative(path: Path) -> str:
    """A path as seen from the repository, for messages."""
    return os.path.relpath(path, REPOSITORY)


def discover() -> dict[str, Golden]:
    """Every folder with a manifest below any root; the first root wins."""
    found: dict[str, Golden] = {}
    for root in roots():
        for manifest in sorted(root.rglob("manifest.json")):
            name = manifest.parent.relative_to(root).as_posix()
            if name.startswith("routing") or not manifest.is_file():
                continue
            found.setdefault(name, Golden(name, manifest.parent))
    return found


def is_constellation(golden: Golden) -> bool:
    """Whether a model folder belongs to the constellation autoencoder."""
    manifest = golden.manifest
    if "arguments" in manifest:
        return "part_decoder" not in manifest["arguments"]
    return any("constellation" in flag for flag in manifest.get("flags", []))


def models() -> list[Golden]:
    """Folders of image models: a manifest with variables and a checkpoint beside it."""
    return [golden for golden in discover().values()
            if isinstance(golden.manifest, dict) and golden.folder.joinpath("checkpoint").is_dir()
            and not is_constellation(golden)]


def constellations() -> list[Golden]:
    """Folders of constellation models."""
    return [golden for golden in discover().values()
            if isinstance(golden.manifest, dict) and golden.folder.joinpath("checkpoint").is_dir()
            and is_constellation(golden)]


def missing() -> list[tuple[str, str]]:
    """(name, reason) of each known folder that is not there."""
    found = discover()
    return [(name, f"golden {name} is not here: it belongs at "
             f"{relative(REPOSITORY.parent / 'shared' / 'goldens' / name)} or below $SCAE_GOLDENS")
            for name in (*EXPECTED, *EXPECTED_OPS) if name not in found]


@dataclass(frozen=True)
class Record:
    """One op-level record; `key` is unique over all folders."""

    golden: Golden
    entry: dict

    @property
    def key(self) -> str:
        """Folder/function/case/dtype, marked where the float64 record was patched."""
        patched = "patched" if "f64patched" in str(self.entry.get("file")) else ""
        return "/".join(str(v) for v in (self.golden.name, self.entry["function"],
                                         self.entry.get("case"), self.entry.get("dtype"))) + patched

    @property
    def ok(self) -> bool:
        """Whether the original produced values."""
        return self.entry["status"] == "ok"

    @property
    def function(self) -> str:
        """The original's function name."""
        return self.entry["function"]

    @property
    def dtype(self) -> str:
        """`float32`, `float64` or `np`."""
        return {"f32": "float32", "f64": "float64"}.get(self.entry.get("dtype"), "np")

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Arrays by group: in, out, cot, grad, var, vargrad."""
        archive = _archive(self.golden.folder / self.entry["file"])
        prefix = self.entry["key_prefix"]
        groups: dict[str, dict[str, np.ndarray]] = {
            group: {} for group in ("in", "out", "cot", "grad", "var", "vargrad")}
        for key in archive.files:
            if key.startswith(prefix):
                group, name = key[len(prefix):].split("/", 1)
                groups.setdefault(group, {})[name] = archive[key]
        return groups


@functools.lru_cache(maxsize=4)
def _archive(path: Path) -> np.lib.npyio.NpzFile:
    return np.load(path, allow_pickle=False)


def records() -> list[Record]:
    """Every op-level record of every folder, failures of the original included."""
    found = []
    for golden in discover().values():
        for manifest in sorted(golden.folder.glob("manifest*.json")):
            entries = _json(manifest)
            if isinstance(entries, list):
                found += [Record(golden, entry) for entry in entries]
    return found
