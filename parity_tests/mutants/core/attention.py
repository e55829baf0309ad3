"""Planted bugs of `port/core/attention.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/attention.py"
MUTANTS = (
    Mutant("feed-forward-d-d", FILE, "[2 * n_features, n_features]", "[n_features, n_features]",
           "feed-forward of width d instead of 2d", "bdsaglam"),
    Mutant("feed-forward-relu", FILE, "h = h + y\n", "h = torch.relu(h) + y\n",
           "rectified feed-forward", "bdsaglam, Dinngger"),
    Mutant("mask-weak", FILE, "* 1e32", "* 1e2", "mask too weak to be one-hot"),
    Mutant("mask-log-presence", FILE,
           "routing = routing - (1.0 - presence.unsqueeze(-2)) * 1e32",
           "routing = routing + ops.safe_log(presence).unsqueeze(-2)", "log presence for the mask"),
    Mutant("mask-boolean", FILE, "(1.0 - presence.unsqueeze(-2)) * 1e32",
           "(presence.unsqueeze(-2) < 0.5) * 1e32", "presence thresholded to a boolean mask"),
    Mutant("scale-by-values", FILE, "n_dims = keys.shape[-1]", "n_dims = values.shape[-1]",
           "scaled by the width of the values", "phanideepgampa"),
    Mutant("presence-not-multiplied", FILE, "y = y * presence[..., None]", "y = y * 1.0",
           "absent tokens not zeroed"),
    Mutant("residual-missing", FILE, "y = y + x\n", "y = y + 0.0 * x\n", "no residual connection"),
    Mutant("heads-share-keys", FILE, "query(queries), key(keys), value(values), presence",
           "query(queries), query(keys), value(values), presence", "keys through the queries' layer"),
    Mutant("final-mask-missing", FILE, "return self.attention(points, z, z, presence), steps",
           "return self.attention(points, z, z), steps", "no mask in the pooling attention"),
    Mutant("seeds-xavier", FILE,
           "self.inducing_points = parameter(initializers.glorot_uniform(\n"
           "            rng, (1, n_outputs, n_output_dims)))",
           "self.inducing_points = parameter(initializers.glorot_uniform(\n"
           "            rng, (n_outputs, n_output_dims, 1)).reshape(1, n_outputs, n_output_dims))",
           "queries initialised with another fan", "bdsaglam"),
    Mutant("mlp-encoder-numbers-first", FILE, "self.mlp(x.flatten(1)).unflatten",
           "self.mlp(x.mT.flatten(1)).unflatten", "parts flattened number by number, not part by part"),
    Mutant("mlp-encoder-read-transposed", FILE, ".unflatten(-1, (self.n_outputs, -1)), []",
           ".unflatten(-1, (-1, self.n_outputs)).mT, []", "objects' features read across, not along"),
    Mutant("mlp-encoder-absent-zeroed", FILE, "self.mlp(x.flatten(1)).unflatten",
           "self.mlp((x if presence is None else x * presence[..., None]).flatten(1)).unflatten",
           "absent parts zeroed, as the set transformer does"),
    Mutant("mlp-encoder-layer-short", FILE, "[n_dims] * n_layers + [n_outputs * n_output_dims]",
           "[n_dims] * (n_layers - 1) + [n_outputs * n_output_dims]", "a hidden layer too few"),
    Mutant("mlp-encoder-relu-out", FILE, "return self.mlp(x.flatten(1)).unflatten",
           "return torch.relu(self.mlp(x.flatten(1))).unflatten", "the features rectified"),
)
