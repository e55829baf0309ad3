"""Safetensors files as Python writes files: readable as any other of the user's, and with the system's own errors.

The library's writer makes files that nobody but their owner may read, and says of a full disk neither in a form that
can be told apart nor for which file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

from port.core import files


def write(tensors: Mapping[str, Tensor], path: str | os.PathLike, metadata: Mapping[str, str] | None = None) -> None:
    """Tensors by name as a safetensors file, in place of one that is there; a folder is put in its place by `swap`.

    Args:
        tensors: contiguous, on the CPU.
        path: of the file.
        metadata: words about it.

    Raises:
        OSError: it cannot be written; names the path.
    """
    content = save(dict(tensors), None if metadata is None else dict(metadata))
    with files.named(path), open(path, "wb") as file:
        file.write(content)
