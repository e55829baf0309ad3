"""The original's variables of image and constellation models, and the port's parameters."""

from __future__ import annotations

from port.core.variable_table import Row

# `{i}` matches `_3` (or nothing, for 0) after the original's name, and is the number in the port's.
_ROWS: tuple[Row, ...] = (
    Row("conv_net_2d/conv_2d{i}/w", "part_encoder.cnn.conv.{i}.weight", "hwio_oihw"),
    Row("conv_net_2d/conv_2d{i}/b", "part_encoder.cnn.conv.{i}.bias"),
    Row("conv_net_2d/residual{i}/conv_2d{j}/w", "part_encoder.cnn.residual.{i}.conv.{j}.weight",
        "hwio_oihw"),
    Row("conv_net_2d/residual{i}/conv_2d{j}/b", "part_encoder.cnn.residual.{i}.conv.{j}.bias"),
    Row("capsule_image_encoder/add/b", "part_encoder.spatial_bias", "hwc_chw"),
    Row("capsule_image_encoder/conv_2d/w", "part_encoder.conv.weight", "hwio_oihw"),
    Row("capsule_image_encoder/conv_2d/b", "part_encoder.conv.bias"),
    Row("capsule_image_encoder/linear/w", "part_encoder.linear.weight", "transpose"),
    Row("capsule_image_encoder/linear/b", "part_encoder.linear.bias"),
    Row("template_based_image_decoder/templates", "part_decoder.templates", "kttc_kctt"),
    Row("template_based_image_decoder/templates_alpha", "part_decoder.templates_alpha", "kttc_kctt"),
    Row("template_based_image_decoder/mlp/linear{i}/w", "part_decoder.mlp.linear.{i}.weight",
        "transpose"),
    Row("template_based_image_decoder/mlp/linear{i}/b", "part_decoder.mlp.linear.{i}.bias"),
    Row("template_based_image_decoder/bg_value", "part_decoder.bg_value"),
    Row("template_based_image_decoder/bg_mixing_logit", "part_decoder.bg_mixing_logit"),
    Row("template_based_image_decoder/temperature_logit", "part_decoder.temperature_logit"),
    Row("template_based_image_decoder/scale", "part_decoder.scale"),
    Row("set_transformer/linear{i}/w", "object_encoder.linear.{i}.weight", "transpose"),
    Row("set_transformer/linear{i}/b", "object_encoder.linear.{i}.bias"),
    Row("set_transformer/inducing_points", "object_encoder.inducing_points"),
    Row("set_transformer/multi_head_qkv_attention/linear{i}/w",
        "object_encoder.attention.linear.{i}.weight", "transpose"),
    Row("set_transformer/multi_head_qkv_attention/linear{i}/b",
        "object_encoder.attention.linear.{i}.bias"),
    Row("set_transformer/induced_self_attention{i}/inducing_points",
        "object_encoder.self_attention.{i}.inducing_points"),
    *(Row(f"set_transformer/{kind}{{i}}/{before}", f"object_encoder.self_attention.{{i}}.{after}", how)
      for kind in ("self_attention", "induced_self_attention")
      for before, after, how in (
          ("multi_head_qkv_attention/linear{j}/w", "attention.linear.{j}.weight", "transpose"),
          ("multi_head_qkv_attention/linear{j}/b", "attention.linear.{j}.bias", "same"),
          ("layer_norm{j}/gamma", "layer_norm.{j}.weight", "same"),
          ("layer_norm{j}/beta", "layer_norm.{j}.bias", "same"),
          ("mlp/linear{j}/w", "mlp.linear.{j}.weight", "transpose"),
          ("mlp/linear{j}/b", "mlp.linear.{j}.bias", "same"))),
    Row("mlp_encoder/mlp/linear{i}/w", "object_encoder.mlp.linear.{i}.weight", "transpose"),
    Row("mlp_encoder/mlp/linear{i}/b", "object_encoder.mlp.linear.{i}.bias"),
    Row("image_capsule/capsule_layer/batch_mlp{i}/batch_linear{j}/weights",
        "object_decoder.capsule_layer.batch_mlp.{i}.batch_linear.{j}.weight"),
    Row("image_capsule/capsule_layer/batch_mlp{i}/batch_linear{j}/add/b",
        "object_decoder.capsule_layer.batch_mlp.{i}.batch_linear.{j}.bias"),
    Row("image_capsule/capsule_layer/add{i}/b", "object_decoder.capsule_layer.biases.{i}"),
    Row("image_capsule/capsule_layer/cpr_static", "object_decoder.capsule_layer.cpr_static"),
    Row("image_capsule/capsule_likelihood/dummy_vote",
        "object_decoder.capsule_likelihood.dummy_vote"),
    Row("image_capsule/capsule_likelihood/df", "object_decoder.capsule_likelihood.df"),
    Row("constellation_capsule/capsule_layer/batch_mlp{i}/batch_linear{j}/weights",
        "constellation_capsule.capsule_layer.batch_mlp.{i}.batch_linear.{j}.weight"),
    Row("constellation_capsule/capsule_layer/batch_mlp{i}/batch_linear{j}/add/b",
        "constellation_capsule.capsule_layer.batch_mlp.{i}.batch_linear.{j}.bias"),
    Row("constellation_capsule/capsule_layer/add{i}/b", "constellation_capsule.capsule_layer.biases.{i}"),
    Row("constellation_capsule/capsule_layer/cpr_static",
        "constellation_capsule.capsule_layer.cpr_static"),
    Row("constellation_decoder/batch_mlp/batch_linear{i}/weights",
        "constellation_decoder.batch_mlp.batch_linear.{i}.weight"),
    Row("constellation_decoder/batch_mlp/batch_linear{i}/add/b",
        "constellation_decoder.batch_mlp.batch_linear.{i}.bias"),
    *(Row(f"{module}/order_invariant_capsule_likelihood/df",
          f"{module}.order_invariant_capsule_likelihood.df")
      for module in ("constellation_capsule", "constellation_decoder")),
    Row("image_autoencoder/classification_probe{i}/linear/w", "probes.{i}.linear.weight", "transpose"),
    Row("image_autoencoder/classification_probe{i}/linear/b", "probes.{i}.linear.bias"),
)
# A third level of capsules has the object level's variables once more, in a scope of its own.
_UPPER = {"object_encoder.": "upper.encoder.", "object_decoder.": "upper.decoder."}
MAPPING: tuple[Row, ...] = _ROWS + tuple(
    Row(f"upper/{row.original}", upper + row.port.removeprefix(lower), row.transform)
    for lower, upper in _UPPER.items() for row in _ROWS
    if row.port.startswith(lower) and "induced_" not in row.original)
