"""Planted bugs of `port/core/losses.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/losses.py"
MUTANTS = (
    Mutant("l2-mean", FILE, "return torch.sum(torch.square(x)) / 2.0",
           "return torch.mean(torch.square(x))", "mean for the l2 loss", "Dinngger"),
    Mutant("entropy-of-softmax", FILE, "within = torch.mean(_entropy(ops.normalize(p, 1)))",
           "within = torch.mean(_entropy(torch.softmax(p, 1)))", "entropy of the softmax of the mass",
           "phanideepgampa"),
    Mutant("between-not-negated", FILE, "return within, -between", "return within, between",
           "sign of the between loss"),
    Mutant("constant-4.3", FILE, "within_example_constant or n_caps / num_classes",
           "within_example_constant or 4.3", "the constant of the script, which the original drops"),
    Mutant("weights-swapped", FILE, 'getattr(weights, f"{kind}_between_example_sparsity_weight")',
           'getattr(weights, f"{kind}_within_example_sparsity_weight")', "one weight for both losses"),
)
