"""The constellation autoencoder: point sets, likelihood, decoder and model."""
