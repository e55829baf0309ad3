"""Parts alone, objects on frozen parts, three levels, residual encoders: parity, and what each means."""

from __future__ import annotations

import json

import hypothesis
import pytest
import torch

import port
from parity_tests.drawn.modes import FIXED, OPS, ModeCase, draw_mode, fixed
from parity_tests.drawn.verify import verify_model
from parity_tests.harness import recorder
from parity_tests.harness.strategies import cases
from parity_tests.tests.models.test_model import SMOKE

# In float32 too, and with several optimizer steps, in the default tier; all of them in the deep one.
WHOLE = ("pcae-2", "ocae-3", "hierarchy-1", "scae-7")


@pytest.mark.parametrize("name", FIXED)
def test_fixed_modes(name: str, tier: str) -> None:
    """Initial weights, every tap, gradient and optimizer step of fixed configurations."""
    kind, index = FIXED[name]
    whole = tier == "deep" or (tier != "smoke" and name in WHOLE)
    reproduce = f'python -m pytest "parity_tests/tests/models/test_modes.py::test_fixed_modes[{name}]"'
    with recorder.test_of(OPS[kind]):
        verify_model(fixed(kind, index), reproduce, **({} if whole else SMOKE))


@pytest.mark.parametrize("kind", ["pcae", "ocae", "hierarchy", "scae"])
def test_drawn_modes(kind: str, model_examples: int, request: pytest.FixtureRequest) -> None:
    """The same under drawn configurations."""
    tier = request.config.getoption("--tier")
    reproduce = f'python -m pytest "parity_tests/tests/models/test_modes.py::test_drawn_modes[{kind}]" --tier={tier}'

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


def test_residual_blocks_are_read_from_a_checkpoint() -> None:
    """Under the original's kind of names, there and back."""
    flat = {"canvas_size": 20, "output_channels": [4, 5], "strides": [2, 2], "residual_blocks": 2,
            "n_part_caps": 3, "n_obj_caps": 2, "n_dims": 4, "n_output_dims": 6, "template_size": 4}
    model = port.build(port.config.from_flat(flat), 3).eval()
    arrays = port.to_tf(model)
    assert arrays["conv_net_2d/residual_3/conv_2d_1/w"].shape == (3, 3, 5, 5)
    said = {"template_nonlin": "relu1", "canvas_size": 20, "strides": [2, 2]}
    again = port.from_tf(arrays, said)
    assert again.config.cnn.residual_blocks == 2
    for name, value in again.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    del arrays["conv_net_2d/residual_3/conv_2d/w"], arrays["conv_net_2d/residual_3/conv_2d_1/w"]
    with pytest.raises(port.convert.ConversionError, match="3 blocks for 2 convolutions"):
        port.from_tf(arrays, said)


def test_a_parent_moves_the_votes_for_the_parts() -> None:
    """With absent parents no part is voted for; the image model's part of the loss stays."""
    case = fixed("hierarchy", 1)  # without weight decay, which is of all weights
    case.arguments["autoencoder"]["weight_decay"] = 0.0
    config = port.config.from_arguments(case.arguments)
    image = torch.from_numpy(case.images[0]).permute(0, 3, 1, 2).double()
    model = port.build(config, 0).double()
    whole = model(image, taps=True)
    taps, scalars = whole.taps, whole.scalars
    assert {"upper_log_prob", "parent_log_prob"} <= scalars.keys()
    presence = taps["res/upper_winner_pres"][:, :, None]
    assert (taps["res/parent_vote_presence_prob"] <= presence + 1e-12).all()
    flat = case.arguments | {"upper": dict.fromkeys((
        "caps_ll_weight", "parent_ll_weight", "dynamic_l2_weight",
        *(name for name in case.arguments["upper"] if name.endswith("sparsity_weight"))), 0.0)}
    without = port.build(port.config.from_arguments(flat), 0).double()(image)
    lower = {name: value for name, value in case.arguments.items()
             if not name.startswith("upper") and name != "model"}
    alone = port.build(port.config.from_arguments(lower), 0).double()(image)
    assert torch.allclose(without.loss, alone.loss, rtol=1e-12)
    assert not torch.allclose(without.loss, whole.loss)


def test_what_the_original_lacks_is_said_only_where_used() -> None:
    """Stored configurations and the identity of runs are as before."""
    arguments = port.Config().to_arguments()
    assert "residual_blocks" not in arguments["cnn"] and "model" not in arguments
    assert "inverse_space_transform" not in arguments["part_decoder"]
    used = port.config.from_flat({"residual_blocks": 1, "inverse_space_transform": False}).to_arguments()
    assert used["cnn"]["residual_blocks"] == 1
    assert used["part_decoder"]["inverse_space_transform"] is False
