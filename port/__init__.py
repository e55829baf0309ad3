"""Stacked capsule autoencoders in PyTorch, checked value by value against the original."""

from port import config, convert, optim, quirks, run_folder
from port.checkpoint import load, save
from port.checkpoints import read_checkpoint, write_checkpoint
from port.config import Config, ConfigError
from port.constellation import ConstellationAutoencoder
from port.convert import from_tf, to_tf
from port.hierarchy import HierarchyAutoencoder
from port.models import build
from port.noise import Noise, noise_plan
from port.pcae import PartAutoencoder
from port.scae import ImageAutoencoder, Result

__version__ = "0.1.0"
__all__ = ["Config", "ConfigError", "ConstellationAutoencoder", "HierarchyAutoencoder", "ImageAutoencoder",
           "Noise", "PartAutoencoder", "Result", "build", "config", "convert", "from_tf", "load",
           "noise_plan", "optim", "quirks", "read_checkpoint", "run_folder", "save", "to_tf",
           "write_checkpoint"]
