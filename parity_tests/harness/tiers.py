"""What each tier of the suite holds.

|                      | smoke            | default                | deep                  |
|----------------------|------------------|------------------------|-----------------------|
| for                  | `make repro`     | `make test`, CI        | a night               |
| examples an op       | 6                | 50                     | 400, random seed      |
| drawn models         | 4                | 16                     | 200                   |
| recordings           | one of each kind | every one at hand      | every one at hand     |
| planted bugs         | none             | all                    | all                   |
| stages and commands  | none             | yes                    | in their long forms   |

The smoke tier judges the port: every op, every option of the whole models, the recordings of the
original. Test files about what trains, converts or reports are in the other tiers; in `make repro` the
stages themselves run around it. A fourth tier, `device`, runs the port alone against recordings on a
machine with a GPU and without TensorFlow (test_device.py).
"""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"

# Examples an op, drawn whole models.
EXAMPLES = {"smoke": (6, 4), "default": (50, 16), "deep": (400, 200), "device": (0, 0)}
# Planted bugs, where --mutants does not say.
MUTANTS = {"smoke": "none", "default": "all", "deep": "all", "device": "none"}
# The test files of the smoke tier.
SMOKE = (
    "test_capsnet", "test_constellation", "test_em", "test_errors", "test_fast_paths",
    "test_goldens_capsnet", "test_goldens_em", "test_goldens_models", "test_goldens_ops",
    "test_goldens_routing", "test_goldens_steps", "test_initial", "test_model", "test_modes", "test_ops",
    "test_options", "test_oracles", "test_oracles_definitions", "test_oracles_goldens",
    "test_quirks", "test_registry", "test_signatures", "test_targets")


def test_file(name: str) -> Path:
    """Where a test file lies below `parity_tests/tests`; names are unique there.

    Raises:
        ValueError: there is no such file, or more than one.
    """
    found = list(TESTS.rglob(name))
    if len(found) != 1:
        raise ValueError(f"{name}: {len(found)} test files of this name below {TESTS}")
    return found[0]


test_file.__test__ = False  # pytest would take the name for a test's


def in_tier(file_stem: str, tier: str) -> bool:
    """Whether a test file runs in a tier."""
    return tier != "smoke" or file_stem in SMOKE
