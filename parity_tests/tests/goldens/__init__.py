"""Both sides against recordings of the original program."""
