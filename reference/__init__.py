"""The original's image model in TensorFlow 2 (CPU, float32 and float64), under its variable names."""

from reference.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from reference.constellation import ConstellationAutoencoder
from reference.hierarchy import HierarchyAutoencoder
from reference.pcae import PartAutoencoder
from reference.scae import ImageAutoencoder, Result

__all__ = ["CheckpointError", "ConstellationAutoencoder", "HierarchyAutoencoder", "ImageAutoencoder",
           "PartAutoencoder", "Result", "read_checkpoint", "write_checkpoint"]
