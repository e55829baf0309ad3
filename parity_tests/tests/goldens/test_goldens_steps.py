"""Optimizer steps from recorded checkpoints, slots included: losses, scalars and variables.

How they are run and compared stands in `verify_steps`.
"""

from __future__ import annotations

import pytest

from parity_tests import goldens
from parity_tests.goldens import Golden
from parity_tests.goldens.verify_steps import FLOAT32, RUNS, comparable, verify_float32, verify_steps
from parity_tests.harness import recorder


@pytest.mark.golden
@pytest.mark.parametrize("run", RUNS, ids=[f"{g.name}-{f[:-4]}-{s}" for g, f, s in RUNS])
def test_steps(run: tuple[Golden, str, str], tier: str) -> None:
    """Losses, scalars and variables of the first steps (deep tier: of all)."""
    golden, file, side = run
    if tier == "smoke" and (side != "port" or not golden.folder.is_relative_to(goldens.HERE)):
        pytest.skip("smoke tier: committed fixtures, port")
    kind = f"steps {file[:-4]} {side}"
    recorder.golden(golden.name, kind, None, "fail")
    worst = verify_steps(golden, file, side, everything=tier == "deep")
    recorder.golden(golden.name, kind, worst, "pass",
                    "" if comparable(golden, file) else "not comparable after the first update: no slots")


@pytest.mark.golden
@pytest.mark.parametrize("golden", FLOAT32, ids=lambda golden: golden.name)
def test_float32_port(golden: Golden, tier: str) -> None:
    """A float32 port keeps to the recording within the looser bounds."""
    if tier == "smoke":
        pytest.skip("smoke tier: float64")
    recorder.golden(golden.name, "steps float32 port", None, "fail")
    recorder.golden(golden.name, "steps float32 port", verify_float32(golden), "pass")
