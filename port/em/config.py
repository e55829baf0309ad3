"""Configuration of matrix capsules: network, canvas and margin, and how they are spelled."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar

from port.configuration.plain import PlainConfig, Spelling, as_plain
from port.em.losses import MARGINS
from port.em.settings import PRESETS, Network, Routing

_OWN = ("canvas", "margin", "margin_ramp")
_SECTIONS = ("routing", "class_routing")
# Of the programs; here section `train` has them.
_TRAINING = ("lr", "lr_decay", "lr_decay_steps")


def _network(network: Network) -> dict[str, Any]:
    """A network's settings without the programs' learning rates."""
    return {name: value for name, value in dataclasses.asdict(network).items() if name not in _TRAINING}


@dataclass(frozen=True)
class EMConfig(PlainConfig):
    """Matrix capsules with EM routing.

    Attributes:
        canvas: side of the images in pixels; the network takes any that its windows fit.
        margin: schedule of the spread loss, of `em.losses.MARGINS`.
        margin_ramp: updates of the schedule `linear`.
        network: everything else.
    """

    kind: ClassVar[str] = "em"
    canvas: int = 32
    margin: str = "sigmoid"
    margin_ramp: int = 10_000
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        if self.margin not in MARGINS:
            raise ValueError(f"margin must be one of {', '.join(MARGINS)}, not {self.margin!r}")
        if self.margin_ramp < 1:
            raise ValueError(f"margin_ramp must be at least 1, not {self.margin_ramp}")
        network, side = self.network, self.canvas
        steps = [(network.conv_kernel, network.conv_stride, network.conv_padding),
                 *((kernel, stride, network.padding)
                   for kernel, stride in zip(network.kernels, network.strides))]
        for kernel, stride, padding in steps:
            side = -(-side // stride) if padding == "SAME" else (side - kernel) // stride + 1
            if side < 1:
                raise ValueError(f"canvas: {self.canvas} pixels are too few for the kernels "
                                 f"{[step[0] for step in steps]} with strides "
                                 f"{[step[1] for step in steps]}")

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.network.image_channels

    @property
    def n_classes(self) -> int:
        """Class capsules."""
        return self.network.classes

    def to_arguments(self) -> dict[str, Any]:
        return as_plain({"model": self.kind, **{name: getattr(self, name) for name in _OWN},
                       **_network(self.network)})


def _build(values: dict[str, Any]) -> EMConfig:
    own = {name: values.pop(name) for name in _OWN if name in values}
    return EMConfig(**own, network=Network(**{
        name: Routing(**value) if name in _SECTIONS else value for name, value in values.items()}))


SPELLING = Spelling(
    {name: hint for name, hint in {**{name: typing.get_type_hints(EMConfig)[name] for name in _OWN},
                                   **typing.get_type_hints(Network)}.items() if name not in _TRAINING},
    {name: _network(network) for name, network in PRESETS.items()},
    _build, _SECTIONS, typing.get_type_hints(Routing))
