"""The stacked capsule autoencoder: part encoder and decoder, object decoder and whole model."""
