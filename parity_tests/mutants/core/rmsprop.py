"""Planted bugs of `port/core/rmsprop.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/rmsprop.py"
MUTANTS = (
    Mutant("rms-epsilon-outside", FILE, "lr * grad / torch.sqrt(ms + epsilon)",
           "lr * grad / (torch.sqrt(ms) + epsilon)", "epsilon outside the root",
           "bdsaglam, phanideepgampa"),
    Mutant("rms-from-zeros", FILE, '"ms": torch.ones_like(parameter)',
           '"ms": torch.zeros_like(parameter)',
           "mean square from zeros", "bdsaglam, phanideepgampa"),
    Mutant("rms-decay", FILE, "torch._foreach_mul_(ms, decay)", "torch._foreach_mul_(ms, 0.99)",
           "decay of 0.99", "bdsaglam"),
    Mutant("rms-lr-outside", FILE,
           "    scaled = torch._foreach_mul(grads, lr)\n    torch._foreach_div_(scaled, root)\n"
           "    torch._foreach_add_(mom, scaled)\n    torch._foreach_sub_(parameters, mom)",
           "    torch._foreach_add_(mom, torch._foreach_div(grads, root))\n"
           "    torch._foreach_sub_(parameters, torch._foreach_mul(mom, lr))",
           "learning rate outside the momentum", "bdsaglam, phanideepgampa"),
    Mutant("epsilon-of-batch", FILE, "return 1e-2 / batch_size ** 2", "return 1e-2 / batch_size",
           "epsilon divided by the batch once"),
    Mutant("clip-without-root", FILE,
           "limit = norm_clip * math.sqrt(sum(grad.numel() for grad in given))",
           "limit = norm_clip", "norm clipping without sqrt(#parameters)"),
)
