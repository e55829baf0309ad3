"""Planted bugs of `port/scae/model.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/model.py"
MUTANTS = (
    Mutant("probe-shared", FILE, "self.probes[i](features, label)", "self.probes[0](features, label)",
           "one probe for prior and posterior", "bdsaglam, Dinngger"),
    Mutant("input-gradient", FILE,
           "v.detach() for v in (pose, presence, token_templates))",
           "v for v in (pose, presence, token_templates))", "stop-gradient dropped at the tokens"),
    Mutant("target-gradient", FILE, "target_pose.detach(), target_presence.detach()",
           "target_pose, target_presence", "stop-gradient dropped at the target"),
    Mutant("feature-cut", FILE, "tokens.append(parts.feature)", "tokens.append(parts.feature.detach())",
           "special features cut from the object losses"),
    Mutant("token-presence", FILE, "1.0 - presence[..., None]", "presence[..., None]",
           "presence in the tokens, not its complement", "phanideepgampa"),
    Mutant("token-order", FILE, "token_templates.permute(0, 1, 3, 4, 2).flatten(2)",
           "token_templates.permute(0, 1, 4, 3, 2).flatten(2)", "templates flattened in another order"),
    Mutant("mass-not-divided", FILE, '("posterior", whole_mass / n_points)',
           '("posterior", whole_mass / 1.0)',
           "posterior mass not divided by the points"),
    Mutant("vote-presence-soft", FILE, 'votes.vote_presence if "Q04" in repairs else',
           "votes.vote_presence if True else", "soft vote presence in the result"),
    Mutant("mlp-encoder-absence-missing", FILE, "tokens = [pose, 1.0 - presence[..., None]]",
           'tokens = [pose, 1.0 - presence[..., None] * (self.config.autoencoder.object_encoder != "mlp")]',
           "the MLP alone does not see which parts are absent"),
    Mutant("ocae-parts-trained", FILE, "self.part_encoder.requires_grad_(False)",
           "self.part_encoder.requires_grad_(True)", "the given parts are trained on"),
)
