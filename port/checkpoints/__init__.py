"""Models on disk: TensorFlow checkpoints without TensorFlow, their conversion, and folders of models and runs."""

from port.checkpoints.tensor_bundle.errors import CheckpointError
from port.checkpoints.tensor_bundle.reader import Checkpoint, read_checkpoint
from port.checkpoints.tensor_bundle.writer import write_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "read_checkpoint", "write_checkpoint"]
