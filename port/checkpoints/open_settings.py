"""What the settings that a converted checkpoint leaves open can change.

Names and shapes of a checkpoint's arrays show no loss weight and no width of noise. Such settings get the original's
defaults, and whoever uses the model has to know which of them matter for what it answers.
"""

from __future__ import annotations

from collections.abc import Iterable

KINDS = ("scae", "constellation")  # whose settings these are
# By `section.name`. A setting that stands in neither set can change what the model answers.
NOISE = frozenset({"part_encoder.noise_scale", "obj_decoder.noise_type", "obj_decoder.noise_scale",
                   "obj_encoder.dropout_rate", "obj_decoder.caps_dropout_rate"})
LOSS = frozenset(f"autoencoder.{name}" for name in (
    "n_classes", "dynamic_l2_weight", "caps_ll_weight", "mixing_kl_weight", "sparsity_weight",
    "stop_grad_caps_inpt", "stop_grad_caps_target", "prior_sparsity_loss_type", "prior_within_example_sparsity_weight",
    "prior_between_example_sparsity_weight", "prior_within_example_constant", "posterior_sparsity_loss_type",
    "posterior_within_example_sparsity_weight", "posterior_between_example_sparsity_weight",
    "primary_caps_sparsity_weight", "weight_decay", "target", "rec_ll_weight", "template_l1_weight", "mse_weight"))


def deciding(unset: Iterable[str]) -> list[str]:
    """Those open settings, as `section.name` or `name`, that can change what the model answers without noise."""
    others = NOISE | LOSS
    return [name for name in unset if name not in others and not any(place.endswith(f".{name}") for place in others)]


def sentences(unset: Iterable[str]) -> list[str]:
    """The open settings in up to three sentences, by what they can change.

    Args:
        unset: as `section.name`, of a configuration.

    Returns:
        None for a configuration that leaves nothing open. Those that change answers come first.
    """
    unset = list(unset)
    kinds = (("can change what the model answers", deciding(unset)),
             ("matter only where noise is drawn, in training and in the faithful evaluation",
              [name for name in unset if name in NOISE]),
             ("matter only for the loss and its gradients", [name for name in unset if name in LOSS]))
    return [f"{', '.join(names)} {what}" for what, names in kinds if names]
