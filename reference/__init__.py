"""The original's image model in TensorFlow 2 (CPU, float32 and float64), under its variable names."""

import sys

from reference.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from reference.constellation.model import ConstellationAutoencoder
from reference.core import module
from reference.scae.hierarchy import HierarchyAutoencoder
from reference.scae.model import ImageAutoencoder, Result
from reference.scae.pcae import PartAutoencoder

__all__ = ["CheckpointError", "ConstellationAutoencoder", "HierarchyAutoencoder", "ImageAutoencoder",
           "PartAutoencoder", "Result", "read_checkpoint", "write_checkpoint"]

# The name under which version 0.1 showed the base class of modules to ports of other models.
sys.modules[f"{__name__}.module"] = module
