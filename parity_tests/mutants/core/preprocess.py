"""Planted bugs of `port/core/preprocess.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/preprocess.py"
MUTANTS = (
    Mutant("shift-floor", FILE, "torch.div(padding - shift + 1, 2,", "torch.div(padding - shift, 2,",
           "offset rounded down"),
    Mutant("sobel-replicate", FILE, 'mode="reflect"', 'mode="replicate"',
           "border pixel repeated in the Sobel target"),
    Mutant("sobel-median", FILE, "n_pixels // 2 - 1 if n_pixels % 4 == 0",
           "n_pixels // 2 - 1 if True",
           "always the lower median"),
)
