"""Original checkpoint → port → original names: every value bit for bit, and nothing silently."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import port
import reference
from parity_tests import goldens
from port.checkpoints import convert, model_folder

GOLDENS = goldens.models()
IDS = [golden.name for golden in GOLDENS]
FIXTURE = next(golden for golden in GOLDENS if golden.folder.is_relative_to(goldens.HERE))


def arrays_of(golden: goldens.Golden) -> dict[str, np.ndarray]:
    """The checkpoint of a recording."""
    return reference.read_checkpoint(golden.folder / "checkpoint")


@pytest.mark.golden
@pytest.mark.parametrize("golden", GOLDENS, ids=IDS)
def test_round_trip(golden: goldens.Golden) -> None:
    """TensorFlow → port → TensorFlow is the identity on every model variable."""
    variables, slots, skipped = convert.split_checkpoint(arrays_of(golden))
    model = port.from_tf(arrays_of(golden), golden.folder)
    back = port.to_tf(model)
    assert set(back) == set(variables)
    for name, value in variables.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name, strict=True)
    assert not set(slots) & set(skipped) and len(variables) + len(slots) + len(skipped) == len(
        arrays_of(golden))
    state = convert.slots_from_tf(model, arrays_of(golden))
    assert set(state) <= set(dict(model.named_parameters()))
    for name, pair in state.items():
        assert set(pair) == {"ms", "mom"}
        assert pair["ms"].shape == model.get_parameter(name).shape


@pytest.mark.golden
def test_folder_round_trip(tmp_path: Path) -> None:
    """save and load give the same weights, configuration and result; nothing else is left behind."""
    model = port.from_tf(arrays_of(FIXTURE), FIXTURE.folder)
    port.save(model, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    loaded = port.load(tmp_path / "out")
    assert loaded.config == model.config and not loaded.training
    side, channels = model.config.canvas, model.config.channels
    image = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(image).loss, model(image).loss, rtol=0, atol=0)


def test_arrays_are_copies() -> None:
    """What was read from a model does not change when the model does, nor the other way round."""
    model = port.ImageAutoencoder(port.config.from_manifest(FIXTURE.folder))
    before = port.to_tf(model)
    kept = {name: value.copy() for name, value in before.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1.0
    for name, value in kept.items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)
    arrays = arrays_of(FIXTURE)
    kept = {name: np.copy(value) for name, value in arrays.items()}
    for pair in convert.slots_from_tf(model, arrays).values():
        pair["ms"] += 1.0
        pair["mom"] += 1.0
    for name, value in kept.items():
        np.testing.assert_array_equal(arrays[name], value, err_msg=name)


def test_refusals(tmp_path: Path) -> None:
    """A variable too many, one too few, one of another shape: named, never filled or reshaped."""
    config = port.config.from_manifest(FIXTURE.folder)
    good = port.to_tf(port.ImageAutoencoder(config))
    name = "set_transformer/linear/b"
    for arrays, message in (
            ({**good, "set_transformer/extra": np.zeros(1)}, "extra"),
            ({key: value for key, value in good.items() if key != name}, "linear.0.bias"),
            ({**good, name: np.zeros(good[name].size + 1, np.float32)}, name)):
        with pytest.raises(convert.ConversionError, match=message):
            port.from_tf(arrays, config)
    with pytest.raises(port.ConfigError, match="does not tell template_nonlin"):
        port.from_tf(good)
    with pytest.raises(model_folder.CheckpointError, match="config.json"):
        port.load(tmp_path)
    port.save(port.ImageAutoencoder(config), tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(model_folder.CheckpointError, match="cannot be read"):
        port.load(tmp_path / "m")


def test_checkpoint_errors(tmp_path: Path) -> None:
    """No checkpoint, several, a missing shard: one clear error each."""
    with pytest.raises(reference.CheckpointError, match="no .index file"):
        reference.read_checkpoint(tmp_path)
    with pytest.raises(reference.CheckpointError, match="no checkpoint there"):
        reference.read_checkpoint(tmp_path / "model.ckpt-1")
    values = {"a/w": np.arange(6, dtype=np.float32).reshape(2, 3), "global_step": np.int64(7)}
    reference.write_checkpoint(tmp_path / "model.ckpt-1", values)
    read = reference.read_checkpoint(tmp_path)
    assert sorted(read) == ["a/w", "global_step"] and read["global_step"] == 7
    np.testing.assert_array_equal(read["a/w"], values["a/w"], strict=True)
    (tmp_path / "model.ckpt-1.data-00000-of-00001").unlink()
    with pytest.raises(reference.CheckpointError, match="cannot be read"):
        reference.read_checkpoint(tmp_path)


@pytest.mark.shared
def test_mapping_is_one_to_one() -> None:
    """Every port parameter of every fixture has one original name, and that name leads back."""
    for golden in GOLDENS:
        model = port.ImageAutoencoder(port.config.from_manifest(golden.folder))
        for name, _ in model.named_parameters():
            original, transform = convert.original_name(name, convert.MAPPING)
            assert convert.port_name(original, convert.MAPPING) == (name, transform)


def test_configuration_spellings() -> None:
    """Flags, arguments, flat settings and JSON name the same configuration."""
    config = port.config.from_manifest(FIXTURE.folder)
    assert port.config.from_flat(port.config.to_flat(config)) == config
    assert port.config.from_arguments(json.loads(config.to_json())) == config
    assert port.config.from_arguments(config.to_arguments()) == config
    flags = port.config.parse_flags(["--canvas_size=40", "--n_part_caps=24", "--lr=3e-5",
                                     "--use_alpha_channel=True", "--template_nonlin=sigmoid"])
    read = port.config.from_flat(flags)
    assert (read.canvas, read.part_encoder.n_caps, read.obj_decoder.n_votes) == (40, 24, 24)
    assert read.part_decoder.use_alpha_channel and read.part_decoder.template_nonlin == "sigmoid"
    assert port.config.training_flags(flags) == {"lr": 3e-5}
    with pytest.warns(UserWarning, match="Q07"):
        port.config.from_flat({"use_lr_schedule": True})
