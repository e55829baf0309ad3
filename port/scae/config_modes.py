"""Configurations of the image model's other modes: parts alone, objects on frozen parts, three levels.

`pcae` trains part capsules on images without objects, `ocae` object capsules on part capsules that stay as
they are, `hierarchy` puts a third level of capsules on the objects. The sections they share with the image
model are its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from port.configuration import limits
from port.configuration.fields import ConfigError, Section, unknown, word
from port.configuration.limits import limited
from port.scae.config import (
    CNN,
    SECTIONS,
    Config,
    ObjDecoder,
    ObjEncoder,
    PartDecoder,
    PartEncoder,
    Written,
    check_canvas,
)

PART_REPAIRS = ("Q02",)


@dataclass(frozen=True)
class PartLosses(Section):
    """Loss weights of part capsules alone.

    Attributes:
        rec_ll_weight: of the pixels' log-likelihood.
        template_l1_weight: of the mean of relu(templates).
        mse_weight: of the mean picture's squared error.
        primary_caps_sparsity_weight: of the sum of the parts' presences.
        weight_decay: of ½ Σ w² over the variables that the original decays (Q15).
        target: what is reconstructed: the image, or its edges (`sobel`).
    """

    rec_ll_weight: float = limited(1.0, at_least=0)
    template_l1_weight: float = limited(0.0, at_least=0)
    mse_weight: float = limited(0.0, at_least=0)
    primary_caps_sparsity_weight: float = limited(0.0, at_least=0)
    weight_decay: float = limited(0.0, at_least=0)
    target: str = "image"


@dataclass(frozen=True)
class PartConfig(Written):
    """Part capsules alone: `canvas` pixels a side, `channels` colours, four sections, chosen repairs."""

    kind: ClassVar[str] = "pcae"
    canvas: int = limited(28, at_least=1, at_most=4096)
    channels: int = limited(1, at_least=1, at_most=64)
    cnn: CNN = field(default_factory=CNN)
    part_encoder: PartEncoder = field(default_factory=PartEncoder)
    part_decoder: PartDecoder = field(default_factory=PartDecoder)
    autoencoder: PartLosses = field(default_factory=PartLosses)
    repairs: tuple[str, ...] = ()
    unset: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        limits.check(self, ConfigError)
        for repair in self.repairs:
            if repair not in PART_REPAIRS:
                raise ConfigError(unknown("repair", repair, PART_REPAIRS))
        if self.part_encoder.n_caps_dims != 6:
            raise ConfigError("a part pose has 6 numbers: n_caps_dims "
                              f"{self.part_encoder.n_caps_dims} given")
        check_canvas(self)


@dataclass(frozen=True)
class ObjectConfig(Config):
    """Object capsules on frozen part capsules: the image model's sections, no gradient to the parts."""

    kind: ClassVar[str] = "ocae"


@dataclass(frozen=True)
class UpperEncoder(ObjEncoder):
    """The set transformer over object capsules."""

    n_outputs: int = 5


@dataclass(frozen=True)
class UpperDecoder(ObjDecoder):
    """Capsules of the third level; each votes for every object capsule's pose."""

    n_caps: int = 5
    n_votes: int = 10


@dataclass(frozen=True)
class UpperLosses(Section):
    """Loss weights of the third level.

    Attributes:
        caps_ll_weight: of the objects' poses under the third level's votes.
        parent_ll_weight: of the parts' poses under objects whose pose and presence come from the third level.
        dynamic_l2_weight: of the third level's squared deformations.
        prior_sparsity_loss_type: form of the sparsity losses on the third level's presence.
        prior_within_example_sparsity_weight: how strongly each image is to use few of its capsules.
        prior_between_example_sparsity_weight: how strongly each capsule is to serve its share of the images.
        posterior_sparsity_loss_type: form of the sparsity losses on the share of objects a capsule explains.
        posterior_within_example_sparsity_weight: as for the prior, on the posterior.
        posterior_between_example_sparsity_weight: as for the prior, on the posterior.
    """

    caps_ll_weight: float = limited(1.0, at_least=0)
    parent_ll_weight: float = limited(1.0, at_least=0)
    dynamic_l2_weight: float = limited(10.0, at_least=0)
    prior_sparsity_loss_type: str = "l2"
    prior_within_example_sparsity_weight: float = limited(1.0, at_least=0)
    prior_between_example_sparsity_weight: float = limited(1.0, at_least=0)
    posterior_sparsity_loss_type: str = "entropy"
    posterior_within_example_sparsity_weight: float = limited(1.0, at_least=0)
    posterior_between_example_sparsity_weight: float = limited(1.0, at_least=0)


@dataclass(frozen=True)
class HierarchyConfig(Config):
    """Three levels of capsules: the image model's sections and three for the level above the objects."""

    kind: ClassVar[str] = "hierarchy"
    upper_encoder: UpperEncoder = field(default_factory=UpperEncoder)
    upper_decoder: UpperDecoder = field(default_factory=UpperDecoder)
    upper: UpperLosses = field(default_factory=UpperLosses)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, left, right in (
                ("upper_decoder.n_votes and obj_decoder.n_caps", self.upper_decoder.n_votes,
                 self.obj_decoder.n_caps),
                ("upper_encoder.n_outputs and upper_decoder.n_caps", self.upper_encoder.n_outputs,
                 self.upper_decoder.n_caps)):
            if left != right:
                raise ConfigError(f"{name} must agree: {left} and {right} given")
        if self.obj_decoder.n_caps_params is None:
            raise ConfigError("the third level sees the object capsules' parameters: set n_obj_caps_params")
        if self.upper_encoder.n_inducing_points:
            raise ConfigError("the third level has no induced attention: set "
                              "upper_encoder.n_inducing_points to 0")


UPPER = {"upper_encoder": UpperEncoder, "upper_decoder": UpperDecoder, "upper": UpperLosses}
CONFIGS: dict[str, type] = {cls.kind: cls for cls in (Config, PartConfig, ObjectConfig, HierarchyConfig)}
SECTIONS_OF: dict[str, dict[str, type]] = {
    Config.kind: SECTIONS, ObjectConfig.kind: SECTIONS, HierarchyConfig.kind: SECTIONS | UPPER,
    PartConfig.kind: {"cnn": CNN, "part_encoder": PartEncoder, "part_decoder": PartDecoder,
                      "autoencoder": PartLosses}}


def kind_of(settings: Mapping[str, Any]) -> str:
    """Which image model nested or flat settings are of; `scae` where they name none.

    Raises:
        ConfigError: they name a model that does not exist.
    """
    kind = word(settings, "model") or Config.kind
    if kind not in CONFIGS:
        raise ConfigError(unknown("model", kind, (*CONFIGS, "constellation", "capsnet", "em")))
    return kind


def flat_names(kind: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Flat name → the places it sets; flags by their own names, the rest by the argument's name."""
    sections = SECTIONS_OF[kind]
    flags = {"canvas_size": (("", "canvas"),),
             "n_channels": (("", "channels"), ("part_decoder", "n_channels")),
             "n_part_caps": (("part_encoder", "n_caps"), ("obj_decoder", "n_votes")),
             "n_part_caps_dims": (("part_encoder", "n_caps_dims"),),
             "n_part_special_features": (("part_encoder", "n_features"),),
             "n_obj_caps": (("obj_decoder", "n_caps"), ("obj_encoder", "n_outputs"),
                            ("upper_decoder", "n_votes")),
             "n_obj_caps_params": (("obj_decoder", "n_caps_params"),),
             "n_upper_caps": (("upper_decoder", "n_caps"), ("upper_encoder", "n_outputs")),
             "n_upper_caps_params": (("upper_decoder", "n_caps_params"),)}
    flags = {name: kept for name, places in flags.items()
             if (kept := tuple(place for place in places if place[0] in ("", *sections)))}
    taken = {place for places in flags.values() for place in places}
    for section, cls in sections.items():
        for item in dataclasses.fields(cls):
            place = (section, item.name)
            if place not in taken:
                flags[f"{section}.{item.name}"] = (place,)
                flags[item.name] = (*flags.get(item.name, ()), place)
    flags["repairs"] = (("", "repairs"),)
    return flags


FLATS = {kind: flat_names(kind) for kind in CONFIGS}
