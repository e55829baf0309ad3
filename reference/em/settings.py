"""Settings of matrix capsules and the presets `paper`, `official` and `ibm`.

The twin file in the other package is the same text: no framework is involved. Every place where the
authors' program, IBM's program and the paper differ is one setting here.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace

# What each named setting may be; the first value is the paper's.
CHOICES = {
    "schedule": ("geometric", "linear", "constant"),
    "competition": ("parents", "filled", "stride_1_per_type"),
    "initial": ("parents", "types"),
    "cost_scale": ("none", "children"),
    "betas": ("paper", "official"),
    "primary": ("separate", "joint"),
    "coordinates": ("column", "row"),
    "reduction": ("sum", "mean"),
    "padding": ("VALID", "SAME"),
}


def check_choices(settings: object) -> None:
    """Refuse a named setting that is none of `CHOICES`.

    Raises:
        ValueError: names the setting, its value and the allowed ones.
    """
    for name, allowed in CHOICES.items():
        value = getattr(settings, name, allowed[0])
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def check_numbers(settings: object, names: tuple[str, ...], least: float) -> None:
    """Refuse a number, or one of several, below `least` or not finite.

    Raises:
        ValueError: names the setting, its value and the least.
    """
    for name in names:
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not least <= number < math.inf:
                raise ValueError(f"{name} must be at least {least}, not {number}")


@dataclass(frozen=True)
class Routing:
    """How one capsule layer routes.

    Attributes:
        iterations: M steps T; there are T - 1 E steps.
        final_lambda: inverse temperature that the schedule approaches.
        schedule: `geometric` final·(1 - 0.95^(t+1)), `linear` final·(t+1)/T, `constant` final.
        competition: among which parents a child's assignments are shared: `parents`, all types at all
            positions whose window holds the child; `filled`, the same with IBM's filler in the place
            of the other positions; `stride_1_per_type`, the official convolutional layer: positions
            only, each parent type by itself, overlaps counted as if the stride were 1.
        initial: first assignment, 1/(spatial parents · types) or, `types`, 1/types.
        initial_epsilon: added to that divisor.
        mass_epsilon: added to the mass N where it divides.
        mass_epsilon_in_cost: and where it multiplies the cost.
        variance_floor: added to every variance.
        momentum: share of the previous mean in the new one; the first previous mean is 0.
        log_epsilon: ln(a + this) in the E step; 0 is ln a exactly, as the log-sigmoid of the logit.
        cost_scale: `children` multiplies the cost by 100·parent types / children of a window (IBM).
        betas: what the two trained numbers of a parent type mean, see `em.routing.paper_betas`; also
            the family of variable names and layouts in `reference`.
    """

    iterations: int = 3
    final_lambda: float = 0.01
    schedule: str = "geometric"
    competition: str = "parents"
    initial: str = "parents"
    initial_epsilon: float = 0.0
    mass_epsilon: float = 0.0
    mass_epsilon_in_cost: bool = False
    variance_floor: float = 1e-9
    momentum: float = 0.0
    log_epsilon: float = 0.0
    cost_scale: str = "none"
    betas: str = "paper"

    def __post_init__(self) -> None:
        check_choices(self)
        check_numbers(self, ("iterations",), 1)
        check_numbers(self, ("final_lambda", "initial_epsilon", "mass_epsilon", "log_epsilon",
                             "momentum"), 0)
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, not {self.momentum}: nothing of the votes would "
                             "reach the mean")
        if not self.variance_floor > 0:
            raise ValueError(f"variance_floor must be above 0, not {self.variance_floor}: the variance of "
                             "a parent with one child is the floor alone")


@dataclass(frozen=True)
class Network:
    """A whole network of matrix capsules.

    Attributes:
        image_channels: C of the images.
        channels: A, channels of the first convolution.
        types: capsule types: primary B, then one number per convolutional capsule layer.
        kernels: kernel size of each convolutional capsule layer.
        strides: stride of each.
        padding: of each convolutional capsule layer.
        classes: number of classes.
        conv_kernel: kernel size of the first convolution.
        conv_stride: its stride.
        conv_padding: its padding.
        normalize: batch-normalise the images, without scale and shift (IBM).
        primary: `separate` convolutions for poses and activations, or one `joint` convolution whose
            channels are read in another order than its two kernels were put together (official).
        coordinates: vote entries that get the position in the class layer: `column`, the right-hand
            column's first two, (column + ½)/W and (row + ½)/H; `row`, entries 0 and 1, the receptive
            field's centre carried through the layers (official).
        routing: of the convolutional capsule layers.
        class_routing: of the class layer.
        primary_stddev: initial truncated-normal spread of the primary poses' and activations' kernels.
        vote_stddev: initial truncated-normal spread of the convolutional vote matrices.
        class_stddev: of the class layer's.
        vote_identity: start the vote matrices at the identity plus that spread.
        beta_u: initial value of the cost's constant, of convolutional and class layer.
        beta_a: initial value of the activation threshold, of convolutional and class layer.
        reduction: spread loss: `sum` or `mean` over the classes; mean over the batch.
        decay: weight of Σ w²/2 over all kernels.
        lr: learning rate of Adam.
        lr_decay: its factor per `lr_decay_steps`, continuous, 0.96 in float32; 1 is constant.
        lr_decay_steps: steps per factor.
    """

    image_channels: int = 1
    channels: int = 64
    types: tuple[int, ...] = (8, 16, 16)
    kernels: tuple[int, ...] = (3, 3)
    strides: tuple[int, ...] = (2, 1)
    padding: str = "VALID"
    classes: int = 5
    conv_kernel: int = 5
    conv_stride: int = 2
    conv_padding: str = "VALID"
    normalize: bool = False
    primary: str = "separate"
    coordinates: str = "column"
    routing: Routing = Routing()
    class_routing: Routing = Routing()
    primary_stddev: tuple[float, float] = (0.1, 0.1)
    vote_stddev: float = 0.3
    class_stddev: float = 0.3
    vote_identity: bool = True
    beta_u: tuple[float, float] = (0.0, 0.0)
    beta_a: tuple[float, float] = (0.0, 0.0)
    reduction: str = "sum"
    decay: float = 2e-7
    lr: float = 3e-3
    lr_decay: float = 0.9599999785423279
    lr_decay_steps: int = 20_000

    def __post_init__(self) -> None:
        check_choices(self)
        check_numbers(self, ("image_channels", "channels", "types", "kernels", "strides", "classes",
                             "conv_kernel", "conv_stride"), 1)
        check_numbers(self, ("primary_stddev", "vote_stddev", "class_stddev", "decay"), 0)
        if self.conv_padding not in CHOICES["padding"]:
            raise ValueError(f"conv_padding must be one of {', '.join(CHOICES['padding'])}, not "
                             f"{self.conv_padding!r}")
        if not len(self.kernels) == len(self.strides) == len(self.types) - 1:
            raise ValueError(f"{len(self.types)} capsule types need {len(self.types) - 1} kernels and "
                             f"strides, not {len(self.kernels)} and {len(self.strides)}")
        padded = [name for name in ("conv_padding", "padding") if getattr(self, name) == "SAME"]
        if self.coordinates == "row" and padded:
            raise ValueError("coordinates 'row' averages positions over whole windows and has no meaning "
                             f"at a padded edge; use 'column' with {padded[0]} 'SAME'")


IBM_ROUTING = Routing(competition="filled", initial_epsilon=1e-9, mass_epsilon=1e-9, log_epsilon=1e-9,
                      cost_scale="children")
# The official program's λ and betas in the paper's terms: its logit is the paper's with λ doubled, a
# quarter of it in the class layer, where all parents compete.
OFFICIAL_ROUTING = Routing(final_lambda=0.02, competition="stride_1_per_type", initial="types",
                           mass_epsilon=1e-7, mass_epsilon_in_cost=True, variance_floor=5e-4,
                           momentum=0.1, betas="official")
OFFICIAL_CLASS_ROUTING = replace(OFFICIAL_ROUTING, final_lambda=0.005, competition="parents",
                                 mass_epsilon=1e-5)

PRESETS = {
    "paper": Network(),
    "official": Network(primary="joint", coordinates="row", routing=OFFICIAL_ROUTING,
                        class_routing=OFFICIAL_CLASS_ROUTING, primary_stddev=(0.5, 3.0),
                        vote_stddev=0.3, class_stddev=0.01, vote_identity=False,
                        beta_u=(0.5, 2.0), beta_a=(0.5, 1.0), reduction="mean"),
    "ibm": Network(conv_padding="SAME", normalize=True, routing=IBM_ROUTING, class_routing=IBM_ROUTING,
                   vote_stddev=1.0, class_stddev=1.0, vote_identity=False, beta_a=(-1000.0, -1000.0),
                   decay=0.0, lr_decay=1.0),
}


def preset(name: str, **changes: object) -> Network:
    """The settings of one program, with some of them changed.

    Args:
        name: `paper`, `official` or `ibm`.
        changes: settings of `Network` by name.

    Raises:
        ValueError: no such preset, no such setting, or a value that is not allowed.

    Source: Hinton, Sabour, Frosst 2018; google-research `capsule_em`; IBM
    `matrix-capsules-with-em-routing`.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    known = [field.name for field in dataclasses.fields(Network)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(f"no setting {unknown[0]!r}; there are {', '.join(known)}")
    return replace(PRESETS[name], **changes)
