"""The name under which version 0.1 showed `parity_tests.mutants.planting` to pairs of programs of one's own."""

from parity_tests.mutants.planting import Mutant, catch, planted

__all__ = ["Mutant", "catch", "planted"]
