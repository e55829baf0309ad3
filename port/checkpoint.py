"""A model as a folder: `model.safetensors`, `config.json` and a model card. No pickle."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import safetensors
from safetensors.torch import load_file, save_file

from port.config import ConfigError, from_arguments
from port.scae import ImageAutoencoder


class CheckpointError(ValueError):
    """A model folder that cannot be read; the message says what, where and what to do."""


def save(model: ImageAutoencoder, folder: str | Path, note: str = "") -> Path:
    """Write a model folder: all of it, or nothing.

    Args:
        model: the model.
        folder: made anew; an existing model folder is replaced file by file.
        note: a line for the model card.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary)
        save_file(state, made / "model.safetensors", {"format": "pt"})
        (made / "config.json").write_text(model.config.to_json() + "\n")
        (made / "README.md").write_text(_card(model, note))
        folder.mkdir(exist_ok=True)
        for item in sorted(made.iterdir()):
            os.replace(item, folder / item.name)
    return folder


def _card(model: ImageAutoencoder, note: str) -> str:
    n_parameters = sum(p.numel() for p in model.parameters())
    config = model.config
    return (f"# Stacked capsule autoencoder\n\n{config.part_encoder.n_caps} part capsules, "
            f"{config.obj_decoder.n_caps} object capsules, canvas {config.canvas}×{config.canvas}×"
            f"{config.channels}, {n_parameters:,} parameters.\n\n{note}\n\n"
            "    import port\n    model = port.load(\"<this folder>\")\n")


def load(folder: str | Path) -> ImageAutoencoder:
    """A model from its folder, in eval mode.

    Args:
        folder: as `save` writes it.

    Raises:
        CheckpointError: a file is missing or damaged, or weights and configuration differ.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no {name}; expected a folder written by port.save")
    try:
        config = from_arguments(json.loads((folder / "config.json").read_text()))
        state = load_file(folder / "model.safetensors")
    except (ConfigError, json.JSONDecodeError, safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from error
    model = ImageAutoencoder(config)
    dtypes = {tensor.dtype for tensor in state.values()}
    if len(dtypes) == 1:
        model.to(dtypes.pop())
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: weights do not fit config.json: {error}") from error
    return model.eval()
