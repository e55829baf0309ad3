"""Planted bugs of `port/capsnet/layers.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/capsnet/layers.py"
MUTANTS = (
    Mutant("primary-grouped-8x32", FILE,
           "y.unflatten(1, (settings.primary_types, settings.primary_atoms))",
           "y.unflatten(1, (settings.primary_atoms, settings.primary_types)).transpose(1, 2)",
           "channel = atom·types + type", "the walk-through"),
    Mutant("capsules-are-runs-of-pixels", FILE, "grid.permute(0, 1, 3, 4, 2).flatten(1, 3)",
           "grid.reshape(grid.shape[0], -1, grid.shape[2])",
           "a capsule is eight neighbours of one channel", "XifengGuo"),
    Mutant("children-by-position", FILE, "grid.permute(0, 1, 3, 4, 2).flatten(1, 3)",
           "grid.permute(0, 3, 4, 1, 2).flatten(1, 3)", "children in order (row, column, type)"),
    Mutant("primary-coupling-without-leak", FILE, "settings.primary_types + settings.leaky",
           "settings.primary_types", "conv/32 where leaky routing gives conv/33"),
    Mutant("primary-coupling-always", FILE, "if settings.primary_coupling:", "if True:",
           "the official division in the paper's network"),
    Mutant("class-weights-of-size-one", FILE, "(0.01 * rng.standard_normal(shape))",
           "(1.0 * rng.standard_normal(shape))", "class weights start at deviation 1", "the walk-through"),
    Mutant("decoder-without-relu", FILE, "x = F.relu(layer(x))", "x = layer(x)",
           "no activation in the decoder", "the walk-through"),
    Mutant("decoder-without-sigmoid", FILE, "torch.sigmoid(self.linear[-1](x))", "self.linear[-1](x)",
           "no activation at the decoder's end", "the walk-through"),
)
