"""The name under which version 0.1 showed `parity_tests.harness.strategies` to pairs of programs of one's own."""

from parity_tests.harness.strategies import Case, Maker, cases

__all__ = ["Case", "Maker", "cases"]
