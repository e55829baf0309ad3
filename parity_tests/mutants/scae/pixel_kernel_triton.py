"""Planted bugs of `port/scae/pixel_kernel_triton.py`.

They are caught by the same rows as the Numba kernel's, run by `harness/triton_side.py` in a process of its
own; the other mutants run inside the tests' process, so these are not in `collection.MUTANTS`.
"""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/pixel_kernel_triton.py"
MUTANTS = (
    Mutant("triton-footprint-short", FILE, "at = tl.where((x > -1.0) & (x < EXTENT), x, EXTENT)",
           "at = tl.where((x > -1.0) & (x < EXTENT - 1), x, EXTENT)", "footprint a pixel short"),
    Mutant("triton-translation-gradient", FILE, "tl.sum(tx, 0) * half_x", "tl.sum(tx, 0)",
           "gradient of the translation not in canvas units"),
    Mutant("triton-left-gradient", FILE, "floor = tl.floor(at)", "floor = tl.ceil(at) - 1.0",
           "left-hand gradient at integer coordinates"),
    Mutant("triton-border", FILE, "at = tl.where((x > -1.0)", "at = tl.where((x >= -1.0)",
           "a gradient at the outermost coordinate"),
    Mutant("triton-no-maximum", FILE, "new = tl.maximum(largest, logit)", "new = largest",
           "the background's logit stands for the largest"),
    Mutant("triton-not-rescaled", FILE, "mixing = mixing * kept + weight", "mixing = mixing + weight",
           "earlier parts keep the weight they had under another maximum"),
    Mutant("triton-no-density-outside", FILE, "black + (tl.exp(-0.5 * value[c] * value[c]),)",
           "black + (tl.exp(0.0 * value[c]),)", "parts beyond their footprint explain every pixel"),
    Mutant("triton-prior-gradient", FILE, "total = -prior", "total = 0.0 * prior",
           "no gradient through the mixing probabilities"),
    Mutant("triton-singular-absent", FILE, "        logit = tl.zeros((TILE_Y * TILE_X,), real)\n",
           "        logit = tl.where(x == x, 0.0, -1e8).to(real)\n",
           "a part with a singular pose leaves the mixture"),
    Mutant("triton-scatter-swap", FILE, "left[:, None] + 1, far_x[:, None], 0.0)",
           "left[:, None] + 1, near_x[:, None], 0.0)",
           "weights of two neighbours exchanged on the way back"),
    Mutant("triton-slopes-swap", FILE, "near_y * (t01 - t00) + far_y * (t11 - t10)",
           "far_y * (t01 - t00) + near_y * (t11 - t10)", "slope of the other row"),
    Mutant("triton-background-colour", FILE, "base = tl.where(is_part, 0.0, tl.load(background))",
           "base = tl.load(background) * 0.0", "the background's gradients are those of a black one"),
    Mutant("triton-presence-outside", FILE, "d_logit, d_means = _pull(zero + beyond,",
           "d_logit, d_means = _pull(zero - 1e8,", "no gradient of a presence beyond the footprint"),
    Mutant("triton-axes", FILE, "_axis(column, COLUMNS, WIDTH, real), _axis(row, ROWS, WIDTH, real)\n"
           "    uy", "_axis(column, COLUMNS, HEIGHT, real), _axis(row, ROWS, WIDTH, real)\n    uy",
           "the template's other side scales a coordinate"),
)
