"""Planted bugs of `port/scae/part_decoder.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/part_decoder.py"
MUTANTS = (
    Mutant("colour-offset-missing", FILE, "color = color + 0.99", "color = color + 0.0",
           "no 0.99 before relu1"),
    Mutant("colour-offset-always", FILE, 'if color_nonlin == "relu1":', "if True:",
           "0.99 before the sigmoid too"),
    Mutant("alpha-sigmoid", FILE, "alpha = self.templates_alpha.expand(batch, -1, -1, -1, -1)",
           "alpha = torch.sigmoid(self.templates_alpha).expand(batch, -1, -1, -1, -1)",
           "alpha through the template's sigmoid", "mlberkeley"),
    Mutant("background-raw", FILE, "ops.softplus(self.bg_mixing_logit)", "self.bg_mixing_logit",
           "background logit without softplus", "mlberkeley"),
    Mutant("background-zero", FILE, "torch.sigmoid(self.bg_value).expand",
           "(0.0 * self.bg_value).expand", "background always black", "cxiang26"),
    Mutant("temperature-offset", FILE, "ops.softplus(self.temperature_logit + 0.5) + 1e-4",
           "ops.softplus(self.temperature_logit) + 1e-4", "no 0.5 in the temperature"),
    Mutant("logits-of-log", FILE, "logits = means / temperature",
           "logits = torch.log(means.clamp(min=1e-6) / temperature)", "mixing logits are log(T/τ)",
           "cxiang26"),
    Mutant("presence-not-log", FILE, "log_presence = ops.safe_log(presence)",
           "log_presence = presence", "presence added, not its logarithm"),
)
