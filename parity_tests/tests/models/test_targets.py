"""What is reconstructed: the image, or its edges where the configuration says so."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import port
from parity_tests import oracles
from port.core import preprocess
from port.data.dataset import Split
from port.evaluation import collected

TINY = {"canvas_size": 12, "n_channels": 3, "output_channels": [4, 4], "kernel_shapes": [3],
        "strides": [2, 1], "n_part_caps": 3, "n_obj_caps": 2, "template_size": 5,
        "n_part_special_features": 4, "n_output_dims": 8, "n_hiddens": 8, "n_obj_caps_params": 4,
        "colorize_templates": True, "use_alpha_channel": True}
IMAGE = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def tiny(target: str) -> port.ImageAutoencoder:
    return port.ImageAutoencoder(port.config.from_flat(TINY | {"target": target}), seed=1).eval()


def rec_ll(setting: str, target: torch.Tensor | None = None) -> float:
    return float(tiny(setting)(IMAGE, target=target).scalars["rec_ll"].detach())


def test_the_setting_makes_the_edges_the_target() -> None:
    """The input stays the raw image: only what is compared with the reconstruction changes."""
    edges = preprocess.normalized_sobel_edges(IMAGE)
    assert rec_ll("sobel") == rec_ll("image", target=edges) != rec_ll("image")
    assert rec_ll("image") == rec_ll("sobel", target=IMAGE)
    plain, sobel = (tiny(target)(IMAGE) for target in ("image", "sobel"))
    torch.testing.assert_close(plain.caps_presence_prob, sobel.caps_presence_prob, rtol=0, atol=0)


def test_the_target_in_the_pictures_is_the_oracle_s() -> None:
    shown = tiny("sobel")(IMAGE, pictures=True).pictures["target"]
    expected = oracles.core.preprocess.normalized_sobel_edges(IMAGE.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(shown.permute(0, 2, 3, 1).numpy(), expected, atol=2e-6)


def test_evaluation_scores_against_the_edges_too() -> None:
    """`collect` needs no word about the target: it goes with the model."""
    split = Split((IMAGE * 255).to(torch.uint8), torch.zeros(4, dtype=torch.int64))
    found = [collected.collect(tiny(target), split, 12, 4, seed=0, noise=False).rec_ll
             for target in ("image", "sobel")]
    pixels = split.images / 255
    model = tiny("image")
    expected = [float(model(pixels, target=target).scalars["rec_ll"].detach())
                for target in (None, preprocess.normalized_sobel_edges(pixels))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_saved_model_keeps_its_target(tmp_path) -> None:
    port.save(tiny("sobel"), tmp_path / "model")
    again = port.load(tmp_path / "model")
    assert again.config.autoencoder.target == "sobel"
    assert port.config.to_flat(again.config)["target"] == "sobel"
    assert json.loads(again.config.to_json())["autoencoder"]["target"] == "sobel"


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(port.ConfigError, match="sobel"):
        port.config.from_flat({"target": "sobell"})
