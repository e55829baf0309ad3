"""Port and reference start from bit-equal weights when given the same seed."""

from __future__ import annotations

import numpy as np
import pytest

import port
from parity_tests import goldens
from parity_tests.drawn import constellations as drawn_constellations
from parity_tests.drawn.models import SPECIAL
from parity_tests.goldens.shared import needs_shared
from parity_tests.harness import models

RECORDED = {golden.name: golden for golden in goldens.models() if "/" not in golden.name}
PRESETS = {
    "defaults": port.Config().to_arguments(),
    "constellation defaults": port.config.ConstellationConfig().to_arguments(),
    **{name: port.config.from_manifest(golden.manifest).to_arguments()
       for name, golden in RECORDED.items()},
    **{f"constellation {i}": case.arguments for i, case in enumerate(drawn_constellations.SPECIAL)},
    **{f"covering {i}": case.arguments for i, case in enumerate(SPECIAL)},
}


@pytest.mark.parametrize("seed", [0, 12345])
@pytest.mark.parametrize("name", needs_shared(PRESETS, lambda name: RECORDED.get(name, ())))
def test_same_seed_same_weights(name: str, seed: int, tier: str) -> None:
    """Names, shapes and every bit."""
    if tier == "smoke" and name not in ("defaults", "covering 0", "constellation 0"):
        pytest.skip("smoke tier: three configurations; test_model compares the others' too")
    reference, ours = (models.variables_of(side, models.build(side, PRESETS[name], "float32", seed))
                       for side in ("reference", "port"))
    assert sorted(reference) == sorted(ours)
    for variable, expected in reference.items():
        assert ours[variable].dtype == expected.dtype and ours[variable].shape == expected.shape
        assert np.array_equal(ours[variable], expected), f"{variable} differs for seed {seed}"


def test_other_seed_other_weights() -> None:
    """A seed that has no effect would pass the test above."""
    first, second = (models.variables_of("port", models.build("port", PRESETS["defaults"], "float32", s))
                     for s in (0, 1))
    drawn = [name for name, value in first.items() if np.ptp(value) > 0]
    assert drawn and all(not np.array_equal(first[name], second[name]) for name in drawn)
