"""Planted bugs of `port/capsnet/network.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/capsnet/network.py"
MUTANTS = (
    Mutant("softmax-on-lengths", FILE, "margin_loss(lengths, labels, settings.margin)",
           "margin_loss(torch.softmax(lengths, 1), labels, settings.margin)",
           "softmax on the lengths before the margin loss", "the walk-through"),
    Mutant("mask-by-length", FILE, 'longest if label is None or mask == "length" else label',
           "longest", "the longest capsule is decoded in training too"),
    Mutant("frozen-encoder-trained", FILE, "capsules.detach() if frozen else capsules", "capsules",
           "the decoder trains a frozen encoder"),
)
