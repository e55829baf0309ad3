"""Planted bugs of `port/core/adam.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/adam.py"
MUTANTS = (
    Mutant("adam-epsilon", FILE, 'eps=group["epsilon"] / math.sqrt(1.0 - beta2 ** (steps + 1))',
           'eps=group["epsilon"]', "PyTorch's epsilon, inside the correction", "every PyTorch port"),
    Mutant("adam-no-correction", FILE,
           "lr * math.sqrt(1.0 - beta2 ** (step + 1)) / (1.0 - beta1 ** (step + 1))", "lr",
           "moments not corrected for their start"),
    Mutant("decay-staircase", FILE, "decay ** (step / decay_steps)", "decay ** (step // decay_steps)",
           "the rate falls in steps"),
    Mutant("decay-base-float64", FILE, "DECAY = float(np.float32(0.96))", "DECAY = 0.96",
           "decay base not rounded to float32"),
)
