"""Training: the loop and its settings, steps on every rung, update rules, several ranks or seeds, and checkpoints."""
