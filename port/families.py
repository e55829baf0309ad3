"""The model families in one table, by the kind of their configuration.

What builds, trains and measures a model asks this table. What is told apart by kind beside it is how settings are
spelled (`port.config.SPELLINGS`), which programs wrote checkpoints (`port.checkpoints.programs`), what an exported
graph takes (`port.checkpoints.export`), and tables of `pipelines` that CONTRIBUTING.md lists.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from port.capsnet.classifier import CapsNetClassifier
from port.capsnet.config import CapsNetConfig
from port.config import AnyConfig, Config
from port.constellation.config import ConstellationConfig
from port.constellation.model import ConstellationAutoencoder
from port.em.classifier import MatrixCapsuleClassifier
from port.em.config import EMConfig
from port.scae.config_modes import HierarchyConfig, ObjectConfig, PartConfig
from port.scae.hierarchy import HierarchyAutoencoder
from port.scae.model import ImageAutoencoder
from port.scae.pcae import PartAutoencoder

Model = (ImageAutoencoder | PartAutoencoder | ConstellationAutoencoder | CapsNetClassifier
         | MatrixCapsuleClassifier)


class Family(NamedTuple):
    """A row of `FAMILIES`: what commands, training and evaluation have to know of one kind of model.

    Attributes:
        title: heading of a model card.
        words: function that tells a configuration in one line.
        model: class of the model; called with a configuration and `seed`.
        evaluation: name of the module in `port.evaluation` whose `held_out` measures examples that are not
            trained on; imported when asked for, since it may need scikit-learn.
        draws: whether a forward pass takes a `Noise`.
        low_precision: whether `train.amp` reaches its layers.
    """

    title: str
    words: Callable[[Any], str]
    model: type[nn.Module]
    evaluation: str
    draws: bool = True
    low_precision: bool = True

    def held_out(self, model: nn.Module, dataset: Any, settings: Any) -> dict[str, float]:
        """What a model says about examples that are not trained on, without noise, in columns."""
        module = importlib.import_module(f"port.evaluation.{self.evaluation}")
        return module.held_out(model, dataset, settings)


def _image_words(config: Config) -> str:
    return (f"{config.part_encoder.n_caps} part capsules, {config.obj_decoder.n_caps} object capsules, "
            f"canvas {config.canvas}×{config.canvas}×{config.channels}")


def _part_words(config: PartConfig) -> str:
    return (f"{config.part_encoder.n_caps} part capsules, canvas "
            f"{config.canvas}×{config.canvas}×{config.channels}")


def _hierarchy_words(config: HierarchyConfig) -> str:
    return f"{config.upper_decoder.n_caps} capsules above the objects, {_image_words(config)}"


def _constellation_words(config: ConstellationConfig) -> str:
    return f"{config.obj_decoder.n_caps} object capsules of {config.obj_decoder.n_votes} votes each"


def _capsnet_words(config: CapsNetConfig) -> str:
    s = config.settings
    return (f"{s.children:,} primary capsules of {s.primary_atoms} numbers, {s.classes} class capsules of "
            f"{s.class_atoms}, {s.iterations} routing iterations, "
            f"canvas {s.canvas}×{s.canvas}×{s.channels}")


def _em_words(config: EMConfig) -> str:
    n = config.network
    return (f"{', '.join(map(str, n.types))} capsule types, {n.classes} classes, "
            f"{n.routing.iterations} routing iterations, "
            f"canvas {config.canvas}×{config.canvas}×{config.channels}")


FAMILIES: dict[str, Family] = {
    Config.kind: Family("Stacked capsule autoencoder", _image_words, ImageAutoencoder, "collected"),
    PartConfig.kind: Family("Part capsule autoencoder", _part_words, PartAutoencoder, "parts"),
    ObjectConfig.kind: Family("Object capsules on frozen part capsules", _image_words, ImageAutoencoder,
                              "collected"),
    HierarchyConfig.kind: Family("Stacked capsule autoencoder of three levels", _hierarchy_words,
                                 HierarchyAutoencoder, "collected"),
    ConstellationConfig.kind: Family("Constellation autoencoder", _constellation_words,
                                     ConstellationAutoencoder, "constellation"),
    CapsNetConfig.kind: Family("CapsNet with dynamic routing", _capsnet_words, CapsNetClassifier,
                               "classes", draws=False, low_precision=False),
    EMConfig.kind: Family("Matrix capsules with EM routing", _em_words, MatrixCapsuleClassifier,
                          "classes", draws=False, low_precision=False),
}


def family_of(config: AnyConfig) -> Family:
    """The family of a configuration."""
    return FAMILIES[config.kind]


def build(config: AnyConfig, seed: int = 0) -> Model:
    """The model that a configuration describes, with the initial weights of a seed."""
    return family_of(config).model(config, seed=seed)
