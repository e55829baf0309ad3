"""The models by the kind of their configuration."""

from __future__ import annotations

from port.config import Config
from port.config_constellation import ConstellationConfig
from port.constellation import ConstellationAutoencoder
from port.scae import ImageAutoencoder

Model = ImageAutoencoder | ConstellationAutoencoder
MODELS = {Config.kind: ImageAutoencoder, ConstellationConfig.kind: ConstellationAutoencoder}


def build(config: Config | ConstellationConfig, seed: int = 0) -> Model:
    """The model that a configuration describes, with the initial weights of a seed."""
    return MODELS[config.kind](config, seed=seed)
