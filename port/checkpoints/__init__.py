"""TensorFlow checkpoints, read and written without TensorFlow."""

from port.checkpoints.errors import CheckpointError
from port.checkpoints.reader import Checkpoint, read_checkpoint
from port.checkpoints.writer import write_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "read_checkpoint", "write_checkpoint"]
