"""Planted bugs of `port/core/warp.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/warp.py"
MUTANTS = (
    Mutant("no-inverse", FILE, "inverse_affine(pose) if inverse else pose",
           "pose", "the pose is used without inversion",
           "bdsaglam, phanideepgampa, Dinngger, cxiang26"),
    Mutant("align-corners-off", FILE,
           "axis = torch.arange(size, dtype=torch.float64, device=device) * step - 1.0",
           "axis = (torch.arange(size, dtype=torch.float64, device=device) * 2 + 1) / size - 1.0",
           "grid through pixel edges (align_corners=False)", "bdsaglam, phanideepgampa, mlberkeley"),
    Mutant("grid-float64", FILE, "return axis.float() * ((template_size - 1) / 2.0)",
           "return axis * ((template_size - 1) / 2.0)", "grid constants not rounded to float32"),
    Mutant("x-y-swapped", FILE, "enumerate((template_shape[1], template_shape[0]))",
           "enumerate((template_shape[0], template_shape[1]))", "height for width in the grid's scale"),
    Mutant("border-padding", FILE, "padded = F.pad(data, (1, 1, 1, 1)).flatten(2)",
           "padded = F.pad(data, (1, 1, 1, 1), mode='replicate').flatten(2)",
           "edge pixels repeated outside instead of zeros"),
    Mutant("inverse-translation", FILE, "inv_tx = -(inv_a * tx + inv_b * ty)", "inv_tx = -tx",
           "translation negated, not mapped by the inverse"),
    Mutant("corner-gradient", FILE, "inside = (x > -1.0) & (y > -1.0)",
           "inside = (x >= -1.0) & (y >= -1.0)",
           "a gradient at the outermost coordinate, as grid_sample has"),
    Mutant("neighbour-swap", FILE, "+ (near_x * far_y)[:, None] * neighbour(stride)",
           "+ (far_x * near_y)[:, None] * neighbour(stride)", "weights of two neighbours exchanged"),
)
