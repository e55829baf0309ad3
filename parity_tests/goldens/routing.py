"""Find and read recordings of the routing ancestors: CapsNet and matrix capsules.

One folder a family (`routing/capsnet`, `routing/em`), committed fixtures first, then the shared
folder; whatever a manifest lists is found, so that recordings nobody has seen yet are compared too.
Keys of a record are `in/…`, `var/…`, `out/…`, `cot/…`, `grad/…`; where one record holds several runs
on the same inputs and variables, the group (`t1`, `t2`, `t3`, or a name) follows the first slash of
`out`, `cot` and `grad`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity_tests import goldens
from parity_tests.harness import recorder, sides, tolerances
from parity_tests.harness.compare import ParityError, Where, check_values

FAMILIES = ("capsnet", "em")
# Keys below `out/` that are variables after an optimizer step, not a group.
STEPS = "after_step"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Group:
    """One run of a record's function: names → arrays.

    Attributes:
        outputs: what the function gave.
        cotangents: by output; empty where the gradient is that of a scalar output.
        gradients: by input, or by `var/<variable>`.
    """

    outputs: Arrays
    cotangents: Arrays
    gradients: Arrays


@dataclass(frozen=True)
class RoutingRecord:
    """One recorded function.

    Attributes:
        family: `capsnet` or `em`.
        folder: where its file lies.
        entry: its entry in the manifest.
    """

    family: str
    folder: Path
    entry: Mapping

    @property
    def name(self) -> str:
        """The record's name, unique in its family."""
        return self.entry["name"]

    @property
    def key(self) -> str:
        """`routing/<family>/<name>`."""
        return f"routing/{self.family}/{self.name}"

    @property
    def dtype(self) -> str:
        """Floating dtype the program ran in."""
        return "float32" if self.entry["dtype"] == "float32" else "float64"

    @property
    def attributes(self) -> dict:
        """Sizes, constants and layouts."""
        return dict(self.entry["attributes"])

    @property
    def network(self) -> bool:
        """Whether it is a whole network with its losses."""
        return any(key in self.entry["keys"] for key in ("out/losses_over_steps", "out/loss_total"))

    def arrays(self) -> Arrays:
        """Every array by its full key.

        Raises:
            MissingGolden: the file named in the manifest is not there.
        """
        path = self.folder / self.entry["file"]
        if not path.is_file():
            raise goldens.MissingGolden(f"{self.key}: the manifest names {self.entry['file']}, which "
                                        f"belongs at {goldens.relative(path)}")
        return _read(path)

    def below(self, prefix: str) -> Arrays:
        """Arrays whose key begins with `prefix/`, without it."""
        return {key[len(prefix) + 1:]: value for key, value in self.arrays().items()
                if key.startswith(f"{prefix}/")}

    @property
    def inputs(self) -> Arrays:
        """Inputs by name."""
        return self.below("in")

    @property
    def variables(self) -> Arrays:
        """Variables under the program's own names."""
        return self.below("var")

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups in the manifest's order; `("",)` where the record is one run."""
        found = dict.fromkeys(key.split("/")[1] for key in self.entry["keys"]
                              if key.startswith("out/") and key.count("/") > 1
                              and not key.startswith(f"out/{STEPS}"))
        return tuple(found) or ("",)

    def group(self, name: str = "") -> Group:
        """One run; gradients of a network's variables are named `var/…` like all others."""
        places = [f"{kind}/{name}".rstrip("/") for kind in ("out", "cot", "grad")]
        outputs, cotangents, gradients = (self.below(place) for place in places)
        variables = self.variables
        return Group({key: value for key, value in outputs.items() if not key.startswith(STEPS)},
                     cotangents, {f"var/{key}" if key in variables else key: value
                                  for key, value in gradients.items()})

    @property
    def common(self) -> Arrays:
        """Outputs that all groups share (votes); empty where the record is one run."""
        return {} if self.groups == ("",) else {
            key: value for key, value in self.below("out").items() if "/" not in key}

    def after(self, step: int) -> Arrays:
        """Variables after so many optimizer steps; empty where the record has none."""
        return self.below(f"out/{STEPS}{step}")


@functools.lru_cache(maxsize=16)
def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def records(family: str) -> list[RoutingRecord]:
    """Every record of a family; of two with one name the first root's counts."""
    found: dict[str, RoutingRecord] = {}
    for root in goldens.roots():
        folder = root / "routing" / family
        if not (folder / "manifest.json").is_file():
            continue
        for entry in goldens.Golden(f"routing/{family}", folder).manifest["records"]:
            found.setdefault(entry["name"], RoutingRecord(family, folder, entry))
    return list(found.values())


def committed(family: str) -> list[RoutingRecord]:
    """The records that are part of the repository."""
    return [record for record in records(family) if record.folder.is_relative_to(goldens.HERE)]


def missing(family: str) -> str | None:
    """Why only the committed records of a family are compared; None where all are there."""
    if any(not record.folder.is_relative_to(goldens.HERE) for record in records(family)):
        return None
    place = goldens.relative(goldens.REPOSITORY.parent / "shared" / "goldens" / "routing" / family)
    return (f"recordings routing/{family} are not here: they belong at {place} or below "
            "$SCAE_GOLDENS/routing; only the committed ones are compared")


def held(record: RoutingRecord, tap: str, side: str, actual: np.ndarray, expected: np.ndarray,
         test: str, largest: float | None = None) -> float:
    """Compare one array by the rule of the recordings: largest difference over largest value.

    Where the recording is not finite (the official squash at zero), ours must be.

    Args:
        record: what is compared with.
        tap: the array's full key, such as `grad/t3/votes`.
        side: `reference` or `port`, with its dtype.
        actual: ours, of the same shape.
        expected: the recorded array.
        test: pytest's name of the test, for the message.
        largest: largest value of the array, where the recording holds only samples of it.

    Returns:
        The margin: error over bound.

    Raises:
        ParityError: beyond the bound, of another shape, or not finite.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    place = Where(record.key, tap, side, "the recording", f'python -m pytest "{test}"')
    if actual.shape != expected.shape:
        raise ParityError(f"{place.head()}\n  shape {list(actual.shape)}, expected "
                          f"{list(expected.shape)}\n{place.foot()}")
    kept = np.isfinite(expected)
    if not np.isfinite(actual).all():
        check_values(place, actual, np.where(kept, expected, 0.0), 0.0)
    device = sides.place() if side.startswith("port") else "cpu"
    bound = tolerances.routing(record.family, record.name, record.network, record.dtype, tap, device)
    margin = check_values(place, np.where(kept, actual, 0.0), np.where(kept, expected, 0.0),
                          bound * (tolerances.scale(expected) if largest is None else largest))
    recorder.golden(record.key, side, margin, "pass", bound=bound)
    return margin


def first_of_each(found: Iterable[RoutingRecord]) -> set[str]:
    """Names of the first record of each function and dtype, for the smoke tier."""
    return set({(r.entry["function"], r.dtype): r.name for r in reversed(list(found))}.values())
