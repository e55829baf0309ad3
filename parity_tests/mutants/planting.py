"""Run the suite's own checks against a package with a bug planted in it.

A mutant is a piece of source text and its replacement. The package is imported again with that text
in place, in this process and without touching the disk; registry and runners look functions up by
name at call time, so they meet the mutated code exactly as they would meet it on disk.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

import hypothesis
import numpy as np

from parity_tests import goldens, registry
from parity_tests.drawn import (
    constellations as drawn_constellations,
)
from parity_tests.drawn import (
    models as drawn_models,
)
from parity_tests.drawn import (
    modes as drawn_modes,
)
from parity_tests.drawn.verify import verify_model
from parity_tests.harness import recorder
from parity_tests.harness.reference_values import keeping
from parity_tests.harness.signatures import check_signature
from parity_tests.harness.strategies import Case, cases
from parity_tests.harness.verify import verify
from parity_tests.registry import OpCase

REPOSITORY = Path(__file__).resolve().parents[2]
# The modules that Numba compiles.
KERNELS = ("scae.pixel_footprint", "scae.pixel_components", "scae.pixel_forward", "scae.pixel_backward", "em.kernel")
MODE_ROOMS = ("scae.pcae", "scae.hierarchy")
CONSTELLATION_ROOMS = ("constellation.",)


@dataclass(frozen=True)
class Mutant:
    """A planted bug.

    Attributes:
        id: short name.
        file: `package/folder/module.py`.
        old: source text that stands there exactly once.
        new: what replaces it.
        what: the bug in words.
        seen: where it was met: a peer of `facts/peers.md`, or "".
    """

    id: str
    file: str
    old: str
    new: str
    what: str
    seen: str = ""

    @property
    def room(self) -> str:
        """The mutated module's name below its package."""
        return ".".join(Path(self.file).with_suffix("").parts[1:])

    def source(self) -> str:
        """The mutated file's text.

        Raises:
            ValueError: the text to replace is not there exactly once; the mutant is out of date.
        """
        text = (REPOSITORY / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"mutant {self.id}: {self.old!r} stands {text.count(self.old)} times in "
                             f"{self.file}, expected once; bring the mutant up to date")
        return text.replace(self.old, self.new)


class PatchedLoader(importlib.abc.SourceLoader):
    """Loads one module from given text; never reads or writes byte code."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str) -> bytes:
        return self.text.encode()

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, str(self.path), "exec", dont_inherit=True)


class PatchedFinder(importlib.abc.MetaPathFinder):
    """Finds one module, by its dotted name, with given text in the place of its file's."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self.name, self.loader = name, PatchedLoader(path, text)

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self.loader.path, loader=self.loader,
            submodule_search_locations=[str(self.loader.path.parent)]
            if self.loader.path.name == "__init__.py" else None)


def revision() -> str:
    """Short git revision, with `+changes` where the tree differs from it."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True,
                              text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "port", "reference", "parity_tests")
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")


def _modules(package: str) -> dict[str, object]:
    return {name: module for name, module in sys.modules.items()
            if name == package or name.startswith(package + ".")}


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Within the block the mutant's package is the mutated one; afterwards all is as before.

    A mutated kernel runs as plain Python: Numba would find the sound one in its cache, whose key
    does not cover the functions that a function calls. Signatures are not enforced in it: a bug has
    to be seen by its values, and a package with every signature wrapped takes seven times as long to
    import.
    """
    package = mutant.file.split("/")[0]
    finder = PatchedFinder(mutant.file.removesuffix(".py").replace("/", "."),
                           REPOSITORY / mutant.file, mutant.source())
    saved, finders = _modules(package), list(sys.meta_path)
    for name in saved:
        del sys.modules[name]
    sys.meta_path[:] = [finder, *(f for f in finders if not type(f).__module__.startswith("jaxtyping"))]
    try:
        _forget_hints()
        with interpreted() if mutant.room in KERNELS else contextlib.nullcontext():
            importlib.import_module(package)
            yield
    finally:
        sys.meta_path[:] = finders
        for name in _modules(package):
            del sys.modules[name]
        sys.modules.update(saved)
        _forget_hints()


def _forget_hints() -> None:
    """beartype keeps one type hint for all that print alike: `tuple[Row, ...]` of a package that is
    imported again would stand for the first one's Row, and refuse every row of its own."""
    with contextlib.suppress(ImportError):  # a private name, which other versions may not have
        from beartype._cache.cacheclear import clear_caches
        clear_caches()


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
    """Functions for Numba stay Python within the block."""
    config = importlib.import_module("numba").config
    before, config.DISABLE_JIT = config.DISABLE_JIT, 1
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        config.DISABLE_JIT = before


def check_row(row: OpCase, examples: int) -> None:
    """The row's special cases and so many random examples, the same ones every time.

    Raises:
        Exception: whatever the check of an example raises.
    """
    check_signature(row.op)
    for _, case in row.special:
        verify(row, case, f"mutant check of {row.op}", strict=True)

    @_examples(examples)
    @hypothesis.given(cases(row.draw))
    def parity(case: Case) -> None:
        verify(row, case, f"mutant check of {row.op}")

    parity()


def check_models(examples: int, drawn: ModuleType = drawn_models) -> None:
    """The fixed whole models, then so many drawn ones, the same every time.

    Args:
        examples: how many are drawn.
        drawn: image models or constellation models.

    Raises:
        Exception: whatever the check of an example raises.
    """
    for case in drawn.SPECIAL:
        verify_model(case, "mutant check of a fixed whole model", float32=False, n_steps=1)

    @_examples(examples)
    @hypothesis.given(cases(drawn.draw_model))
    def parity(case: drawn_models.ModelCase) -> None:
        verify_model(case, "mutant check of the whole model")

    parity()


def _examples(n: int) -> hypothesis.settings:
    return hypothesis.settings(max_examples=n, derandomize=True, database=None, deadline=None,
                               phases=[hypothesis.Phase.generate],
                               suppress_health_check=list(hypothesis.HealthCheck))


def _goldens(side: str) -> list[tuple[str, str, Callable[[], object]]]:
    """One check per committed recording of a whole model."""
    from parity_tests.goldens import verify_models as golden_models
    golden_models.forget()
    return [("golden", golden.name,
             lambda golden=golden: golden_models.verify_golden(golden, "noise", "float64", side))
            for golden in golden_models.MODELS if golden.folder.is_relative_to(goldens.HERE)]


@dataclass(frozen=True)
class Caught:
    """Which check said no: its kind (`op parity`, `model parity`, `golden`), its name, its words."""

    kind: str
    by: str
    message: str


def catch(mutant: Mutant, examples: int = 6, models: int = 6, all_rooms: bool = False
          ) -> Caught | None:
    """The first registry-driven check that fails on the mutant; None if none does.

    The rows of the mutated room come first, then whole models under drawn configurations, then the
    committed recordings, then, with `all_rooms`, every other row.

    Args:
        mutant: the planted bug.
        examples: random examples a row.
        models: drawn configurations.
        all_rooms: go on with the rows of other rooms before giving up.
    """
    with planted(mutant), recorder.aside(), keeping():
        rows = [row for row in registry.rows().values() if row.tested_by == "test_ops.py"]
        own = [row for row in rows if row.room == mutant.room]
        own += [row for row in (*rows, *registry.fast_rows()) if mutant.room in row.judges]
        checks = [("op parity", op, lambda op=op: check_signature(op))
                  for op in registry.rows() if op.startswith(f"{mutant.room}.")]
        checks += [("op parity", row.op, lambda row=row: check_row(row, examples)) for row in own]
        kinds = [("whole constellation model", drawn_constellations), ("whole model", drawn_models)]
        if not mutant.room.startswith(CONSTELLATION_ROOMS):
            kinds.reverse()
        other = ("whole model of another mode", drawn_modes)
        kinds = [other, *kinds] if mutant.room in MODE_ROOMS else [*kinds, other]
        checks += [("model parity", name, lambda drawn=drawn: check_models(models, drawn))
                   for name, drawn in kinds]
        checks += _goldens(mutant.file.split("/")[0])
        if all_rooms:
            checks += [("op parity", row.op, lambda row=row: check_row(row, examples))
                       for row in rows if row.room != mutant.room]
        for kind, name, check in checks:
            try:
                check()
            except Exception as error:  # whatever it is, the mutant did not pass
                lines = str(error).strip().splitlines() or [type(error).__name__]
                return Caught(kind, name, f"{type(error).__name__}: {lines[0]}"[:200])
    return None
