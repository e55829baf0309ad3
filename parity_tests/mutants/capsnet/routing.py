"""Planted bugs of `port/capsnet/routing.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/capsnet/routing.py"
MUTANTS = (
    Mutant("squash-bare-root", FILE,
           "torch.where(above, torch.sqrt(torch.where(above, square, 1.0)), 0.0)", "torch.sqrt(square)",
           "a bare root: no number as gradient at the zero vector", "official"),
    Mutant("squash-epsilon-in-root", FILE,
           "torch.where(above, torch.sqrt(torch.where(above, square, 1.0)), 0.0)",
           "torch.sqrt(square + 1e-7)", "epsilon 1e-7 under the root: lengths of 3e-3 are off by 0.5 %",
           "XifengGuo's Keras"),
    Mutant("squash-not-a-direction", FILE, "factor = norm / (1.0 + torch.square(norm))",
           "factor = torch.square(norm) / (1.0 + torch.square(norm))", "not divided by the length"),
    Mutant("squash-epsilon-ignored", FILE,
           "factor if epsilon == 0.0 else factor * norm / (norm + epsilon)",
           "factor", "the epsilon of the divisor dropped"),
    Mutant("votes-atom-major", FILE,
           "votes.reshape(*votes.shape[:2], n_parents, votes.shape[2] // n_parents)",
           "votes.reshape(*votes.shape[:2], votes.shape[2] // n_parents, n_parents).mT",
           "the weights' last axis read atom-major"),
    Mutant("softmax-over-children", FILE, "return torch.softmax(logits, 2)",
           "return torch.softmax(logits, 1)", "softmax over the route nodes", "the walk-through"),
    Mutant("leak-kept", FILE, "[:, :, 1:]", "[:, :, :-1]", "the leak's share goes to a parent"),
    Mutant("leak-ignored", FILE, "if not leaky:", "if True:", "the leak takes no part"),
    Mutant("logits-of-the-batch", FILE, "logits = logits + torch.sum(votes * capsules[:, None], 3)",
           "logits = logits + torch.sum(votes * capsules[:, None], 3).mean(0, keepdim=True)",
           "logits shared by the batch, not per example"),
    Mutant("logits-replaced", FILE, "logits = logits + torch.sum(votes * capsules[:, None], 3)",
           "logits = torch.sum(votes * capsules[:, None], 3)", "agreement replaces the logits"),
    Mutant("one-iteration-more", FILE, "range(iterations - 1)", "range(iterations)",
           "the update that nothing should use is used"),
    Mutant("gradient-cut", FILE, 'if gradient == "last":', 'if gradient != "last":',
           "gradient stopped where all iterations are asked for", "XifengGuo"),
    Mutant("bias-in-the-end-only", FILE,
           "capsules = squash(weighted if bias is None else weighted + bias, 2, epsilon)",
           "capsules = squash(weighted, 2, epsilon)", "the bias left out of the iterations"),
)
