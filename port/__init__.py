"""Stacked capsule autoencoders in PyTorch, checked value by value against the original."""

from port.core import compiler_cache  # noqa: F401, before torch, which makes its folder while it is imported

# isort: split
import sys

from port import config
from port.checkpoints import convert, export, read_checkpoint, run_folder, write_checkpoint
from port.checkpoints import model_folder as checkpoint
from port.checkpoints.convert import from_tf, to_tf
from port.checkpoints.hub import from_pretrained, save_pretrained
from port.checkpoints.model_folder import load, save
from port.config import Config, ConfigError
from port.constellation.model import ConstellationAutoencoder
from port.core import quirks
from port.core import rmsprop as optim
from port.core import variable_table as mapping
from port.families import build
from port.scae.hierarchy import HierarchyAutoencoder
from port.scae.model import ImageAutoencoder, Result
from port.scae.noise import Noise, noise_plan
from port.scae.pcae import PartAutoencoder

__version__ = "0.2.0"
__all__ = ["Config", "ConfigError", "ConstellationAutoencoder", "HierarchyAutoencoder", "ImageAutoencoder",
           "Noise", "PartAutoencoder", "Result", "build", "checkpoint", "config", "convert", "export",
           "from_pretrained", "from_tf", "load", "noise_plan", "optim", "quirks", "read_checkpoint", "run_folder",
           "save", "save_pretrained", "to_tf", "write_checkpoint"]

# The public modules can be imported by their public names, wherever they stand; `mapping` is the name under which
# version 0.1 showed the rows of conversion tables to ports of other models.
for _name, _module in {"checkpoint": checkpoint, "convert": convert, "export": export, "mapping": mapping,
                       "optim": optim, "quirks": quirks, "run_folder": run_folder}.items():
    sys.modules[f"{__name__}.{_name}"] = _module
