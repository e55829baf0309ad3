"""Planted bugs of `port/em/kernel.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/em/kernel.py"
MUTANTS = (
    Mutant("em-kernel-transposed", FILE,
           "w0, w1, w2, w3 = weight[a], weight[4 + a], weight[8 + a], weight[12 + a]",
           "w0, w1, w2, w3 = weight[4 * a], weight[4 * a + 1], weight[4 * a + 2], weight[4 * a + 3]",
           "vote P·Wᵀ in the kernel"),
    Mutant("em-kernel-no-mass", FILE, "alive = divisor >= smallest", "alive = True",
           "the kernel divides by a mass of zero"),
    Mutant("em-kernel-vote-gradient", FILE, "w[c] * (2 * scaled * d + each)",
           "w[c] * (scaled * d + each)",
           "half of the variance's gradient to the votes"),
    Mutant("em-kernel-mass-gradient", FILE, "scaled * (d * d - spread)", "scaled * d * d",
           "the variance's divisor taken for a constant"),
    Mutant("em-kernel-momentum-gradient", FILE, "grad_previous[b, p, q, j, h] = momentum * to_mean",
           "grad_previous[b, p, q, j, h] = 0 * to_mean", "no gradient to the previous mean"),
    Mutant("em-kernel-root-gradient", FILE, "grad_root[b, p, q, j, h] = to_root",
           "grad_root[b, p, q, j, h] = 0 * to_root", "no gradient to the variance in the density"),
    Mutant("em-kernel-overlap", FILE, "out[row + u, column + v, i, h] += window[h, at + i]",
           "out[row + u, column + v, i, h] = window[h, at + i]",
           "a child's gradient from the last window alone"),
)
