"""Planted bugs of `port/capsnet/losses.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/capsnet/losses.py"
MUTANTS = (
    Mutant("margin-scale", FILE, "return 0.5 * torch.mean(terms)", "return torch.mean(terms)",
           "the official loss without its half"),
    Mutant("margins-swapped", FILE, "F.relu(upper - lengths)", "F.relu(lengths - upper)",
           "the present class is pushed below its margin"),
    Mutant("down-weight-everything", FILE, "return present + down_weight * absent",
           "return down_weight * (present + absent)", "the present class down-weighted too"),
    Mutant("reconstruction-mean", FILE, "torch.mean(torch.sum(square.flatten(1), 1))",
           "torch.mean(square)", "0.0005 on the mean of squares: 784 times too weak", "the walk-through"),
)
