"""Oracles of the part decoder: templates, colours, background, the mixture over parts."""

from collections.abc import Mapping

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.core import layers, mixture, warp
from parity_tests.oracles.scalars import as64, sub_scope

Variables = Mapping[str, np.ndarray]


def raw_templates(variables: Variables, template_nonlin: str = "relu1") -> np.ndarray:
    """nonlin(templates), the nonlinearity 'relu1' or 'sigmoid'.

    Args: variables templates [1, K, h, w, C]. Returns [1, K, h, w, C].
    Source: primary.py, TemplateBasedImageDecoder.make_templates.
    """
    templates = as64(variables["templates"])
    out = np.zeros(templates.shape)
    for index in np.ndindex(templates.shape):
        out[index] = scalars.NONLINEARITIES[template_nonlin](float(templates[index]))
    return out


def template_colors(variables: Variables, feature, color_nonlin: str = "relu1") -> np.ndarray:
    """nonlin(MLP(feature)), with 0.99 added first where the nonlinearity is relu1.

    Args: variables mlp/linear_0, mlp/linear_1; feature [B, K, F]. Returns [B, K, C].
    Source: primary.py, TemplateBasedImageDecoder.make_templates.
    """
    color = layers.mlp(feature, sub_scope(variables, "mlp"))
    for index in np.ndindex(color.shape):
        value = float(color[index]) + (0.99 if color_nonlin == "relu1" else 0.0)
        color[index] = scalars.NONLINEARITIES[color_nonlin](value)
    return color


def make_templates(
    variables: Variables,
    feature=None,
    colorize_templates: bool = False,
    template_nonlin: str = "relu1",
    color_nonlin: str = "relu1",
) -> np.ndarray:
    """Templates of each example: raw template times the colour its part feature gives.

    Args: feature [B, K, F]. Returns [B, K, h, w, C], without colours [1, K, h, w, C].
    Source: primary.py, TemplateBasedImageDecoder.make_templates.
    """
    templates = raw_templates(variables, template_nonlin)
    if feature is None or not colorize_templates:
        return templates
    color = template_colors(variables, feature, color_nonlin)
    n_images = color.shape[0]
    out = np.zeros((n_images, *templates.shape[1:]))
    for b, k, i, j, c in np.ndindex(out.shape):
        out[b, k, i, j, c] = float(templates[0, k, i, j, c]) * float(color[b, k, c])
    return out


def temperature(variables: Variables) -> float:
    """softplus(temperature_logit + 0.5) + 1e-4.

    Source: primary.py, TemplateBasedImageDecoder._build, without alpha channel.
    """
    return scalars.softplus(float(as64(variables["temperature_logit"])[0]) + 0.5) + 1e-4


def output_scale(variables: Variables, learn_output_scale: bool = False) -> float:
    """Standard deviation of every component: 1, or softplus(scale) + 1e-4 when learned.

    Source: primary.py, TemplateBasedImageDecoder._build.
    """
    if not learn_output_scale:
        return 1.0
    return scalars.softplus(float(as64(variables["scale"])[0])) + 1e-4


def part_decoder(
    pose,
    presence,
    variables: Variables,
    output_size,
    feature=None,
    colorize_templates: bool = False,
    template_nonlin: str = "relu1",
    color_nonlin: str = "relu1",
    use_alpha_channel: bool = False,
    learn_output_scale: bool = False,
    bg_image=None,
    inverse_space_transform: bool = True,
    **_unused,
) -> dict[str, np.ndarray]:
    """Draws the parts and the background as a mixture with K + 1 components.

    means: warped templates, and last the background, sigmoid(bg_value) everywhere or bg_image.
    logits with alpha: warped raw alpha (zero outside the template), softplus(bg_mixing_logit)
    for the background, one channel; without: mean / temperature, background included, C channels.
    Parts add safe_log(presence), the background safe_log(1) = 0.
    Args: pose [B, K, 6]; presence [B, K]; output_size (H, W); bg_image [B, H, W, C] or None.
    Returns templates [B or 1, K, h, w, C], transformed_templates [B, K, H, W, C],
    mixing_logits [B, K, H, W, 1 or C] (both without the background), means and logits
    [B, K + 1, H, W, ...] (with it), scale (a number), mean and mode [B, H, W, C].
    Source: primary.py, TemplateBasedImageDecoder._build.
    """
    pose, presence = as64(pose), as64(presence)
    height, width = output_size
    n_images, n_caps = pose.shape[:2]
    templates = make_templates(
        variables, feature, colorize_templates, template_nonlin, color_nonlin
    )
    n_channels = templates.shape[-1]
    warped = warp.warp_templates(templates, pose, (height, width), inverse_space_transform)

    means = np.zeros((n_images, n_caps + 1, height, width, n_channels))
    for b, k, i, j, c in np.ndindex(means.shape):
        if k < n_caps:
            means[b, k, i, j, c] = warped[b, k, i, j, c]
        elif bg_image is not None:
            means[b, k, i, j, c] = bg_image[b, i, j, c]
        else:
            means[b, k, i, j, c] = scalars.sigmoid(float(as64(variables["bg_value"])[0]))

    if use_alpha_channel:
        alpha = warp.warp_templates(variables["templates_alpha"], pose, (height, width),
                                    inverse_space_transform)
        bg_logit = scalars.softplus(float(as64(variables["bg_mixing_logit"])[0]))
        logits = np.zeros((n_images, n_caps + 1, height, width, 1))
    else:
        heat = temperature(variables)
        logits = np.zeros(means.shape)
    for b, k, i, j, c in np.ndindex(logits.shape):
        if use_alpha_channel:
            value = float(alpha[b, k, i, j, 0]) if k < n_caps else bg_logit
        else:
            value = float(means[b, k, i, j, c]) / heat
        if k < n_caps:
            value += scalars.safe_log(float(presence[b, k]))
        logits[b, k, i, j, c] = value

    scale = output_scale(variables, learn_output_scale)
    return {
        "templates": templates,
        "transformed_templates": warped,
        "mixing_logits": logits[:, :n_caps],
        "means": means,
        "logits": logits,
        "scale": scale,
        "mean": mixture.mixture_mean(logits, means),
        "mode": mixture.mixture_mode(logits, means, scale),
    }


def image_log_prob(image, decoded: Mapping) -> np.ndarray:
    """Log-likelihood of an image under what part_decoder returned, per pixel and channel.

    Args: image [B, H, W, C]. Returns [B, H, W, C].
    Source: primary.py and prob.py, pdf.log_prob.
    """
    return mixture.mixture_log_prob(image, decoded["logits"], decoded["means"], decoded["scale"])
