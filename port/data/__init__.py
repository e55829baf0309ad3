"""Data sets as bytes: where they come from, how they are augmented and drawn."""
