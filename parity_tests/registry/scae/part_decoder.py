"""Rows of `scae/part_decoder.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import SCOPES
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case
from parity_tests.registry.drawing import DECODER_LAYOUTS, build_decoder, decoder_cells, draw_part_decoder
from parity_tests.registry.row import OpCase


def _decode(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    templates = m.make_templates(x["feature"])
    decoded = m(x["pose"], x.get("presence"), templates, x.get("bg_image"))
    return {"templates": templates, "means": decoded.means, "mixing_logits": decoded.mixing_logits,
            "scale": decoded.scale, "transformed_templates": decoded.transformed_templates}


ROWS = (
    OpCase("scae.part_decoder.PartDecoder", Recipe(
        _decode, ("templates", "means", "mixing_logits", "scale", "transformed_templates"),
        DECODER_LAYOUTS, (), build_decoder, *SCOPES["PartDecoder"]), draw_part_decoder,
        (("part absent", Case({
            "pose": np.array([[[1.0, 0.1, 0.05, -0.1, 0.9, 0.0]] * 2]), "presence": np.zeros((1, 2)),
            "feature": np.ones((1, 2, 3))}, {
                "canvas_size": 7, "n_parts": 2, "n_features": 3, "settings": {
                    "output_size": [7, 7], "template_size": [4, 3], "n_channels": 1,
                    "learn_output_scale": False, "colorize_templates": True,
                    "template_nonlin": "relu1", "color_nonlin": "relu1",
                    "use_alpha_channel": True}})),),
        cells=decoder_cells, oracle=True),
)
