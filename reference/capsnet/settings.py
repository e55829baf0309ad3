"""What a capsule network with dynamic routing is: sizes, and the points where programs differ.

The twin file in the other package is the same text: no framework is involved.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Configuration of `capsnet.network.CapsNet`; the defaults are the paper's network.

    Attributes:
        canvas: side of the image in pixels.
        channels: of the image.
        conv1_channels: of the first convolution.
        kernel: side of both convolutions' kernels.
        conv1_stride: of the first convolution.
        primary_stride: of the second, whose output is the primary capsules.
        primary_types: capsules at each position.
        primary_atoms: numbers of a primary capsule.
        classes: class capsules.
        class_atoms: numbers of a class capsule.
        decoder: widths of the decoder's hidden layers; () is a network without decoder.
        iterations: of the routing, 1 to 5.
        routing_gradient: `all`: through every iteration (official); `last`: coupling coefficients
            are constants (XifengGuo).
        leaky: a further zero logit takes part in the softmax and its share is dropped.
        routing_bias: a trainable bias for each number of a class capsule, added before squash (official).
        primary_coupling: the primary capsules' convolution is divided by the number of types, or
            types + 1 if leaky, since the official code routes it once.
        squash_epsilon: added to the norm that squash divides by (XifengGuo: 1e-8).
        margin: `sum`: class sum, batch mean (paper); `mean`: half of it, mean over batch and classes
            (official), which is the paper's loss over 2·classes.
        reconstruction_weight: of the sum of squared differences.
        reconstruction: `joint`: the decoder's loss trains the capsules too; `frozen`: only the decoder
            is trained, on capsules that are constants.
        initial: `official`: truncated normals 0.05 (first convolution) and 0.1, biases 0.1;
            `fan_in`: truncated normals 1/sqrt(fan_in), class weights 0.01 normal, biases 0.

    Raises:
        ValueError: a value that is not allowed, a size below 1, or a canvas too small for the convolutions.
    """

    canvas: int = 28
    channels: int = 1
    conv1_channels: int = 256
    kernel: int = 9
    conv1_stride: int = 1
    primary_stride: int = 2
    primary_types: int = 32
    primary_atoms: int = 8
    classes: int = 10
    class_atoms: int = 16
    decoder: tuple[int, ...] = (512, 1024)
    iterations: int = 3
    routing_gradient: str = "all"
    leaky: bool = False
    routing_bias: bool = False
    primary_coupling: bool = False
    squash_epsilon: float = 0.0
    margin: str = "sum"
    reconstruction_weight: float = 0.0005
    reconstruction: str = "joint"
    initial: str = "fan_in"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not at least 1")
        if min(self.decoder, default=1) < 1:
            raise ValueError(f"decoder: a layer's width must be at least 1, not {min(self.decoder)}")
        for name in ("squash_epsilon", "reconstruction_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is not a number from 0 up")
        if not 1 <= self.iterations <= 5:
            raise ValueError(f"iterations: {self.iterations} is not between 1 and 5")
        if self.reconstruction == "frozen" and not self.decoder:
            raise ValueError("reconstruction: frozen trains the decoder alone, and decoder is ()")
        if self.grid < 1:
            raise ValueError(f"canvas: {self.canvas} pixels are too few for two convolutions with kernel "
                             f"{self.kernel}, strides {self.conv1_stride} and {self.primary_stride}")

    @property
    def grid(self) -> int:
        """Side of the grid of primary capsules."""
        side = (self.canvas - self.kernel) // self.conv1_stride + 1
        return (side - self.kernel) // self.primary_stride + 1

    @property
    def children(self) -> int:
        """Number of primary capsules."""
        return self.primary_types * self.grid ** 2

    @property
    def pixels(self) -> int:
        """Numbers in an image."""
        return self.canvas ** 2 * self.channels


CHOICES = {"routing_gradient": ("all", "last"), "margin": ("sum", "mean"),
           "reconstruction": ("joint", "frozen"), "initial": ("official", "fan_in")}
SIZES = ("canvas", "channels", "conv1_channels", "kernel", "conv1_stride", "primary_stride",
         "primary_types", "primary_atoms", "classes", "class_atoms")

# The published network; the authors' program; XifengGuo/CapsNet-Pytorch.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "official": {"routing_bias": True, "primary_coupling": True, "margin": "mean",
                 "initial": "official"},
    "xg": {"routing_gradient": "last", "squash_epsilon": 1e-8},
}


def preset(name: str, **changes: Any) -> Settings:
    """A named set of settings, with changes.

    Args:
        name: `paper`, `official` or `xg`.
        changes: settings to replace.

    Returns:
        The settings.

    Raises:
        ValueError: no such preset, no such setting, or a value that is not allowed.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: {name!r} is not one of {', '.join(PRESETS)}")
    known = [field.name for field in dataclasses.fields(Settings)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(f"no setting {unknown[0]!r}; there are {', '.join(known)}")
    return Settings(**PRESETS[name] | changes)
