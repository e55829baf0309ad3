"""Planted bugs of the image model's other modes, of the residual encoder and of the MLP over all parts."""

from __future__ import annotations

from parity_tests.mutants.planting import Mutant

_PARTS, _UPPER, _LAYERS, _IMAGES = ("port/scae/pcae.py", "port/scae/hierarchy.py", "port/core/layers.py", "port/scae/model.py")
_ATTENTION = "port/core/attention.py"

MUTANTS = (
    Mutant("pcae-mse-summed", _PARTS, "torch.mean(torch.square(target - mean))",
           "torch.sum(torch.square(target - mean))", "the squared error of all pixels, not their mean"),
    Mutant("pcae-noise-forgotten", _PARTS, 'self.part_encoder(image, draws.get("part"), log)',
           "self.part_encoder(image, None, log)", "part presences without noise"),
    Mutant("upper-absence-fed", _UPPER, "torch.cat([pose, 1.0 - presence[..., None], params], -1)",
           "torch.cat([pose, presence[..., None], params], -1)", "presence fed in place of absence"),
    Mutant("upper-soft-parent", _UPPER, "likelihood.winner.reshape(", "likelihood.soft_winner.reshape(",
           "parents are mixtures of votes, not the winning one"),
    Mutant("upper-parent-presence", _UPPER, "likelihood.winner_pres[..., None], log)", "None, log)",
           "objects keep their own presence under a parent"),
    Mutant("upper-target-not-cut", _UPPER, "target = tuple(v.detach() for v in target)",
           "target = tuple(target)", "objects move towards what the third level expects"),
    Mutant("residual-no-skip", _LAYERS, "return image + self.conv[1](F.relu(hidden)), hidden",
           "return self.conv[1](F.relu(hidden)), hidden", "the block forgets its input"),
    Mutant("residual-no-relu", _LAYERS, "return image + self.conv[1](F.relu(hidden)), hidden",
           "return image + self.conv[1](hidden), hidden", "the block is linear"),
    Mutant("mlp-encoder-numbers-first", _ATTENTION, "self.mlp(x.flatten(1)).unflatten",
           "self.mlp(x.mT.flatten(1)).unflatten", "parts flattened number by number, not part by part"),
    Mutant("mlp-encoder-read-transposed", _ATTENTION, ".unflatten(-1, (self.n_outputs, -1)), []",
           ".unflatten(-1, (-1, self.n_outputs)).mT, []", "objects' features read across, not along"),
    Mutant("mlp-encoder-absent-zeroed", _ATTENTION, "self.mlp(x.flatten(1)).unflatten",
           "self.mlp((x if presence is None else x * presence[..., None]).flatten(1)).unflatten",
           "absent parts zeroed, as the set transformer does"),
    Mutant("mlp-encoder-layer-short", _ATTENTION, "[n_dims] * n_layers + [n_outputs * n_output_dims]",
           "[n_dims] * (n_layers - 1) + [n_outputs * n_output_dims]", "a hidden layer too few"),
    Mutant("mlp-encoder-relu-out", _ATTENTION, "return self.mlp(x.flatten(1)).unflatten",
           "return torch.relu(self.mlp(x.flatten(1))).unflatten", "the features rectified"),
    Mutant("mlp-hidden-linear", _LAYERS, "x = F.relu(layer(x))\n        return self.linear[-1](x)",
           "x = layer(x)\n        return self.linear[-1](x)", "hidden layers without an activation"),
    Mutant("mlp-encoder-absence-missing", _IMAGES, "tokens = [pose, 1.0 - presence[..., None]]",
           'tokens = [pose, 1.0 - presence[..., None] * (self.config.autoencoder.object_encoder != "mlp")]',
           "the MLP alone does not see which parts are absent"),
    Mutant("ocae-parts-trained", _IMAGES, "self.part_encoder.requires_grad_(False)",
           "self.part_encoder.requires_grad_(True)", "the given parts are trained on"),
)
