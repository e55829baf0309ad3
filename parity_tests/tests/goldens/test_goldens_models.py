"""Every recorded model: each tap, scalar and gradient, on both sides and in both dtypes.

Folders are discovered, so recordings nobody has seen are compared too; of each folder the files
that are there, of each file the arrays that are there.
"""

from __future__ import annotations

import pytest

from parity_tests import goldens
from parity_tests.goldens import Golden
from parity_tests.goldens.shared import needs_shared
from parity_tests.goldens.verify_models import RUNS, run_id, verify_golden
from parity_tests.harness import recorder


@pytest.mark.golden
@pytest.mark.parametrize("run", RUNS, ids=[run_id(run) for run in RUNS])
def test_model(run: tuple[Golden, str, str, str], tier: str) -> None:
    """Taps and gradients of one folder, variant, dtype and side."""
    golden, variant, dtype, side = run
    if tier == "smoke" and (dtype == "float32" or not golden.folder.is_relative_to(goldens.HERE)):
        pytest.skip("smoke tier: committed fixtures in float64")
    kind = f"model {variant} {dtype} {side}"
    recorder.golden(golden.name, kind, None, "fail")
    try:
        margin = verify_golden(golden, variant, dtype, side)
    except goldens.MissingGolden as missing:  # a folder may hold only some files
        recorder.golden(golden.name, kind, None, "skipped", str(missing))
        pytest.skip(str(missing))
    recorder.golden(golden.name, kind, margin, "pass")


@pytest.mark.golden
@pytest.mark.parametrize("name", needs_shared(goldens.EXPECTED, goldens.discover().get))
def test_is_here(name: str) -> None:
    """A folder that is not here is reported with its place."""
    reasons = dict(goldens.missing())
    if name in reasons:
        recorder.golden(name, "model", None, "skipped", reasons[name])
        pytest.skip(reasons[name])
