"""Planted bugs of `port/scae/pcae.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/pcae.py"
MUTANTS = (
    Mutant("pcae-mse-summed", FILE, "torch.mean(torch.square(target - mean))",
           "torch.sum(torch.square(target - mean))", "the squared error of all pixels, not their mean"),
    Mutant("pcae-noise-forgotten", FILE, 'self.part_encoder(image, draws.get("part"), log)',
           "self.part_encoder(image, None, log)", "part presences without noise"),
)
