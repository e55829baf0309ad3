"""Planted bugs of `port/capsnet/kernel.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/capsnet/kernel.py"
MUTANTS = (
    Mutant("kernel-last-v-only", FILE, "found.append(v if not found else found[-1] + v)",
           "found.append(v)", "logits of the last v, not of all"),
    Mutant("kernel-leak", FILE, "torch.cat([torch.zeros_like(logits[:1]), logits]), 0)[1:]",
           "torch.cat([torch.zeros_like(logits[:1]), logits]), 0)[:-1]",
           "the leak's share goes to a parent"),
    Mutant("kernel-first-without-leak", FILE, "uniform = 1.0 / (n_parents + leaky)",
           "uniform = 1.0 / n_parents", "no leak in the first iteration"),
    Mutant("kernel-softmax-gradient", FILE, "dlogits = c * (dc - torch.sum(c * dc, 0))",
           "dlogits = c * dc", "softmax differentiated as if parents did not compete"),
    Mutant("kernel-first-iteration-gradient", FILE, "dv = passed if iteration == last else dv + passed",
           "dv = passed", "v of an early iteration is part of one later sum only"),
    Mutant("kernel-gradient-never-cut", FILE, 'if gradient == "all":', "if True:",
           "coupling is no constant where it should be"),
    Mutant("kernel-bias-gradient", FILE, "db += ds.sum(2)", "db = ds.sum(2)",
           "the bias learns from the first iteration alone"),
)
