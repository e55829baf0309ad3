"""The architecture read from names and shapes: right for every configuration, or named as unknown."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest

import port
import reference
from parity_tests import goldens
from parity_tests.drawn.models import draw_model
from parity_tests.harness.strategies import Maker, cases
from port.checkpoints import complete, convert, infer, strides

FIXTURE = next(golden for golden in goldens.models() if golden.folder.is_relative_to(goldens.HERE))
# Settings that neither a name nor a shape shows; some of them show in which variables have slots.
UNSEEN = {
    "activate_final", "caps_dropout_rate", "caps_ll_weight", "color_nonlin", "deformations",
    "dropout_rate", "dynamic_l2_weight", "learn_vote_scale", "noise_type", "obj_decoder.noise_scale",
    "obj_decoder.similarity_transform", "paddings", "part_encoder.noise_scale",
    "part_encoder.similarity_transform", "posterior_between_example_sparsity_weight",
    "posterior_sparsity_loss_type", "posterior_within_example_sparsity_weight", "pres_type",
    "primary_caps_sparsity_weight", "prior_between_example_sparsity_weight",
    "prior_sparsity_loss_type", "prior_within_example_constant",
    "prior_within_example_sparsity_weight", "stop_grad_caps_inpt", "stop_grad_caps_target", "strides",
    "target", "template_nonlin", "vote_type", "weight_decay", "canvas_size", "repairs",
    "rec_ll_weight", "template_l1_weight", "mse_weight"}


def draw_configuration(m: Maker) -> port.Config:
    """A configuration of any kind, with the original's four convolutions or others."""
    arguments = draw_model(m).arguments
    if m.flag():
        arguments["cnn"] |= {
            "output_channels": m.sizes(4, 2, 6), "kernel_shapes": m.choice([[3], [3, 2, 3, 1]]),
            "strides": m.choice([[2, 2, 1, 1], [2, 2, 1, 1], [1, 1, 2, 2], [2, 1, 2, 1], [1]])}
        arguments["canvas"] = m.size(24, 44)
    return port.config.from_arguments(arguments)


def shapes_of(arrays: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Name → shape."""
    return {name: array.shape for name, array in arrays.items()}


@hypothesis.given(cases(draw_configuration))
@hypothesis.settings(max_examples=30)
def test_drawn_configurations(config: port.Config) -> None:
    """All that can be inferred is, rightly; with the rest given the configuration is found again."""
    arrays = port.to_tf(port.ImageAutoencoder(config))
    found, truth = infer.infer(shapes_of(arrays)), port.config.explicit(config)
    for name, value in found.known.items():
        if name == "n_classes" and not config.autoencoder.probe:
            continue
        assert complete.same(name, truth[name], value, len(found.kernels)), name
    mlp = config.autoencoder.object_encoder == "mlp"  # which has no heads and sees no templates
    unseen = UNSEEN | ({"n_heads", "layer_norm", "feed_templates"} if mlp else set())
    assert set(found.unknown) <= unseen | {"n_classes"}
    if tuple(strides.each(config.cnn.strides, len(found.kernels))) in strides.strides_possible(
            len(found.kernels)):
        assert config.canvas in found.canvas_sizes
    given = {name: truth[name] for name in (*found.required, "strides")}
    model = port.from_tf(arrays, given)
    assert model.config.cnn.output_side(config.canvas) == found.grid
    told = {name for name in truth if name not in unseen | {"n_classes"} or name in given}
    again = port.config.explicit(model.config)
    for name in told:
        assert complete.same(name, again[name], truth[name], len(found.kernels)), name
    assert port.from_tf(arrays, config).config == config
    back = port.to_tf(model)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays | back)


@pytest.mark.golden
@pytest.mark.parametrize("golden", goldens.models(), ids=lambda golden: golden.name)
def test_recorded_checkpoints(golden: goldens.Golden) -> None:
    """Every recorded checkpoint: nothing contradicts its manifest, only three settings are asked for."""
    contents = convert.sort_out(reference.read_checkpoint(golden.folder / "checkpoint"))
    config = port.config.from_manifest(golden.folder)
    truth = port.config.explicit(config)
    assert convert.configuration_of(contents, golden.folder) == config
    with pytest.raises(port.ConfigError) as refusal:
        convert.configuration_of(contents)
    wanted = {"template_nonlin", "canvas_size"} | (
        {"color_nonlin"} if config.part_decoder.colorize_templates else set())
    assert all(name in str(refusal.value) for name in wanted)
    found = convert.configuration_of(contents, {name: truth[name] for name in wanted})
    assert found.cnn.strides == strides.each(config.cnn.strides, 4)
    # Slots tell what no gradient reached.
    if contents.slots:
        assert found.obj_decoder.learn_vote_scale == config.obj_decoder.learn_vote_scale
        assert (found.autoencoder.vote_type == "soft") == (config.autoencoder.vote_type == "soft")
    assert "autoencoder.dynamic_l2_weight" in found.unset and '"unset"' in found.to_json()
    assert port.config.from_arguments(port.config.json.loads(found.to_json())).unset == found.unset


@pytest.mark.golden
@pytest.mark.parametrize("golden", goldens.constellations(), ids=lambda golden: golden.name)
def test_constellations(golden: goldens.Golden) -> None:
    """A constellation checkpoint converts with nothing given; what no shape shows is unset."""
    contents = convert.sort_out(reference.read_checkpoint(golden.folder / "checkpoint"))
    found = infer.infer(shapes_of(contents.variables))
    assert (found.model, found.known["n_obj_caps"], found.known["n_votes"]) == ("constellation", 3, 4)
    assert found.required == {} and found.canvas_sizes == () and "sparsity_weight" in found.unknown
    recorded, config = port.config.from_manifest(golden.manifest), convert.configuration_of(contents)
    for section, name in (("obj_encoder", name) for name in recorded.obj_encoder.__dataclass_fields__):
        assert (getattr(getattr(config, section), name) == getattr(getattr(recorded, section), name)
                or f"{section}.{name}" in config.unset)
    assert config.obj_decoder.n_hiddens == recorded.obj_decoder.n_hiddens
    assert config.obj_decoder.klass == recorded.obj_decoder.klass
    assert "autoencoder.sparsity_weight" in config.unset
    assert port.config.from_arguments(port.config.json.loads(config.to_json())).unset == config.unset
    assert convert.configuration_of(contents, golden.manifest) == recorded
    with pytest.raises(port.ConfigError, match="contradicts the checkpoint: n_votes is 5"):
        convert.configuration_of(contents, {"n_votes": 5})
    with pytest.raises(port.ConfigError, match="the model 'scae', the checkpoint's is 'constellation'"):
        convert.configuration_of(contents, {"model": "scae"})


def test_full_size() -> None:
    """run_mnist.sh: 3,540,823 parameters; a 5×5 embedding comes from a canvas of 39 to 42."""
    config = port.config.from_flat({
        "canvas_size": 40, "n_part_caps": 40, "n_obj_caps": 32, "colorize_templates": True,
        "use_alpha_channel": True, "template_nonlin": "sigmoid", "color_nonlin": "sigmoid"})
    contents = convert.sort_out(port.to_tf(port.ImageAutoencoder(config)))
    assert contents.parameters == 3_540_823
    found = infer.infer(shapes_of(contents.variables))
    assert (found.grid, found.canvas_sizes) == (5, (39, 40, 41, 42))


def test_strides() -> None:
    """Other strides than the original's are given; for another number of convolutions they are found."""
    base = {"canvas_size": 32, "strides": [1, 1, 2, 2], "output_channels": [4, 4, 4, 4], "n_part_caps": 3,
            "template_nonlin": "relu1", "template_size": 4, "n_hiddens": 5, "n_output_dims": 6}
    arrays = port.to_tf(port.ImageAutoencoder(port.config.from_flat(base)))
    told = {"canvas_size": 32, "template_nonlin": "relu1", "strides": [1, 1, 2, 2]}
    assert port.from_tf(arrays, told).config.cnn.strides == (1, 1, 2, 2)
    without = {"canvas_size": 32, "template_nonlin": "relu1"}
    for given, message in (
            (told | {"strides": [2, 2, 1, 1]}, "canvas_size 32 contradicts.*43, 44, 45 or 46"),
            (without, "43, 44, 45 or 46 with strides 2×2×1×1; .* give strides .1×1×2×2 would fit"),
            (without | {"canvas_size": 9}, "canvas_size 9 contradicts.*2×2×1×1$"),
            (told | {"strides": [2, 1]}, "4 convolutions"),
            ({"template_nonlin": "relu1"}, r"does not tell canvas_size \(43, 44, 45 or 46\): give it"),
            (told | {"n_part_caps": 4}, "n_part_caps is 4, the checkpoint has 3"),
            (told | {"encoder_type": "linear"}, "encoder_type is linear, the checkpoint has conv_att"),
            (told | {"n_part_cap": 4}, "did you mean 'n_part_caps'"),
            (told | {"template_size": 5}, "template_size is 5×5, the checkpoint has 4×4")):
        with pytest.raises(port.ConfigError, match=message):
            port.from_tf(arrays, given)
    # With strides of 1 alone the canvas is the only one.
    ones = port.to_tf(port.ImageAutoencoder(port.config.from_flat(base | {
        "strides": [1, 1, 1, 1], "canvas_size": 12})))
    assert port.from_tf(ones, {"template_nonlin": "relu1", "strides": [1]}).config.canvas == 12
    three = port.to_tf(port.ImageAutoencoder(port.config.from_flat(base | {
        "strides": [2, 1, 2], "output_channels": [4, 5, 6], "canvas_size": 15})))
    assert port.from_tf(three, {"template_nonlin": "relu1", "canvas_size": 11}
                        ).config.cnn.strides == (1, 2, 1)
    with pytest.raises(port.ConfigError, match="fit several strides.*2×1×2 or 1×2×2"):
        port.from_tf(three, {"template_nonlin": "relu1", "canvas_size": 15})


def test_structure_errors() -> None:
    """A variable missing, doubled, renamed, reshaped, of another type: the message names it."""
    good = reference.read_checkpoint(FIXTURE.folder / "checkpoint")
    w, step = "set_transformer/linear/w", "global_step"

    def without(*names: str) -> dict[str, np.ndarray]:
        return {name: value for name, value in good.items() if name not in names}

    for arrays, message in (
            (without(w), w),  # its slots are left without an owner
            (without(f"{w}/RMSProp"), f"{w}/RMSProp is missing"),
            (without(f"{w}/RMSProp", f"{w}/RMSProp_1"), f"{w}/RMSProp is missing"),
            (good | {"set_transformer/linear_0/w": good[w]}, "none of the original's"),
            (good | {f"{w}/ExponentialMovingAverage": good[w]}, "none of the original's"),
            (good | {w: good[w].astype(np.float64)}, "float64"),
            (good | {f"{w}/RMSProp": good[w].ravel()}, "its variable has"),
            (good | {w: good[w].T.copy()}, "its variable has"),
            (without(step), "no global_step"),
            (good | {step: np.int16(3)}, "global_step is int16"),
            (good | {step: np.int64(-3)}, "-3"),
            ({"dense/kernel": np.zeros((2, 2), np.float32)}, "dense/kernel"),
            ({step: good[step]}, "no model variables")):
        with pytest.raises(port.convert.ConversionError, match=message):
            port.from_tf(arrays, FIXTURE.folder)
