"""Every bound of the parity suite, in one place, each with its derivation.

|              | values                                | gradients                              |
|--------------|---------------------------------------|----------------------------------------|
| float64      | 1e-12 max|v|                          | 1e-11 max|g| + 1e-14 G                 |
| float32      | 4 E + 8 ulp(max|v|) sqrt(terms)       | the same + 45 ulp(G)                   |
| optimizer    | `STEP_BOUNDS`, float64 port against float32 recordings                         |
| routing      | `routing`: largest difference over largest value, per recorded array           |

Maxima run over the whole tap. G is the largest entry of any gradient or cotangent that belongs to
the comparison (whole models: of any variable gradient). A bound is never fitted to a failure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# float64, values. Both sides run the same operations in the same order; what differs is the
# libraries' transcendental functions (1 ulp) and the order inside sums. 1e-12 is 4,500 ulp: room
# for the deepest chain of the model; two independent trials met 4e-14 on every recording.
FORWARD64 = 1e-12
# float64, gradients. Longer chains and sums over pixels and batch: ten times the forward bound.
GRADIENT64 = 1e-11
# Gradients that vanish by cancellation (key biases: softmax does not see a shift; presence before
# a layer norm) keep the rounding of terms of size G, whatever their own size: 45 ulp of G.
GRADIENT64_FLOOR = 1e-14
# Where a problem is so ill-conditioned that one float64 ulp in the inputs moves the truth by more than
# that (the inverse of a nearly singular soft vote: a condition of 1e4 and more), no two right programs
# can agree better: four times that movement is allowed on top (4 as for float32, below). It is
# measured only where the plain bound does not hold.
CONDITION_FACTOR = 4.0
# A movement beyond a million ulp of the tap is no conditioning but a jump (another cell of the sampler,
# another winner), and a jump is a difference to be seen, not to be allowed for.
CONDITION_CAP = 1e6
ULP64 = 2.0**-52

# float32, values. ref64 is the truth, E the larger of what the reference itself loses in float32
# and of what one ulp of change in the inputs does to the truth (no algorithm can be asked for more
# than the exact result of inputs moved by an ulp: backward stability). A right port orders its sums
# differently, so its error is another draw of the same size: 4 E covers the spread of a maximum.
FLOAT32_FACTOR = 4.0
# Taps so small that E happens to be 0 (a scalar that rounds luckily): 8 ulp at the tap's scale,
# times the root of the number of terms where a tap is a long sum (errors of a sum walk randomly).
FLOAT32_ULPS = 8.0
# The gradient floor of float64 in ulp (1e-14 / 2^-52 = 45), carried over to float32.
GRADIENT32_FLOOR_ULPS = 45.0
ULP32 = 2.0**-23


# A tap that is a sum of terms larger than itself keeps the rounding of the terms. Entropies and
# divergences of a distribution q: each term q·log(n q) has the rounding of a logarithm near 1, which
# is an ulp of 1 and not of the logarithm, times q, and Σ q = 1: their scale is 1 however small the
# sum.
DISTRIBUTION_MAGNITUDE = 1.0


def scale(*arrays: np.ndarray | None) -> float:
    """Largest finite absolute value of all arrays; 0 for none."""
    largest = 0.0
    for array in arrays:
        if array is None or np.size(array) == 0 or not np.issubdtype(np.asarray(array).dtype, np.floating):
            continue
        magnitude = np.abs(np.asarray(array, np.float64))
        finite = magnitude[np.isfinite(magnitude)]
        largest = max(largest, float(finite.max(initial=0.0)))
    return largest


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest |actual - expected| where both are finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.asarray(actual, np.float64) - np.asarray(expected, np.float64))
    finite = np.isfinite(actual) & np.isfinite(expected)
    return float(difference[finite].max(initial=0.0))


def forward64(expected: np.ndarray, magnitude: float = 0.0) -> float:
    """Bound on a float64 value; `magnitude` is the scale of terms larger than their sum."""
    return FORWARD64 * max(scale(expected), magnitude)


def conditioned64(moved: np.ndarray, expected: np.ndarray) -> float:
    """What the problem's own condition allows on top of a float64 bound; 0 for a jump.

    Args:
        moved: the truth for inputs one float64 ulp away.
        expected: the truth.
    """
    movement = error(moved, expected)
    return CONDITION_FACTOR * movement if movement <= CONDITION_CAP * ULP64 * scale(expected) else 0.0


def gradient64(expected: np.ndarray, largest: float) -> float:
    """Bound on a float64 gradient; `largest` is G."""
    return GRADIENT64 * scale(expected) + GRADIENT64_FLOOR * largest


def forward32(truth: np.ndarray, reference32: np.ndarray, moved: float = 0.0, terms: float = 1.0,
              magnitude: float = 0.0) -> float:
    """Bound on a float32 value.

    Args:
        truth: the value in float64 for the same float32 inputs.
        reference32: what the reference gets in float32.
        moved: largest effect on the truth of one ulp in the inputs.
        terms: number of terms of a long sum.
        magnitude: scale of the terms where they are larger than their sum.
    """
    own = max(error(reference32, truth), moved)
    return FLOAT32_FACTOR * own + FLOAT32_ULPS * ULP32 * max(scale(truth), magnitude) * terms**0.5


def gradient32(truth: np.ndarray, reference32: np.ndarray, largest: float, moved: float = 0.0,
               terms: float = 1.0) -> float:
    """Bound on a float32 gradient; `largest` is G, the rest as for values."""
    floor = GRADIENT32_FLOOR_ULPS * ULP32 * largest
    return forward32(truth, reference32, moved, terms) + floor


def sigmoid_tail32(log_presence: np.ndarray) -> np.ndarray:
    """What the original's float32 sigmoid may take from a log-presence, entry by entry.

    It is right to an ulp of 1 and not of itself (seen: relative errors of .05, 1.5, 7.5, 47 % at logits
    -10, -12, -14, -16): δ log p = ulp / p. Below -17.5 it is 0, whose safe_log is -1e8.
    """
    p = np.exp(np.maximum(np.asarray(log_presence, np.float64), -100.0))
    return np.where(p < ULP32, np.inf, ULP32 / p)


def recorded32(bound: float) -> float:
    """Bound of one float32 value to another: each may be `bound` away from the float64 truth."""
    return 2.0 * bound


@dataclass(frozen=True)
class StepBounds:
    """Bounds on optimizer steps of a float64 port against a float32 recording.

    The recording is float32, so what remains is its rounding, carried through RMSProp (whose first
    steps are about lr·g/sqrt(ms), insensitive to g's scale). Facts, section 15: seen 1e-7 to 7e-7
    in the losses, 1e-7 to 3e-7 in the variables; one sample that crosses a cell edge of the
    bilinear sampler makes trajectories part, so only the first steps decide.
    """

    loss: tuple[float, ...]      # relative, per step; the last holds for all later steps
    scalar: tuple[float, ...]    # times max(1, |v|)
    variable_max: float          # after 5 steps, absolute
    variable_rms: float


_LATER = 1e-1
STEP_BOUNDS = {
    "steady": StepBounds((2e-6,) * 5 + (_LATER,), (4e-6,) * 5 + (_LATER,), 1e-6, 1e-6),
    # lr is 10 times larger: the rounding carried through each step is, too (tiny_alpha). Or rounding is
    # amplified: votes for points have scales of 0.1 and less, and a density moves 1/scale² as far as its
    # vote (constellation; the bound is that of the facts, section 15).
    "fast": StepBounds((2e-6,) * 5 + (_LATER,), (3e-5,) * 5 + (_LATER,), 1e-6, 1e-6),
    # A cell edge of the sampler is crossed within the first steps (rgb_tiny, at step 3).
    "unsteady": StepBounds((2e-6,) * 3 + (1e-4,) * 2 + (_LATER,), (1e-2,) * 5 + (_LATER,), 3e-3, 1e-5),
}
FAST_LR = 1e-3
# The recording's own answer to weights moved by 1e-7, which is what float32 rounding does: steady
# folders stay below 3e-7 over five steps, rgb_tiny jumps to 1.3e-6 where it crosses an edge.
UNSTEADY_PERTURBATION = 1e-6
AMPLIFIED_PERTURBATION = 3e-7  # no jump, but above every steady folder (constellation: 4.9e-7)
# Variables after 20 steps: (largest, root mean square), absolute; trajectories have parted by then.
AFTER20 = (3e-2, 2e-4)
# A float32 port from the same checkpoint: loss relative, variables absolute.
STEP_FLOAT32 = {"loss": 1e-4, "variable": 1e-3}


def step_class(manifest: dict) -> str:
    """`steady`, `fast` or `unsteady`, from what a recording's manifest says; no folder is named."""
    moved = manifest.get("perturbation_1e7", {}).get("rel_loss_dev_per_step", [])[:5]
    if max(moved, default=0.0) > UNSTEADY_PERTURBATION:
        return "unsteady"
    fast = manifest.get("lr", 0.0) >= FAST_LR or max(moved, default=0.0) > AMPLIFIED_PERTURBATION
    return "fast" if fast else "steady"


def step_bounds(manifest: dict) -> StepBounds:
    """Bounds of a recording's optimizer steps."""
    return STEP_BOUNDS[step_class(manifest)]


def at_step(bounds: tuple[float, ...], step: int) -> float:
    """The bound for one step."""
    return bounds[min(step, len(bounds) - 1)]


def tap_terms(name: str, taps: dict[str, np.ndarray]) -> float:
    """Number of terms of the long sums among the taps (everything else: 1).

    The reconstruction likelihood and the squared error sum over all pixels and channels; the total
    inherits the first; the object likelihood sums over parts, their six numbers and the capsules. Of
    a constellation both sum over points and their two coordinates.
    """
    points = taps.get("input/corners")
    if points is not None:
        return float(np.prod(points.shape[1:])) if name in ("res/log_prob", "loss/total") else 1.0
    image, pose = taps.get("input/image"), taps.get("part_enc/pose")
    if name in ("res/rec_ll", "res/mse", "loss/total", "per_caps_rec/mean_per_image"):
        return float(np.prod(image.shape[1:])) if image is not None else 1.0
    if name == "res/log_prob":
        return float(np.prod(pose.shape[1:])) if pose is not None else 1.0
    return 1.0


def tap_magnitude(name: str) -> float:
    """Scale of the terms of taps that cancel: the sparsity losses are those of distributions."""
    return DISTRIBUTION_MAGNITUDE if name.endswith("_sparsity_loss") else 0.0


def step64(lr: float, largest: float) -> float:
    """What one more optimizer step in float64 may add to the difference of a variable.

    The gradients differ by at most their own bound; ms starts at ones and keeps at least 0.7 of them
    over the few steps run here, so a step moves by lr·g/sqrt(.7); momentum .9 repeats it at most
    10 times. Two for the second order (the next gradient is taken at the moved variables).
    """
    return 2.0 * 10.0 * lr * (GRADIENT64 + GRADIENT64_FLOOR) * largest / 0.7**0.5


# Recordings of the routing ancestors (CapsNet, matrix capsules), largest difference over largest
# value per array, values, gradients and variables after five Adam steps alike. Entry by entry would
# be unfair: lengths that sit on a hinge of the margin loss at float32(0.1) or float32(0.9) have
# gradients of rounding. The programs ran in float64 with float32 values for inputs; an independent
# port met every array at 3e-12, the bound leaves 30 times that.
ROUTING64 = 1e-10
# Every child of a parent casts the same vote, so V - mean is exactly zero in truth and the rounding of
# the mean in any program; the gradient divides it by the variance floor 1e-9: ulp·|V| / 1e-9, with
# |V| about 1, is 2.4e-7 at most. A mean taken exactly (μ = V₀ + Σ w(V - V₀)/N) differs from the recording
# by 2.6e-9 at t3; at t2 the sum of products rounds on a CPU as the recording does. A GPU adds in another
# order: there t2 is bounded by the same ulp over the same floor (an H200: 5.3e-10 of the largest value).
ROUTING64_EXCEPTIONS = {("paper_identical_votes_s308_f64", "grad/t3/votes"): 1e-6}
ROUTING64_OTHER_ORDER = {("paper_identical_votes_s308_f64", "grad/t2/votes"): 1e-6}
# float32 runs against float64 runs of the same program differ by 1e-7 to 2e-6 (CapsNet, the whole
# full-size network included), 1e-7 to 1e-5 (EM layers), 6e-5 and 5e-4 (the tiny official and IBM EM
# networks: three routings on each other, variances near their floor); twice that, as our float32 has
# an error of its own.
ROUTING32 = {"capsnet": 5e-6, "em": 2e-5}
ROUTING32_NETWORK = {"capsnet": 5e-6, "em": 1e-3}


def routing(family: str, record: str, network: bool, dtype: str, tap: str, device: str = "cpu") -> float:
    """Relative bound of one recorded array of a routing ancestor.

    Args:
        family: `capsnet` or `em`.
        record: name of the record.
        network: whether it is a whole network.
        dtype: that the program ran in.
        tap: the array's full key.
        device: that this side runs on; recordings were made on a CPU.
    """
    if dtype == "float32":
        return (ROUTING32_NETWORK if network else ROUTING32)[family]
    exceptions = ROUTING64_EXCEPTIONS if device == "cpu" else ROUTING64_EXCEPTIONS | ROUTING64_OTHER_ORDER
    return exceptions.get((record, tap), ROUTING64)
