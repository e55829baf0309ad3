"""Bad input: one clear message that says what was expected, what was given, and what is near."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import port
from parity_tests import goldens
from parity_tests.harness.compare import ParityError, Where, check

SMALL = {"canvas": 12, "channels": 1,
         "cnn": {"output_channels": [3, 4], "kernel_shapes": [3], "strides": [2, 1]},
         "part_encoder": {"n_caps": 3, "n_features": 2},
         "part_decoder": {"template_size": [4, 3], "n_channels": 1},
         "obj_encoder": {"n_layers": 1, "n_dims": 4, "n_output_dims": 5, "n_outputs": 2},
         "obj_decoder": {"n_caps": 2, "n_votes": 3, "n_caps_params": 4, "n_hiddens": 5}}


def model() -> port.ImageAutoencoder:
    """A tiny model."""
    return port.ImageAutoencoder(port.config.from_arguments(SMALL))


# Wrong settings → words the message must hold.
UNKNOWN = [
    ("flat key", lambda: port.config.from_flat({"canvas_sise": 40}), ("canvas_sise", "canvas_size")),
    ("flat value", lambda: port.config.from_flat({"template_nonlin": "sigmod"}),
     ("sigmod", "sigmoid")),
    ("section", lambda: port.config.from_arguments({"part_encodr": {}}),
     ("part_encodr", "part_encoder")),
    ("key of a section", lambda: port.config.from_arguments({"part_encoder": {"n_cap": 3}}),
     ("n_cap", "n_caps")),
    ("encoder type", lambda: port.config.from_flat({"encoder_type": "conv_at"}),
     ("conv_at", "conv_att")),
    ("vote type", lambda: port.config.from_flat({"vote_type": "encoder"}), ("encoder", "enc")),
    ("sparsity type", lambda: port.config.from_flat({"prior_sparsity_loss_type": "l1"}),
     ("l1", "l2")),
    ("noise type", lambda: port.config.from_flat({"noise_type": "uniforn"}), ("uniforn", "uniform")),
    ("repair", lambda: port.config.from_arguments({"repairs": ["Q1"]}), ("Q1", "Q01")),
    ("type", lambda: port.config.from_flat({"canvas_size": "forty"}), ("canvas", "forty")),
    ("sizes that disagree", lambda: port.config.from_arguments(SMALL | {"channels": 3}),
     ("n_channels", "1", "3")),
    ("canvas too small", lambda: port.config.from_flat({"canvas_size": 8}), ("canvas_size", "8")),
    ("colour without features", lambda: port.config.from_flat(
        {"colorize_templates": True, "n_part_special_features": 0}), ("colorize_templates",)),
    ("no capsules", lambda: port.config.from_flat({"n_part_caps": 0}), ("n_caps", "at least 1", "0")),
    ("an empty layer", lambda: port.config.from_flat({"n_hiddens": [4, 0]}), ("n_hiddens", "at least 1")),
    ("negative noise", lambda: port.config.from_flat({"part_encoder.noise_scale": -1}),
     ("noise_scale", "at least 0", "-1")),
    ("everything dropped", lambda: port.config.from_flat({"caps_dropout_rate": 1}),
     ("caps_dropout_rate", "below 1")),
    ("not finite", lambda: port.config.from_flat({"caps_ll_weight": "inf"}), ("caps_ll_weight", "finite")),
    ("points without votes", lambda: port.config.from_flat({"model": "constellation", "n_votes": 0}),
     ("n_votes", "at least 1")),
    ("manifest of another kind", lambda: port.config.from_manifest({"lr": 1.0}),
     ("arguments", "flags")),
]


@pytest.mark.parametrize(("call", "words"), [row[1:] for row in UNKNOWN],
                         ids=[row[0] for row in UNKNOWN])
def test_configuration(call, words) -> None:
    """An unknown key or value names the nearest valid one."""
    with pytest.raises(port.ConfigError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


# Wrong image → words: what was expected, what was given.
IMAGES = [
    ("size", torch.zeros(2, 1, 12, 13), ("12", "13")),
    ("channels", torch.zeros(2, 3, 12, 12), ("1", "3")),
    ("channels last", torch.zeros(2, 12, 12, 1), ("12",)),
    ("rank", torch.zeros(1, 12, 12), ("[1, 12, 12]",)),
    ("dtype", torch.zeros(2, 1, 12, 12, dtype=torch.float64), ("float64", "float32")),
    ("range above", torch.full((2, 1, 12, 12), 255.0), ("255", "[0, 1]")),
    ("range below", torch.full((2, 1, 12, 12), -0.5), ("-0.5", "[0, 1]")),
    ("not a number", torch.full((2, 1, 12, 12), float("nan")), ("nan",)),
]


@pytest.mark.parametrize(("image", "words"), [row[1:] for row in IMAGES], ids=[row[0] for row in IMAGES])
def test_image(image: torch.Tensor, words) -> None:
    """A wrong image names expected and given."""
    with pytest.raises((ValueError, TypeError)) as caught:
        model()(image)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_integer_image() -> None:
    """Bytes instead of [0, 1]; asked of the check itself, before the type checks of test runs."""
    with pytest.raises((ValueError, TypeError), match="uint8"):
        model().check_image(torch.zeros(2, 1, 12, 12, dtype=torch.uint8))


def test_noise_of_another_configuration() -> None:
    """Draws that do not fit the configuration are refused."""
    with pytest.raises(ValueError):
        model()(torch.zeros(2, 1, 12, 12), noise=port.Noise(raw_0=torch.zeros(2, 4)))
    with pytest.raises(TypeError, match="raw_0"):
        port.Noise(raw_1=torch.zeros(2, 3))


def test_more_than_ten_draws() -> None:
    """As dropout in three layers of attention and of capsules asks for; each keeps its place."""
    given = {f"raw_{j}": torch.full((1,), float(j)) for j in reversed(range(12))}
    assert [value.item() for value in port.Noise(**given).raw] == list(range(12))
    del given["raw_10"]
    with pytest.raises(TypeError, match="without gaps"):
        port.Noise(**given)


def test_missing_golden(tmp_path) -> None:
    """A recording that is not there is named with its place."""
    golden = goldens.Golden("somewhere", tmp_path)
    with pytest.raises(goldens.MissingGolden, match="forward64_noise.npz"):
        golden.load("forward64_noise.npz")


def test_missing_folders_name_their_place(monkeypatch) -> None:
    """Each known folder that is not here is reported with where it belongs."""
    monkeypatch.setattr(goldens, "roots", lambda: [])
    reasons = dict(goldens.missing())
    assert set(reasons) == {*goldens.EXPECTED, *goldens.EXPECTED_OPS}
    assert all(name in reason and "shared" in reason for name, reason in reasons.items())


WHERE = Where("room.op", "tap", "port float64", "reference float64", "python -m pytest …")
ONE_SIDED = [
    ("value", np.array([1.0, 2.5]), np.array([1.0, 2.0]), ("1 of 2", "[1]", "2.5", "2.0", "pytest")),
    ("shape", np.zeros(()), np.zeros((1,)), ("[]", "[1]")),
    ("dtype", np.zeros(2, np.float32), np.zeros(2), ("float32", "float64")),
    ("nan on one side", np.array([np.nan, 1.0]), np.array([0.0, 1.0]), ("nan 1 against 0",)),
    ("nan elsewhere", np.array([np.nan, 1.0]), np.array([1.0, np.nan]), ("nan",)),
    ("inf of another sign", np.array([np.inf]), np.array([-np.inf]), ("inf",)),
]


@pytest.mark.parametrize(("actual", "expected", "words"), [row[1:] for row in ONE_SIDED],
                         ids=[row[0] for row in ONE_SIDED])
def test_mismatch_explains_itself(actual, expected, words) -> None:
    """A failure names op, tap, count, index, both values, bound and a command line."""
    with pytest.raises(ParityError) as caught:
        check(WHERE, actual, expected, 1e-12)
    for word in ("room.op", "tap", "python -m pytest", *words):
        assert word in str(caught.value), str(caught.value)


def test_equal_special_values_agree() -> None:
    """NaN and infinities in the same places on both sides are equal."""
    values = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert check(WHERE, values, values.copy(), 0.0) == 0.0
