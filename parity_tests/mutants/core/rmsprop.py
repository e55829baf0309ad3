"""Planted bugs of `port/core/rmsprop.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/rmsprop.py"
MUTANTS = (
    Mutant("rms-epsilon-outside", FILE, "lr * grad / torch.sqrt(ms + epsilon)",
           "lr * grad / (torch.sqrt(ms) + epsilon)", "epsilon outside the root",
           "bdsaglam, phanideepgampa"),
    Mutant("rms-from-zeros", FILE, "FIRST_SQUARE = 1.0", "FIRST_SQUARE = 0.0",
           "mean square from zeros", "bdsaglam, phanideepgampa"),
    Mutant("rms-decay", FILE, "torch._foreach_mul_(ms, decay)", "torch._foreach_mul_(ms, 0.99)",
           "decay of 0.99", "bdsaglam"),
    Mutant("rms-lr-outside", FILE, "scaled = torch._foreach_mul(grads, lr)", "scaled = torch._foreach_mul(grads, 1.0)",
           "learning rate not in the momentum", "bdsaglam, phanideepgampa"),
    Mutant("rms-flat-after-a-gap", FILE, "end += 0 if parameter is None else parameter.numel()", "end += 0",
           "slots moved where an earlier parameter had no gradient"),
    Mutant("rms-flat-one-piece", FILE, "[self.ms[there]], [self.mom[there]]",
           "[self.ms[there]], [self.mom[there] * 1.0]",
           "momenta that are moved in a copy"),
    Mutant("epsilon-of-batch", FILE, "return 1e-2 / batch_size ** 2", "return 1e-2 / batch_size",
           "epsilon divided by the batch once"),
    Mutant("clip-without-root", FILE,
           "limit = norm_clip * math.sqrt(sum(grad.numel() for grad in given))",
           "limit = norm_clip", "norm clipping without sqrt(#parameters)"),
)
