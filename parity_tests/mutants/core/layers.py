"""Planted bugs of `port/core/layers.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/layers.py"
MUTANTS = (
    Mutant("mlp-relu-out", FILE, "return self.linear[-1](x)", "return F.relu(self.linear[-1](x))",
           "the last layer of an MLP activated", "bdsaglam, mlberkeley"),
    Mutant("batch-mlp-relu-out", FILE, "return self.batch_linear[-1](x)",
           "return F.relu(self.batch_linear[-1](x))", "the capsules' last layer activated",
           "bdsaglam, cxiang26"),
    Mutant("hidden-bias-missing", FILE, "use_bias or i < len(n_hiddens) - 1, rng)", "use_bias, rng)",
           "no bias in the second capsule MLP's hidden layer", "bdsaglam, mlberkeley"),
    Mutant("layer-norm-eps", FILE, "self.bias, 1e-5)", "self.bias, 1e-6)",
           "another epsilon in the layer norm"),
    Mutant("conv-not-activated", FILE, "active = self.activate_final or i < len(self.conv) - 1",
           "active = i < len(self.conv) - 1",
           "no ReLU after the last convolution"),
    Mutant("linear-std", FILE, "rng, (in_features, out_features), in_features ** -0.5).T)",
           "rng, (in_features, out_features), (3 * in_features) ** -0.5).T)",
           "initial weights of another deviation", "bdsaglam"),
    Mutant("residual-no-skip", FILE, "return image + self.conv[1](F.relu(hidden)), hidden",
           "return self.conv[1](F.relu(hidden)), hidden", "the block forgets its input"),
    Mutant("residual-no-relu", FILE, "return image + self.conv[1](F.relu(hidden)), hidden",
           "return image + self.conv[1](hidden), hidden", "the block is linear"),
    Mutant("mlp-hidden-linear", FILE, "x = F.relu(layer(x))\n        return self.linear[-1](x)",
           "x = layer(x)\n        return self.linear[-1](x)", "hidden layers without an activation"),
)
