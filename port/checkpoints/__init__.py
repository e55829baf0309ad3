"""TensorFlow checkpoints, read and written without TensorFlow."""

from port.checkpoints.tensor_bundle.errors import CheckpointError
from port.checkpoints.tensor_bundle.reader import Checkpoint, read_checkpoint
from port.checkpoints.tensor_bundle.writer import write_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "read_checkpoint", "write_checkpoint"]
