"""The original's image model in TensorFlow 2 (CPU, float32 and float64), under its variable names."""

from reference.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from reference.constellation.model import ConstellationAutoencoder
from reference.scae.hierarchy import HierarchyAutoencoder
from reference.scae.model import ImageAutoencoder, Result
from reference.scae.pcae import PartAutoencoder

__all__ = ["CheckpointError", "ConstellationAutoencoder", "HierarchyAutoencoder", "ImageAutoencoder",
           "PartAutoencoder", "Result", "read_checkpoint", "write_checkpoint"]
