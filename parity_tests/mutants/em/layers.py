"""Planted bugs of `port/em/layers.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/em/layers.py"
MUTANTS = (
    Mutant("em-vote-transposed", FILE, "uvijma->bpquvijra", "uvijam->bpquvijra",
           "vote P·Wᵀ in place of P·W"),
    Mutant("em-vote-side", FILE, '"bpquvirm,uvijma->bpquvijra"', '"bpquvima,uvijrm->bpquvijra"',
           "vote W·P in place of P·W"),
    Mutant("em-same-before", FILE, "return total // 2, total - total // 2",
           "return total - total // 2, total // 2", "SAME's odd row of zeros before"),
    Mutant("em-coordinates-first-row", FILE, '"column": (3, 7)', '"column": (3, 2)',
           "coordinates along the last entries of a row"),
    Mutant("em-coordinates-swapped", FILE, "np.stack([columns, rows], -1)",
           "np.stack([rows, columns], -1)", "row and column exchanged"),
    Mutant("em-centres-not-swapped", FILE, "channels[::-1] if len(layers) % 2 else channels",
           "channels", "the official swap of the position channels left out"),
    Mutant("em-primary-order", FILE, "torch.cat([self.pose_weight, self.activation_weight])",
           "torch.cat([self.activation_weight, self.pose_weight])",
           "joint kernel put together the other way round"),
    Mutant("em-primary-shift", FILE, "torch.sigmoid(both[..., POSE] - 1.0)",
           "torch.sigmoid(both[..., POSE])", "the official activation without its -1"),
    Mutant("em-class-weights", FILE, "weight = self.weight.expand(height, width, *self.weight.shape)",
           "weight = self.weight.expand(height, width, *self.weight.shape) * torch.arange(\n"
           "            1.0, width + 1.0)[:, None, None, None, None].to(self.weight.dtype)",
           "class matrices not shared over positions"),
)
