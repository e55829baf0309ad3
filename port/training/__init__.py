"""Training: the ways in which a step can be made, and what it would do on a GPU (`pretended`)."""
