"""Planted bugs of `port/core/warp_hat.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/warp_hat.py"
MUTANTS = (
    Mutant("hat-left-gradient", FILE, "floor = torch.floor(x.detach())",
           "floor = torch.ceil(x.detach()) - 1.0", "left-hand gradient at integer coordinates"),
    Mutant("hat-transposed", FILE, "data.permute(0, 3, 1, 2)", "data.permute(0, 2, 1, 3)",
           "rows and columns of a template exchanged"),
)
