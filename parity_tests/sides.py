"""The name under which version 0.1 showed `parity_tests.harness.sides` to pairs of programs of one's own."""

from parity_tests.harness.sides import Arrays, Lib, Outcome, Recipe, broadcast, permute, reshape, run

__all__ = ["Arrays", "Lib", "Outcome", "Recipe", "broadcast", "permute", "reshape", "run"]
