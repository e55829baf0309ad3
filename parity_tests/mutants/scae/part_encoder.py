"""Planted bugs of `port/scae/part_encoder.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/part_encoder.py"
MUTANTS = (
    Mutant("pool-transposed", FILE, "pooled.reshape(batch, n_caps, n_dims)", "pooled.mT",
           "pooled array transposed instead of reshaped", "bdsaglam, Dinngger, cxiang26"),
    Mutant("pool-wrong-axis", FILE, "torch.softmax(flat[:, n_dims * n_caps:], 2)",
           "torch.softmax(flat[:, n_dims * n_caps:], 1)", "attention over capsules, not positions"),
    Mutant("pool-mean", FILE, "torch.sum(features * weights[:, None], 3)", "torch.mean(features, 3)",
           "mean pooling instead of attention", "Dinngger"),
    Mutant("similarity", FILE, "ops.geometric_transform(pose_raw, self.similarity)",
           "ops.geometric_transform(pose_raw, True)", "similarity for affine", "mlberkeley"),
    Mutant("pose-relu", FILE, "ops.geometric_transform(pose_raw,",
           "ops.geometric_transform(torch.relu(pose_raw),",
           "ReLU on the pose parameters", "phanideepgampa"),
    Mutant("noise-off", FILE, "(noise.to(logit.dtype) - 0.5) * self.noise_scale",
           "(noise.to(logit.dtype) - 0.5) * 0.0", "no presence noise", "Dinngger"),
    Mutant("noise-doubled", FILE, "(noise.to(logit.dtype) - 0.5) * self.noise_scale",
           "(noise.to(logit.dtype) - 0.5) * 2.0 * self.noise_scale", "presence noise twice as wide"),
    Mutant("noise-not-centred", FILE, "noise.to(logit.dtype) - 0.5", "noise.to(logit.dtype)",
           "presence noise shifted up"),
    Mutant("spatial-bias-missing", FILE, "biased = embedding + self.spatial_bias",
           "biased = embedding + self.spatial_bias.mean((1, 2), keepdim=True)",
           "one embedding bias a channel, not one a position", "Dinngger, mlberkeley"),
    Mutant("flatten-channels-first", FILE, "embedding.permute(0, 2, 3, 1).flatten(1)",
           "embedding.flatten(1)", "linear head on a channels-first flattening"),
)
