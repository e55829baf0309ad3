"""Planted bugs of the image model's other modes and of the residual encoder."""

from __future__ import annotations

from parity_tests.mutation import Mutant

_PARTS, _UPPER, _LAYERS, _IMAGES = ("port/pcae.py", "port/hierarchy.py", "port/layers.py", "port/scae.py")

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
    Mutant("ocae-parts-trained", _IMAGES, "self.part_encoder.requires_grad_(False)",
           "self.part_encoder.requires_grad_(True)", "the given parts are trained on"),
)
