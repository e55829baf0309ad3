"""Port verification: goldens, property tests, oracles and mutants."""
