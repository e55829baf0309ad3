"""Planted bugs of `port/scae/pixel_kernel.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/pixel_kernel.py"
MUTANTS = (
    Mutant("kernel-footprint-short", FILE, "last = int(min(max(max(one, other), -3.0), size)) + 2",
           "last = int(min(max(max(one, other), -3.0), size)) - 1", "footprint a pixel short"),
    Mutant("kernel-translation-gradient", FILE, "b_x, t_x * halves[0]", "b_x, t_x",
           "gradient of the translation not in canvas units"),
    Mutant("kernel-left-gradient", FILE, "floor = np.floor(at)", "floor = np.ceil(at) - one",
           "left-hand gradient at integer coordinates"),
    Mutant("kernel-border", FILE, "inside = (x[i] > border)", "inside = (x[i] >= border)",
           "a gradient at the outermost coordinate"),
    Mutant("kernel-one-shift", FILE, "top - float(background_logit) <= SPREAD", "True",
           "one maximum for logits hundreds apart"),
    Mutant("kernel-no-density-outside", FILE, "joint[p] += beyond[p] * density[p]",
           "joint[p] += beyond[p]", "parts beyond their footprint explain every pixel"),
    Mutant("kernel-prior-gradient", FILE, "plain[p] -= prior[p]", "plain[p] -= 0.0",
           "no gradient through the mixing probabilities outside the footprint"),
    Mutant("kernel-singular-absent", FILE, "return UNDRAWN", "return ABSENT",
           "a part with a singular pose leaves the mixture"),
    Mutant("kernel-scatter-swap", FILE, "padded[at + right] += near * far_x[i]",
           "padded[at + right] += far * near_x[i]", "weights of two neighbours exchanged on the way back"),
)
