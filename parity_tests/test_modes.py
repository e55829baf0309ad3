"""Parts alone, objects on frozen parts, three levels, residual encoders: parity, and what each means."""

from __future__ import annotations

import json

import hypothesis
import pytest

import port
from parity_tests import recorder
from parity_tests.drawn_models import verify_model
from parity_tests.drawn_modes import FIXED, OPS, ModeCase, draw_mode, fixed
from parity_tests.strategies import cases
from parity_tests.test_model import SMOKE

# In float32 too, and with several optimizer steps, in the default tier; all of them in the deep one.
WHOLE = ("pcae-2", "ocae-3", "hierarchy-1", "scae-7")


@pytest.mark.parametrize("name", FIXED)
def test_fixed_modes(name: str, tier: str) -> None:
    """Initial weights, every tap, gradient and optimizer step of fixed configurations."""
    kind, index = FIXED[name]
    whole = tier == "deep" or (tier != "smoke" and name in WHOLE)
    reproduce = f'python -m pytest "parity_tests/test_modes.py::test_fixed_modes[{name}]"'
    with recorder.test_of(OPS[kind]):
        verify_model(fixed(kind, index), reproduce, **({} if whole else SMOKE))


@pytest.mark.parametrize("kind", ["pcae", "ocae", "hierarchy", "scae"])
def test_drawn_modes(kind: str, model_examples: int, request: pytest.FixtureRequest) -> None:
    """The same under drawn configurations."""
    tier = request.config.getoption("--tier")
    reproduce = f'python -m pytest "parity_tests/test_modes.py::test_drawn_modes[{kind}]" --tier={tier}'

    @hypothesis.settings(max_examples=max(model_examples // 8, 1) if tier == "deep" else 1)
    @hypothesis.given(cases(lambda m: draw_mode(m, kind), f"{OPS[kind]} {kind}"))
    def parity(case: ModeCase) -> None:
        verify_model(case, reproduce, **({} if tier == "deep" else SMOKE))

    with recorder.test_of(OPS[kind]):
        parity()


@pytest.mark.parametrize("name", FIXED)
def test_settings_make_the_round_trip(name: str) -> None:
    """Flat, nested and JSON spellings of a configuration are the same configuration."""
    config = port.config.from_arguments(fixed(*FIXED[name]).arguments)
    assert port.config.from_flat(port.config.to_flat(config)) == config
    assert port.config.from_arguments(json.loads(config.to_json())) == config
    assert port.config.from_arguments(config.to_arguments()) == config


def test_what_the_original_lacks_is_said_only_where_used() -> None:
    """Stored configurations and the identity of runs are as before."""
    arguments = port.Config().to_arguments()
    assert "residual_blocks" not in arguments["cnn"] and "model" not in arguments
    assert "inverse_space_transform" not in arguments["part_decoder"]
    used = port.config.from_flat({"residual_blocks": 1, "inverse_space_transform": False}).to_arguments()
    assert used["cnn"]["residual_blocks"] == 1
    assert used["part_decoder"]["inverse_space_transform"] is False
