"""Planted bugs of `port/scae/pixel_backward.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/pixel_backward.py"
MUTANTS = (
    Mutant("kernel-translation-gradient", FILE, "b_x, t_x * halves[0]", "b_x, t_x",
           "gradient of the translation not in canvas units"),
    Mutant("kernel-prior-gradient", FILE, "plain[p] -= prior[p]", "plain[p] -= 0.0",
           "no gradient through the mixing probabilities outside the footprint"),
    Mutant("kernel-alpha-slopes", FILE, "moved_y[i] += d_logit[i] * alpha_y[i]", "moved_y[i] += d_logit[i] * by_y[i]",
           "the pose's gradient through alpha takes the slopes of a colour"),
)
