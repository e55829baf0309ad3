"""A pair of programs from outside the packages, put to the suite: `pytest --registry=PATH`.

PATH is a Python file with `ROWS` (`OpCase`), and if there are any `RECORDINGS` and `MUTANTS`; its folder
holds the two programs. docs/port_your_own_model.md walks through it.

    python -m parity_tests.given PATH      writes the recordings anew, from the reference side
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from parity_tests.harness import tolerances
from parity_tests.harness.compare import ParityError, Where, check
from parity_tests.harness.sides import Arrays, Lib, ProgramError, draw_cotangents, draw_variables, run
from parity_tests.mutants.planting import Mutant
from parity_tests.mutants.programs import imported_with, module_name
from parity_tests.registry import OpCase


@dataclass(frozen=True)
class Pair:
    """Two modules beside a registry file, by name; looked up at call time, so that a mutant counts.

    Attributes:
        reference: the TensorFlow side.
        port: the PyTorch side.
    """

    reference: str
    port: str

    def of(self, lib: Lib) -> ModuleType:
        """The side's module."""
        return importlib.import_module(getattr(self, lib.side))

    def port_module(self) -> ModuleType:
        """The PyTorch side, for its table."""
        return importlib.import_module(self.port)

    def build(self, lib: Lib, name: str, scope: str, *arguments: Any) -> Any:
        """An instance of a class that both sides have, drawn from seed 0, in the side's dtype.

        It is made by `Name(scope, …, rng=, dtype=)` on the TensorFlow side and by `Name(…, rng=)` on the other.

        Raises:
            ProgramError: there is no such class, or it does not take these arguments.
        """
        where, rng = self.of(lib), np.random.default_rng(0)
        cls = getattr(where, name, None)
        if cls is None:
            raise ProgramError(f"{where.__name__} has no {name}, which PAIR.build makes on the {lib.side} side")
        if lib.side == "reference":
            import tensorflow as tf
            taken(cls, scope, *arguments, rng=rng, dtype=getattr(tf, lib.dtype))
            return cls(scope, *arguments, rng=rng, dtype=getattr(tf, lib.dtype))
        taken(cls, *arguments, rng=rng)
        module = cls(*arguments, rng=rng)
        return module.double() if lib.dtype == "float64" else module


def taken(cls: type, *arguments: Any, **keywords: Any) -> None:
    """Whether a class takes the arguments that it is made with.

    Raises:
        ProgramError: it does not.
    """
    try:
        inspect.signature(cls.__init__).bind(cls, *arguments, **keywords)
    except TypeError as error:
        said = ", ".join([*map(repr, arguments), *(f"{name}=" for name in keywords)])
        raise ProgramError(f"{cls.__module__}.{cls.__qualname__} does not take ({said}), with which PAIR.build makes "
                           f"it: {error}") from None


@dataclass(frozen=True)
class Recording:
    """What a program gave on known inputs: an .npz with `in/…`, `var/…`, `out/…`, `cot/…`, `grad/…`.

    `grad/<input>` and `grad/var/<variable>` are gradients of Σ cot·out; values are float64, in the
    reference's layout and under its variable names.

    Attributes:
        file: beside the registry file.
        op: the row that runs it.
        attributes: plain arguments.
    """

    file: str
    op: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Registry:
    """A registry file, loaded."""

    path: Path
    rows: dict[str, OpCase]
    recordings: tuple[Recording, ...]
    mutants: tuple[Mutant, ...]


def load(path: str | Path, recorded: bool = True) -> Registry:
    """Run a registry file; its folder is importable from then on.

    Args:
        path: of the file.
        recorded: its recordings have to be there; False where they are about to be written.

    Raises:
        FileNotFoundError: no such file, or a recording that it names is not there.
        AttributeError: it defines no `ROWS`.
        ValueError: a recording of an op that has no row.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"--registry {path}: no such file; name a Python file with ROWS")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"given_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not getattr(module, "ROWS", ()):
        raise AttributeError(f"--registry {path}: it defines no ROWS, a tuple of "
                             "parity_tests.registry.OpCase")
    rows, recordings = {row.op: row for row in module.ROWS}, tuple(getattr(module, "RECORDINGS", ()))
    for recording in recordings:
        if recorded and not (path.parent / recording.file).is_file():
            raise FileNotFoundError(f"--registry {path}: RECORDINGS name {recording.file}, which is not in its folder")
        if recording.op not in rows:
            raise ValueError(f"--registry {path}: recording {recording.file} is of {recording.op}, which has no row")
    return Registry(path, rows, recordings, tuple(getattr(module, "MUTANTS", ())))


def verify_recording(found: Registry, recording: Recording, side: str) -> None:
    """One side in float64 against a recording.

    Raises:
        ParityError: a value or a gradient differs by more than its bound.
    """
    arrays = dict(np.load(found.path.parent / recording.file))
    recipe = found.rows[recording.op].recipe

    def below(prefix: str) -> Arrays:
        return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
    outcome = run(side, recipe, below("in/"), recording.attributes, "float64", below("cot/"),
                  below("var/") or None)
    largest = tolerances.scale(*below("cot/").values(), *below("grad/").values())
    for key, expected in arrays.items():
        kind, _, name = key.partition("/")
        if kind not in ("out", "grad"):
            continue
        place = Where(recording.op, key, f"{side} float64", "the recording",
                      f'python -m pytest --registry="{os.path.relpath(found.path)}" -k recording')
        if kind == "out":
            check(place, outcome.outputs[name], expected, tolerances.forward64(expected))
            continue
        name = f"vargrad/{name[4:]}" if name.startswith("var/") else f"grad/{name}"
        check(place, outcome.gradients[name], expected, tolerances.gradient64(expected, largest))


@contextlib.contextmanager
def planted(found: Registry, mutant: Mutant) -> Iterator[Registry]:
    """Within the block the program is the one with the bug in it; gives the registry, loaded anew with it.

    Raises:
        ValueError: the text to replace is not there exactly once, or the file is not what is imported.
    """
    path = (found.path.parent / mutant.file).resolve()
    if not path.is_file():
        raise ValueError(f"mutant {mutant.id}: there is no {path}; `file` is seen from the registry's folder")
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"mutant {mutant.id}: {mutant.old!r} stands {text.count(mutant.old)} times in "
                         f"{mutant.file}, expected once; bring the mutant up to date")
    try:
        name = module_name(path)
    except ValueError as error:
        raise ValueError(f"mutant {mutant.id}: {error}") from None
    with imported_with(name, path, text.replace(mutant.old, mutant.new)):
        yield load(found.path)


def record(found: Registry, recording: Recording, inputs: Arrays, seed: int = 0) -> None:
    """Write a recording from the reference side, with drawn variables and cotangents."""
    row = found.rows[recording.op]
    variables = draw_variables(row.recipe, recording.attributes, seed)
    outcome = run("reference", row.recipe, inputs, recording.attributes, "float64",
                  lambda outputs: draw_cotangents(outputs, seed + 1), variables)
    arrays = {f"in/{name}": value for name, value in inputs.items()}
    arrays |= {f"var/{name}": value for name, value in (variables or {}).items()}
    arrays |= {f"out/{name}": value for name, value in outcome.outputs.items()}
    arrays |= {f"cot/{name}": value for name, value in outcome.cotangents.items()}
    for name, value in outcome.gradients.items():
        kind, _, rest = name.partition("/")
        if value is not None:
            arrays[f"grad/{rest}" if kind == "grad" else f"grad/var/{rest}"] = value
    np.savez_compressed(found.path.parent / recording.file, **arrays)


USAGE = "python -m parity_tests.given PATH, a registry file"


def main() -> int:
    """Write every recording of a registry file; inputs are those already recorded, or the row's first."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(f"usage: {USAGE}\n\nWrites the file's recordings anew, from the reference side.")
        return 0
    if len(words) != 1 or words[0].startswith("-"):
        print(f"usage: {USAGE}", file=sys.stderr)
        return 2
    try:
        found = load(words[0], recorded=False)
    except (FileNotFoundError, AttributeError, ValueError) as error:
        if not str(error).startswith("--registry"):
            raise  # of the file's own code
        print(f"error: {str(error).removeprefix('--registry ')}", file=sys.stderr)
        return 2
    if not found.recordings:
        print(f"error: no RECORDINGS in {found.path}: there is nothing to write", file=sys.stderr)
        return 2
    for recording in found.recordings:
        path = found.path.parent / recording.file
        if path.is_file():
            inputs = {key[3:]: value for key, value in np.load(path).items() if key.startswith("in/")}
        else:
            inputs = example(found.rows[recording.op], recording.attributes)
        record(found, recording, inputs)
        print(path)
    return 0


def example(row: OpCase, attributes: Mapping[str, Any]) -> Arrays:
    """Inputs of the first drawn example with these attributes."""
    import hypothesis

    from parity_tests.harness.strategies import cases
    found: list[Arrays] = []

    @hypothesis.settings(max_examples=500, database=None, derandomize=True,
                         suppress_health_check=list(hypothesis.HealthCheck), deadline=None)
    @hypothesis.given(cases(row.draw))
    def look(case: Any) -> None:
        if dict(case.attributes) == dict(attributes):
            found.append(case.inputs)
    look()
    if not found:
        raise ParityError(f"{row.op}: no drawn example has the attributes {dict(attributes)}")
    return found[0]


if __name__ == "__main__":
    raise SystemExit(main())
