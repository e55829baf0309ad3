"""Planted bugs of `port/scae/pixel_footprint.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/pixel_footprint.py"
MUTANTS = (
    Mutant("kernel-footprint-short", FILE, "last = int(min(max(max(one, other), -1.0), size)) + 1",
           "last = int(min(max(max(one, other), -1.0), size))", "footprint a pixel short"),
    Mutant("kernel-left-gradient", FILE, "floor = np.floor(at)", "floor = np.ceil(at) - one",
           "left-hand gradient at integer coordinates"),
    Mutant("kernel-border", FILE, "inside = (x[i] > border)", "inside = (x[i] >= border)",
           "a gradient at the outermost coordinate"),
    Mutant("kernel-scatter-swap", FILE, "padded[at + right] += near * far_x[i]",
           "padded[at + right] += far * near_x[i]", "weights of two neighbours exchanged on the way back"),
)
