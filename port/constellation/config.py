"""Configuration of the constellation autoencoder: its sections, and how flags and manifests spell them.

`port.config` reads every configuration and hands those with `model: constellation` (or the sections
of one) to this file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from port.configuration import limits
from port.configuration.fields import ConfigError, Section, as_json, unknown
from port.configuration.limits import limited
from port.core.quirks import CONSTELLATION_REPAIRS
from port.scae.config import ObjDecoder, ObjEncoder

MODEL = "constellation"
DECODERS = ("ConstellationCapsule", "ConstellationDecoder")


@dataclass(frozen=True)
class PointEncoder(ObjEncoder):
    """The set transformer over points."""

    n_layers: int = 4
    n_heads: int = 4
    n_dims: int = 128
    n_output_dims: int = 32
    n_outputs: int = 3


@dataclass(frozen=True)
class VoteDecoder(ObjDecoder):
    """Capsules with poses (`ConstellationCapsule`) or the plain baseline (`ConstellationDecoder`).

    Attributes:
        klass: which of the two.
        pdf: density of the votes (Q38).
    """

    klass: str = "ConstellationCapsule"
    n_caps: int = 3
    n_votes: int = 4
    similarity_transform: bool = True
    pdf: str = "normal"


@dataclass(frozen=True)
class ConstellationLosses(Section):
    """Loss weights.

    Attributes:
        n_classes: patterns that an example is to show; sets the target of the prior sparsity.
        dynamic_l2_weight: of the squared deformations.
        mixing_kl_weight: of the divergence of the mixing probabilities; counts only with repair Q33.
        sparsity_weight: of the cross-entropy that makes capsules without points absent (Q34).
        prior_sparsity_loss_type: form of the sparsity losses on the capsules' presence.
        prior_within_example_sparsity_weight: how strongly each example is to use few capsules.
        prior_between_example_sparsity_weight: how strongly each capsule is to serve its share of the examples
            (Q36: the original's flag has no effect).
        prior_within_example_constant: presence that an example is to use; 0 is capsules ÷ classes (Q09).
        posterior_sparsity_loss_type: form of the sparsity losses on the share of points explained (Q35).
        posterior_within_example_sparsity_weight: as for the prior, on the posterior.
        posterior_between_example_sparsity_weight: as for the prior, on the posterior.
    """

    n_classes: int = limited(2, at_least=1)
    dynamic_l2_weight: float = limited(10.0, at_least=0)
    mixing_kl_weight: float = limited(0.0, at_least=0)
    sparsity_weight: float = limited(10.0, at_least=0)
    prior_sparsity_loss_type: str = "l2"
    prior_within_example_sparsity_weight: float = limited(1.0, at_least=0)
    prior_between_example_sparsity_weight: float = limited(1.0, at_least=0)
    prior_within_example_constant: float = limited(0.0, at_least=0)
    posterior_sparsity_loss_type: str = "entropy"
    posterior_within_example_sparsity_weight: float = limited(10.0, at_least=0)
    posterior_between_example_sparsity_weight: float = limited(10.0, at_least=0)


SECTIONS = {"obj_encoder": PointEncoder, "obj_decoder": VoteDecoder,
            "autoencoder": ConstellationLosses}


@dataclass(frozen=True)
class ConstellationConfig:
    """The constellation autoencoder: three sections and the repairs chosen.

    Attributes:
        n_points: the shape of the masks of attention dropout alone; the model takes any number.
        repairs: ids of the original's quirks that are repaired, as Q31.
        unset: as in `port.scae.config.Config`.
    """

    kind: ClassVar[str] = MODEL
    n_points: int = limited(11, at_least=1)
    obj_encoder: PointEncoder = field(default_factory=PointEncoder)
    obj_decoder: VoteDecoder = field(default_factory=VoteDecoder)
    autoencoder: ConstellationLosses = field(default_factory=ConstellationLosses)
    repairs: tuple[str, ...] = ()
    unset: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        limits.check(self, ConfigError)
        for repair in self.repairs:
            if repair not in CONSTELLATION_REPAIRS:
                raise ConfigError(unknown("repair", repair, CONSTELLATION_REPAIRS))
        decoder = self.obj_decoder
        if self.obj_encoder.n_outputs != decoder.n_caps:
            raise ConfigError("obj_encoder.n_outputs and obj_decoder.n_caps must agree: "
                              f"{self.obj_encoder.n_outputs} and {decoder.n_caps} given")
        if decoder.n_caps_dims != 2:
            raise ConfigError(f"a capsule has 2 dimensions: n_caps_dims {decoder.n_caps_dims} given")
        if decoder.klass == "ConstellationDecoder" and decoder.caps_dropout_rate > 0:
            raise ConfigError("the plain ConstellationDecoder has no capsule dropout: set "
                              "caps_dropout_rate to 0 or klass to ConstellationCapsule")

    def to_arguments(self) -> dict[str, Any]:
        """Nested plain dictionary in the original's argument names, as `reference` takes it."""
        arguments = json.loads(json.dumps({"model": MODEL} | dataclasses.asdict(self)))
        del arguments["unset"]
        return arguments

    def to_json(self) -> str:
        """The configuration as JSON, unset settings as "unset"; `from_arguments` reads it back."""
        return as_json(self.to_arguments(), self.unset)


def is_constellation(settings: Mapping[str, Any]) -> bool:
    """Whether nested or flat settings are this model's.

    They name it, or have a decoder class of it, or the sections of an autoencoder without parts.
    """
    if "model" in settings:
        return settings["model"] == MODEL
    decoder = settings.get("obj_decoder")
    return isinstance(decoder, Mapping) and decoder.get("klass") in DECODERS


BETWEEN = "prior_between_example_sparsity_weight"
WITHIN = "prior_within_example_sparsity_weight"
# Flags of the original that set two places, or one under another name.
_FLAGS = {"n_obj_caps": (("obj_decoder", "n_caps"), ("obj_encoder", "n_outputs")),
          "n_obj_caps_params": (("obj_decoder", "n_caps_params"),)}


def _flat_names() -> dict[str, tuple[tuple[str, str], ...]]:
    """Flat name → the places it sets; `section.name` for every argument, and shorter ones."""
    names = dict(_FLAGS)
    taken = {place for places in names.values() for place in places}
    for section, cls in SECTIONS.items():
        for item in dataclasses.fields(cls):
            place = (section, item.name)
            names[f"{section}.{item.name}"] = (place,)
            if place not in taken and item.name != BETWEEN:
                names[item.name] = (*names.get(item.name, ()), place)
    return names | {"n_points": (("", "n_points"),), "repairs": (("", "repairs"),)}


FLAT = _flat_names()
_SHORTEST = {place: min((key for key, places in FLAT.items() if place in places), key=len)
             for places in FLAT.values() for place in places}


def flat_name(section: str, name: str) -> str:
    """The shortest flat name of a class argument."""
    return _SHORTEST[section, name]


def nested(settings: Mapping[str, Any], ignored: Collection[str] = ()) -> dict[str, Any]:
    """Flat settings as nested class arguments.

    The flag `prior_between_example_sparsity_weight` is read by nothing: the original gives both
    weights the value of the flag for within (Q36). The class argument,
    `autoencoder.prior_between_example_sparsity_weight`, counts.

    Args:
        settings: flat names, those of the original's flags among them.
        ignored: names that belong to training.

    Raises:
        ConfigError: a name that does not exist.
    """
    arguments: dict[str, Any] = {"model": MODEL}
    flat = {key: value for key, value in settings.items() if key != BETWEEN and key not in ignored}
    if WITHIN in flat:
        flat.setdefault(f"autoencoder.{BETWEEN}", flat[WITHIN])
    # A plain name reaches every section that has it; the dotted one is applied last.
    for key, value in sorted(flat.items(), key=lambda pair: "." in pair[0]):
        if key not in FLAT:
            names = [k for k in (*FLAT, BETWEEN, *ignored) if "." not in k]
            raise ConfigError(unknown("key", key, names))
        for section, name in FLAT[key]:
            (arguments.setdefault(section, {}) if section else arguments)[name] = value
    return arguments
