"""What the commands on original checkpoints need beyond reading them."""
