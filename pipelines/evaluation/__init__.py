"""What stage `evaluate` does for each model family, and its baselines."""
