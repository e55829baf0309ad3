"""Oracle of the configuration: what the original's command line builds for an image model."""

from collections.abc import Iterable
from typing import Any

# Flag -> default (configs/model_config.py and configs/data_config.py; facts sheet, section 1).
DEFAULTS: dict[str, Any] = {
    "canvas_size": 28,
    "n_channels": 1,
    "template_size": 11,
    "n_part_caps": 16,
    "n_part_caps_dims": 6,
    "n_part_special_features": 16,
    "n_obj_caps": 10,
    "n_obj_caps_params": 32,
    "colorize_templates": False,
    "use_alpha_channel": False,
    "template_nonlin": "relu1",
    "color_nonlin": "relu1",
    "prior_within_example_sparsity_weight": 1.0,
    "prior_between_example_sparsity_weight": 1.0,
    "posterior_within_example_sparsity_weight": 10.0,
    "posterior_between_example_sparsity_weight": 10.0,
}


def parse_flags(flags: Iterable[str]) -> dict[str, Any]:
    """Values of the known flags among `--name=value` strings, defaults for the others.

    An unknown flag is dropped in silence, as the original's `tf.app.run` drops it.
    Source: configs/model_config.py.
    """
    values = dict(DEFAULTS)
    for flag in flags:
        name, _, text = flag.lstrip("-").partition("=")
        if name not in DEFAULTS:
            continue
        kind = type(DEFAULTS[name])
        values[name] = text.lower() in ("true", "1", "t") if kind is bool else kind(text)
    return values


def arguments_from_flags(flags: Iterable[str]) -> dict[str, Any]:
    """Arguments of every class of the image model, nested as in a golden manifest.

    What has no flag is hard-coded in the original: CNN 4 x 128 with strides 2, 2, 1, 1, set
    transformer 3 layers, 1 head, 16 dims, 256 out, capsule layer with 128 hidden units, learned
    vote scale and uniform noise 4, dynamic l2 10, likelihood 1, prior 'l2', posterior 'entropy'.
    Source: configs/model_config.py:92-160.
    """
    f = parse_flags(flags)
    size, template = [f["canvas_size"]] * 2, [f["template_size"]] * 2
    weights = {name: value for name, value in f.items() if name.endswith("_sparsity_weight")}
    return {
        "canvas": f["canvas_size"],
        "channels": f["n_channels"],
        "cnn": {
            "output_channels": [128] * 4,
            "kernel_shapes": [3],
            "strides": [2, 2, 1, 1],
            "paddings": "VALID",
            "activate_final": True,
        },
        "part_encoder": {
            "n_caps": f["n_part_caps"],
            "n_caps_dims": f["n_part_caps_dims"],
            "n_features": f["n_part_special_features"],
            "noise_scale": 4.0,
            "similarity_transform": False,
            "encoder_type": "conv_att",
        },
        "part_decoder": {
            "output_size": size,
            "template_size": template,
            "n_channels": f["n_channels"],
            "learn_output_scale": False,
            "colorize_templates": f["colorize_templates"],
            "template_nonlin": f["template_nonlin"],
            "color_nonlin": f["color_nonlin"],
            "use_alpha_channel": f["use_alpha_channel"],
        },
        "obj_encoder": {
            "n_layers": 3,
            "n_heads": 1,
            "n_dims": 16,
            "n_output_dims": 256,
            "n_outputs": f["n_obj_caps"],
            "layer_norm": True,
            "dropout_rate": 0.0,
            "n_inducing_points": 0,
        },
        "obj_decoder": {
            "n_caps": f["n_obj_caps"],
            "n_caps_dims": 2,
            "n_votes": f["n_part_caps"],
            "n_caps_params": f["n_obj_caps_params"],
            "n_hiddens": 128,
            "learn_vote_scale": True,
            "deformations": True,
            "noise_type": "uniform",
            "noise_scale": 4.0,
            "similarity_transform": False,
            "caps_dropout_rate": 0.0,
        },
        "autoencoder": {
            "n_classes": 10,
            "dynamic_l2_weight": 10.0,
            "caps_ll_weight": 1.0,
            "vote_type": "enc",
            "pres_type": "enc",
            "stop_grad_caps_inpt": True,
            "stop_grad_caps_target": True,
            "prior_sparsity_loss_type": "l2",
            "prior_within_example_constant": 0.0,
            "posterior_sparsity_loss_type": "entropy",
            "primary_caps_sparsity_weight": 0.0,
            "weight_decay": 0.0,
            "feed_templates": True,
            **weights,
        },
    }


def constellation_arguments(flags: Iterable[str]) -> dict[str, Any]:
    """Arguments of every class of the constellation model, from its command line.

    Hard-coded in the original: set transformer 4 layers, 4 heads, 128 dims, 32 out; 3 capsules of 4
    votes, 32 parameters, 128 hidden units, learned vote scale, similarity, uniform noise 4; two
    classes; sparsity and dynamic l2 10. Both prior weights are the flag for within.
    Source: configs/model_config.py.
    """
    f = parse_flags(flags)
    weights = {name: value for name, value in f.items() if name.endswith("_sparsity_weight")}
    within = weights["prior_within_example_sparsity_weight"]
    weights["prior_between_example_sparsity_weight"] = within
    return {
        "obj_encoder": {
            "n_layers": 4, "n_heads": 4, "n_dims": 128, "n_output_dims": 32, "n_outputs": 3,
            "layer_norm": True,
        },
        "obj_decoder": {
            "klass": "ConstellationCapsule", "n_caps": 3, "n_votes": 4, "learn_vote_scale": True,
            "deformations": True, "noise_type": "uniform", "noise_scale": 4.0,
            "similarity_transform": True,
        },
        "autoencoder": weights
        | {
            "n_classes": 2, "dynamic_l2_weight": 10.0, "sparsity_weight": 10.0,
            "prior_sparsity_loss_type": "l2", "prior_within_example_constant": 0.0,
            "posterior_sparsity_loss_type": "entropy",
        },
    }
