"""The architecture of a CapsNet or matrix-capsule checkpoint, from names and shapes alone.

`port.checkpoints.infer` hands the checkpoints of the routing ancestors to this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from port.config import SPELLINGS

# A checkpoint's shapes: (name, rank) → shape, an error where it is missing; `name in` them.
Look = Any


def capsnet(look: Look, fail: Callable[[str], Exception]) -> tuple[dict[str, Any], dict[str, Any],
                                                                   dict[str, str]]:
    """What is known, what is assumed of the program's fixed settings, and what has to be given."""
    kernel, width, channels, conv1 = look("conv1/weights", 4)
    if kernel != width:
        raise fail(f"conv1/weights: a kernel of {kernel}×{width} is not square")
    types, atoms = look("conv_capsule1/biases", 4)[:2]
    children, _, outputs = look("capsule2/weights", 3)
    known: dict[str, Any] = {"kernel": kernel, "channels": channels, "conv1_channels": conv1,
                             "primary_types": types, "primary_atoms": atoms}
    widths, i = [], 1
    while f"recons/recons_{i}/weights" in look:
        widths.append(look(f"recons/recons_{i}/weights", 2)[1])
        i += 1
    if len(widths) != _layers(look, "recons/recons_"):
        raise fail(f"the variable recons/recons_{i}/weights is missing")
    known["decoder"], needed = tuple(widths[:-1]), {}
    biased = "capsule2/biases" in look
    if biased:
        known["classes"], known["class_atoms"] = look("capsule2/biases", 2)
    else:
        needed["classes"] = f"capsules; classes times class_atoms is {outputs}"
        needed["class_atoms"] = "numbers of each"
    if widths:
        side = math.isqrt(widths[-1] // channels)
        if side * side * channels != widths[-1]:
            raise fail(f"recons/recons_{i - 1}/weights draws {widths[-1]} numbers, no square image of "
                       f"{channels} channels")
        known["canvas"] = side
    else:
        needed["canvas"] = "side of the images in pixels"
    known["routing_bias"] = biased
    grid = math.isqrt(children // types)
    if grid * grid * types != children:
        raise fail(f"capsule2/weights has {children} children, no square grid of {types} types")
    assumed: dict[str, Any] = {"program": "official" if biased else "paper"}
    if "canvas" in known:
        fits = [(one, two) for one in (1, 2) for two in (1, 2)
                if ((known["canvas"] - kernel) // one + 1 - kernel) // two + 1 == grid]
        if fits == [] or ((1, 2) not in fits and len(fits) > 1):
            needed |= {"conv1_stride": "of the first convolution", "primary_stride": "of the second"}
        else:
            strides = (1, 2) if (1, 2) in fits else fits[0]
            assumed |= dict(zip(("conv1_stride", "primary_stride"), strides))
    return known, assumed, needed


def matrix_capsules(look: Look, fail: Callable[[str], Exception]) -> tuple[dict[str, Any], dict[str, Any],
                                                                           dict[str, str]]:
    """The same for matrix capsules of either program."""
    ibm = "relu_conv1/weights" in look
    kernel, _, image_channels, channels = look("relu_conv1/weights" if ibm else "conv1/weights", 4)
    activation = "primary_caps/activation/weights" if ibm else "conv_capsule1/conv_capsule1_act/weights"
    types, kernels, i = [look(activation, 4)[3]], [], 0
    while (name := f"lyr.conv_caps{i + 1}/votes/w" if ibm else f"convCaps{i}/weights") in look:
        shape = look(name, 5)
        places = shape[1] // types[-1] if ibm else shape[1] * shape[2]
        size = math.isqrt(places)
        if size * size != places or (ibm and places * types[-1] != shape[1]):
            raise fail(f"{name}: shape {list(shape)} is no square kernel over {types[-1]} types")
        kernels.append(size)
        types.append(shape[2] if ibm else shape[4] // 4)
        i += 1
    if i != _layers(look, "lyr.conv_caps" if ibm else "convCaps"):
        raise fail(f"the variable {name} is missing")
    last = look("class_caps/v/w", 5)[2] if ibm else look("capsule2/weights", 3)[2] // 4
    known = {"image_channels": image_channels, "channels": channels, "types": tuple(types),
             "kernels": tuple(kernels), "classes": last, "conv_kernel": kernel}
    assumed: dict[str, Any] = {"program": "ibm" if ibm else "official"}
    needed = {"canvas": "side of the images in pixels"}
    if len(kernels) == 2:
        assumed["strides"] = (2, 1)
    else:
        needed["strides"] = "of the convolutional capsule layers"
    return known, assumed, needed


def _layers(look: Look, beginning: str) -> int:
    """How many scopes begin so."""
    return len({name.rpartition(beginning)[2].split("/")[0] for name in look.shapes
                if name.startswith(beginning)})


INFERENCES = {"capsnet": capsnet, "em": matrix_capsules}


def names(kind: str) -> set[str]:
    """Every setting of a kind, by flat name."""
    spelling = SPELLINGS[kind]
    return set(spelling.flat(spelling.read({"model": kind}).to_arguments()))
