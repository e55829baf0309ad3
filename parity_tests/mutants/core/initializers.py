"""Planted bugs of `port/core/initializers.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/initializers.py"
MUTANTS = (
    Mutant("glorot-fans", FILE, "receptive = int(np.prod(shape[:-2]))", "receptive = 1",
           "fans without the leading axes"),
    Mutant("templates-signed", FILE, "q = (q - q.min()) / (q.max() - q.min())",
           "q = 2.0 * (q - q.min()) / (q.max() - q.min()) - 1.0", "templates from -1 to 1", "mlberkeley"),
)
