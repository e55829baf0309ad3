"""Single ops: both sides, the oracles, fast paths, initial values, errors."""
