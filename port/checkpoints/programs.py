"""The programs whose checkpoints are read, in one table: names and layouts, slots, what gives each away.

A family of models has one row for each program that trained it (matrix capsules have two). Everything that
reads or writes a checkpoint asks this table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from port.capsnet import tf_names as convert_capsnet
from port.core.variable_table import Row
from port.em import tf_names as convert_em
from port.scae.config import Config
from port.scae.config_modes import CONFIGS
from port.scae.tf_names import MAPPING

RMSPROP = {"RMSProp": "ms", "RMSProp_1": "mom"}
ADAM = {"Adam": "m", "Adam_1": "v"}
# Variables that may be without optimizer slots beside others that have them: no gradient reaches
# the dummy vote unless votes are soft, nor the scale bias where the vote scale is fixed.
DUMMY_VOTE = "image_capsule/capsule_likelihood/dummy_vote"
VOTE_SCALE_BIAS = "image_capsule/capsule_layer/add_3/b"


class Origin(NamedTuple):
    """A program.

    Attributes:
        program: its name in words.
        kind: of the configuration of its models.
        scopes: beginnings of variable names that no other program has.
        table: its names and layouts.
        slots: what stands after a variable's name in the checkpoint → slot of the port's optimizer.
        counters: arrays that follow from the step.
        may_lack_slots: variables that may be without slots beside others that have them.
    """

    program: str
    kind: str
    scopes: tuple[str, ...]
    table: tuple[Row, ...]
    slots: Mapping[str, str]
    counters: tuple[str, ...] = ()
    may_lack_slots: tuple[str, ...] = ()


_POWERS = ("beta1_power", "beta2_power")
ORIGINS: tuple[Origin, ...] = (
    Origin("an image model", "scae",
           ("conv_net_2d/", "capsule_image_encoder/", "template_based_image_decoder/", "image_capsule/"),
           MAPPING, RMSPROP, (), (DUMMY_VOTE, VOTE_SCALE_BIAS)),
    Origin("a constellation model", "constellation", ("constellation_capsule/", "constellation_decoder/"),
           MAPPING, RMSPROP),
    Origin("CapsNet", "capsnet", ("conv_capsule1/biases", "recons/"), convert_capsnet.MAPPING, ADAM,
           _POWERS),
    Origin("IBM's matrix capsules", "em", ("relu_conv1/", "primary_caps/", "lyr.conv_caps", "class_caps/"),
           convert_em.MAPPING, ADAM, _POWERS),
    Origin("the authors' matrix capsules", "em", ("conv_capsule1/conv_capsule1_act/", "convCaps",
                                                  "capsule2/sigma_biases"),
           convert_em.OFFICIAL, ADAM, _POWERS),
)


def candidates(names: Collection[str]) -> list[Origin]:
    """The programs that some of these variables can only be of."""
    return [origin for origin in ORIGINS if any(name.startswith(origin.scopes) for name in names)]


def origin_of(names: Collection[str]) -> Origin:
    """The program that wrote a checkpoint; the image autoencoder's where nothing tells."""
    found = candidates(names)
    return found[0] if len(found) == 1 else ORIGINS[0]


def origin_of_config(config: Any) -> Origin:
    """The program whose names a model's checkpoint gets."""
    if config.kind == "em":
        table = convert_em.table_of(config.network)
        return next(origin for origin in ORIGINS if origin.table is table)
    # Every mode of the image model has the image model's names.
    kind = Config.kind if config.kind in CONFIGS else config.kind
    return next(origin for origin in ORIGINS if origin.kind == kind)
