"""Planted bugs of `port/scae/pixel_forward.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/pixel_forward.py"
MUTANTS = (
    Mutant("kernel-no-density-outside", FILE, "joint[p] += beyond[p] * density[p]",
           "joint[p] += beyond[p]", "parts beyond their footprint explain every pixel"),
    Mutant("kernel-ends-swapped", FILE, "since[row, spans[row, 1]] += outside", "since[row, spans[row, 0]] += outside",
           "a part's log presence counts on its footprint a second time"),
)
