"""What every family is made of: ops, layers, attention, mixtures, losses and optimizers."""
