"""Planted bugs in the kernels for a GPU, of the kinds that the Numba kernel's mutants have.

They are caught by the same rows, run by `triton_side`; the other mutants run inside the tests' process.
"""

from __future__ import annotations

from parity_tests.mutants.planting import Mutant

_KERNEL = "port/scae/pixel_kernel_triton.py"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("triton-footprint-short", _KERNEL, "at = tl.where((x > -1.0) & (x < EXTENT), x, EXTENT)",
           "at = tl.where((x > -1.0) & (x < EXTENT - 1), x, EXTENT)", "footprint a pixel short"),
    Mutant("triton-translation-gradient", _KERNEL, "tl.sum(tx, 0) * half_x", "tl.sum(tx, 0)",
           "gradient of the translation not in canvas units"),
    Mutant("triton-left-gradient", _KERNEL, "floor = tl.floor(at)", "floor = tl.ceil(at) - 1.0",
           "left-hand gradient at integer coordinates"),
    Mutant("triton-border", _KERNEL, "at = tl.where((x > -1.0)", "at = tl.where((x >= -1.0)",
           "a gradient at the outermost coordinate"),
    Mutant("triton-no-maximum", _KERNEL, "new = tl.maximum(largest, logit)", "new = largest",
           "the background's logit stands for the largest"),
    Mutant("triton-not-rescaled", _KERNEL, "mixing = mixing * kept + weight", "mixing = mixing + weight",
           "earlier parts keep the weight they had under another maximum"),
    Mutant("triton-no-density-outside", _KERNEL, "black + (tl.exp(-0.5 * value[c] * value[c]),)",
           "black + (tl.exp(0.0 * value[c]),)", "parts beyond their footprint explain every pixel"),
    Mutant("triton-prior-gradient", _KERNEL, "total = -prior", "total = 0.0 * prior",
           "no gradient through the mixing probabilities"),
    Mutant("triton-singular-absent", _KERNEL, "        logit = tl.zeros((TILE_Y * TILE_X,), real)\n",
           "        logit = tl.where(x == x, 0.0, -1e8).to(real)\n",
           "a part with a singular pose leaves the mixture"),
    Mutant("triton-scatter-swap", _KERNEL, "left[:, None] + 1, far_x[:, None], 0.0)",
           "left[:, None] + 1, near_x[:, None], 0.0)",
           "weights of two neighbours exchanged on the way back"),
    Mutant("triton-slopes-swap", _KERNEL, "near_y * (t01 - t00) + far_y * (t11 - t10)",
           "far_y * (t01 - t00) + near_y * (t11 - t10)", "slope of the other row"),
    Mutant("triton-background-colour", _KERNEL, "base = tl.where(is_part, 0.0, tl.load(background))",
           "base = tl.load(background) * 0.0", "the background's gradients are those of a black one"),
    Mutant("triton-presence-outside", _KERNEL, "d_logit, d_means = _pull(zero + beyond,",
           "d_logit, d_means = _pull(zero - 1e8,", "no gradient of a presence beyond the footprint"),
    Mutant("triton-axes", _KERNEL, "_axis(column, COLUMNS, WIDTH, real), _axis(row, ROWS, WIDTH, real)\n"
           "    uy", "_axis(column, COLUMNS, HEIGHT, real), _axis(row, ROWS, WIDTH, real)\n    uy",
           "the template's other side scales a coordinate"),
)
