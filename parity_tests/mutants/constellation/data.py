"""Planted bugs of `port/constellation/data.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/constellation/data.py"
_ORDER = '    order = np.stack([rng.permutation(n_points) for _ in range(size)])\n'
_NOISE = '    noise = rng.normal(0.0, gaussian_noise, (size, n_points, 2)) if gaussian_noise > 0 else None\n'
MUTANTS = (
    Mutant("translation-scaled", FILE, "draws.translation[:, slot] / scale[..., None]",
           "draws.translation[:, slot] * scale[..., None]", "translation times the scale"),
    Mutant("present-extremes", FILE, "low, high = corners.min(), corners.max()",
           "low, high = corners.min((0, 1)), corners.max((0, 1))", "x and y scaled apart"),
    Mutant("noise-before-order", FILE, _ORDER + _NOISE, _NOISE + _ORDER,
           "noise drawn before the orders"),
)
