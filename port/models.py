"""The model families in one table, by the kind of their configuration.

Everything else asks this table: nothing tests which model it has in hand.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from torch import nn

from port.config import AnyConfig, Config
from port.config_constellation import ConstellationConfig
from port.constellation import ConstellationAutoencoder
from port.scae import ImageAutoencoder

Model = ImageAutoencoder | ConstellationAutoencoder


class Family(NamedTuple):
    """What is common to the models of one kind.

    Attributes:
        model: called with a configuration and `seed`.
        evaluation: module of this package with the family's `held_out`, what training reports about
            examples it does not see; imported when asked for, since it may need scikit-learn.
    """

    model: type[nn.Module]
    evaluation: str

    def held_out(self, model: nn.Module, dataset: Any, settings: Any) -> dict[str, float]:
        """What a model says about examples that are not trained on, without noise, in columns."""
        found = importlib.import_module(f"port.{self.evaluation}")
        return found.held_out(model, dataset, settings)


FAMILIES: dict[str, Family] = {
    Config.kind: Family(ImageAutoencoder, "evaluate"),
    ConstellationConfig.kind: Family(ConstellationAutoencoder, "evaluate_constellation"),
}


def family_of(config: AnyConfig) -> Family:
    """The family of a configuration."""
    return FAMILIES[config.kind]


def build(config: AnyConfig, seed: int = 0) -> Model:
    """The model that a configuration describes, with the initial weights of a seed."""
    return family_of(config).model(config, seed=seed)
