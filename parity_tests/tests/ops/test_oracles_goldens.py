"""The oracles against recordings of the original: float64, 1e-12 of the largest value.

An oracle is only worth something once it is proven itself. `oracles/recorded.py` names for each recorded function
the oracle call that answers for it; every float64 record found in any golden folder is run, and
every small whole model, tap by tap. `test_oracles_definitions.py` has what no recording covers.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from parity_tests import goldens, oracles
from parity_tests.goldens.shared import needs_shared
from parity_tests.oracles.recorded import TABLE

BOUND = 1e-12
OTHERS = {
    "bipartite_match": "evaluation",
    "bipartite_match_auto": "evaluation",
    "eval_segmentation": "evaluation",
    "cluster_classify": "evaluation",
}


def margin(found, recorded) -> float:
    """Largest deviation over the bound; infinite where shapes or non-finite values differ."""
    found, recorded = np.asarray(found, np.float64), np.asarray(recorded, np.float64)
    if found.shape != recorded.shape:
        return math.inf
    finite = np.isfinite(recorded)
    if not np.array_equal(found[~finite], recorded[~finite], equal_nan=True):
        return math.inf
    if not np.isfinite(found[finite]).all():
        return math.inf
    worst = float(np.abs(found[finite] - recorded[finite]).max(initial=0.0))
    if worst == 0.0:
        return 0.0
    scale = float(np.abs(recorded[finite]).max(initial=0.0))
    return worst / (BOUND * scale) if scale else math.inf


def _records() -> dict[str, list[goldens.Record]]:
    """Records in float64 (or copied data), by function."""
    found: dict[str, list[goldens.Record]] = {}
    for record in goldens.records():
        if record.ok and record.dtype in ("float64", "np"):
            found.setdefault(record.function, []).append(record)
    return found


RECORDS = _records()


@pytest.mark.shared
def test_every_recorded_function_has_an_oracle():
    """A new kind of recording shows up here before it is silently left out."""
    assert set(RECORDS) - set(TABLE) - set(OTHERS) == set()


@pytest.mark.golden
@pytest.mark.parametrize("function", needs_shared(sorted(set(RECORDS) & set(TABLE)), RECORDS.get))
def test_oracle_meets_recordings(function, record_property):
    """Each recorded output of the function, each case."""
    margins = {}
    for record in RECORDS[function]:
        arrays = record.arrays()
        found = TABLE[function](arrays["in"], dict(record.entry["attrs"]), arrays["var"])
        if not isinstance(found, dict):
            found = {"out": found}
        for name, recorded in arrays["out"].items():
            margins[f"{record.key}: {name}"] = margin(found[name], recorded)
    record_property("records", len(RECORDS[function]))
    record_property("worst_margin", max(margins.values()))
    assert margins
    assert {key: value for key, value in margins.items() if not value <= 1.0} == {}


@pytest.mark.golden
@pytest.mark.parametrize("case", range(5))
def test_rmsprop_meets_recordings(case):
    """Six steps of the recorded float32 optimizer, within the rounding float32 can collect."""
    records = [record for record in goldens.records() if record.function == "RMSProp"]
    arrays = next(record for record in records if record.entry["case"] == str(case)).arrays()
    var = arrays["in"]["x0"]
    ms, mom = np.ones(var.shape), np.zeros(var.shape)
    for step, grad in enumerate(arrays["in"]["grads"]):
        var, ms, mom = oracles.core.rmsprop.rmsprop_update(
            var, grad, ms, mom, float(arrays["in"]["lr"]), epsilon=float(arrays["in"]["eps"])
        )
        for name, found in (("var", var), ("rms", ms), ("momentum", mom)):
            recorded = arrays["out"][name][step]
            # Four roundings a step, each half a unit of the largest value.
            bound = 4 * (step + 1) * 2.0**-24 * np.abs(recorded).max()
            assert np.abs(found - recorded).max() <= bound, (step, name)


def _small_models() -> list[goldens.Golden]:
    """Models with float64 taps and a canvas that a Python loop can fill."""
    found = [golden for golden in goldens.constellations() if golden.has("forward64_noise.npz")]
    for golden in goldens.models():
        if _arguments(golden)["canvas"] <= 32 and golden.has("forward64_noise.npz"):
            found.append(golden)
    return found


def _arguments(golden: goldens.Golden) -> dict:
    """Class arguments from the manifest, or from the flags it names."""
    manifest = golden.manifest
    if "arguments" in manifest:
        return manifest["arguments"]
    if goldens.is_constellation(golden):
        return oracles.settings.constellation_arguments(manifest["flags"])
    return oracles.settings.arguments_from_flags(manifest["flags"])


def _variables(golden: goldens.Golden) -> dict[str, np.ndarray]:
    """Variables of the checkpoint by name, without slots and averages."""
    arrays = oracles.checkpoint.read_checkpoint(golden.folder / golden.manifest["checkpoint"])
    return {
        name: value
        for name, value in arrays.items()
        if "RMSProp" not in name and "ExponentialMovingAverage" not in name
    }


@pytest.mark.golden
@pytest.mark.parametrize("golden", _small_models(), ids=lambda golden: golden.name)
def test_whole_model_meets_recordings(golden, record_property):
    """Every tap of a recorded forward pass with noise."""
    recorded = golden.load("forward64_noise.npz")
    noise = [recorded.pop(f"noise/raw_{i}") for i in range(len(golden.manifest["noise"]))]
    # A noisy forward file may leave out what the noise does not touch, the batch among it.
    batches = golden.load("batches.npz")
    if goldens.is_constellation(golden):
        taps = oracles.constellation.model.constellation_autoencoder(
            _arguments(golden),
            _variables(golden),
            batches["corners"][0],
            batches["presence"][0],
            noise,
        )
        check_taps(golden, taps, recorded, record_property)
        return
    image = recorded.get("input/image", batches["image"][0])
    label = recorded.get("input/label", batches["label"][0])
    taps = oracles.scae.model.image_autoencoder(
        _arguments(golden),
        _variables(golden),
        image,
        label,
        noise,
        # The slowest taps, once: they pair capsules and examples the same way everywhere.
        per_capsule=golden.name.endswith("vote_soft"),
    )
    check_taps(golden, taps, recorded, record_property)


def check_taps(golden, taps, recorded, record_property):
    """Every recorded tap that the oracle has; the others are said aloud."""
    margins = {name: margin(taps[name], value) for name, value in recorded.items() if name in taps}
    left_out = ("per_caps_rec/", "input/pattern_")
    unknown = [n for n in recorded if n not in taps and not n.startswith(left_out)]
    if unknown:
        warnings.warn(f"{golden.name}: no oracle for the taps {unknown}", stacklevel=1)
    record_property("taps", len(margins))
    record_property("worst_margin", max(margins.values()))
    assert {name: value for name, value in margins.items() if not value <= 1.0} == {}
